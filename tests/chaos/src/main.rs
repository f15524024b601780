//! `chaos`: what `make chaos` runs. Its last line is the counts, as JSON.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test in the form of a program"
)]

use clap::{Args, Parser, Subcommand};
use mesh_chaos::agent::{self, Work};
use mesh_chaos::{Play, play};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A whole mesh under load while everything in it fails, and every task counted.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays it: every fault in turn, then pairs by chance.
    Play(PlayArguments),
    /// The agent that tasks go to.
    Agent(AgentArguments),
}

#[derive(Args)]
struct PlayArguments {
    /// How many tasks of three steps.
    #[arg(long, default_value_t = 10_000)]
    tasks: u32,
    /// How many of them a second.
    #[arg(long, default_value_t = 11.0)]
    rate: f64,
    /// Two orchestrators, one of which is killed every so many seconds.
    #[arg(long)]
    kill_every: Option<u64>,
    /// Tasks that wait for an agent that is away.
    #[arg(long, default_value_t = 100_000)]
    backlog: usize,
    /// Where chance begins; said at the end, so that a play can be played again.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
struct AgentArguments {
    #[arg(long)]
    listen: SocketAddr,
    /// Where its effects are written down.
    #[arg(long)]
    log: PathBuf,
    /// How long a step takes.
    #[arg(long, default_value_t = 0)]
    takes_ms: u64,
    /// How long some steps take.
    #[arg(long)]
    late_ms: Option<u64>,
}

/// All of it ends within 20 minutes; the last of them are for what comes after the load.
const LONGEST: Duration = Duration::from_secs(17 * 60);

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Agent(arguments) => {
            let work = Work {
                log: arguments.log,
                takes: Duration::from_millis(arguments.takes_ms),
                late: arguments.late_ms.map(Duration::from_millis),
            };
            match agent::serve(arguments.listen, work).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("agent: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Command::Play(arguments) => {
            let report = play(&Play {
                tasks: arguments.tasks,
                rate: arguments.rate,
                kill_every: arguments.kill_every.map(Duration::from_secs),
                backlog: arguments.backlog,
                seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
                longest: LONGEST,
            })
            .await;
            println!("{}", serde_json::to_string(&report).expect("JSON"));
            if report.holds() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
