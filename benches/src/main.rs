//! `bench [--only NAME]`: measures, prints the table, writes `target/bench.json` and `docs/benchmarks.md`.

use anyhow::Context;
use clap::Parser;
use mesh_benches::parts::Part;
use mesh_benches::{report, rows};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Side-by-side measurements, one table out.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Measure only the row of this name, or the rows whose names begin with it
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Rounds of each row; the row is their median
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

// One thread: the load is to leave the machine to what is measured.
#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // the table is the program's output
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(part) = arguments.part {
        return part.play().await;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    // Returning drops every process that was started, where dying of the signal would leave them.
    let measured = tokio::select! {
        measured = measure(&arguments) => measured?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    };
    println!("\n{}", report::table(&measured));
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Vec<mesh_benches::row::Row>> {
    let root = arguments.root.canonicalize().context("no such directory")?;
    let measured = rows::measure(&root, arguments.only.as_deref(), arguments.rounds).await?;
    report::keep(&root, &measured, &rows::names())?;
    Ok(measured)
}
