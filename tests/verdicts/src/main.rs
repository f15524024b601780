//! `verdicts`: the corpus from the command line.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test in the form of a program"
)]

use clap::{Parser, Subcommand};
use mesh_verdicts::{chains, corpus, echo::Echo, kong, run};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Asks one corpus of requests of several gateways, and fails on any difference.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The native policies, the local gateway and Envoy; or a gateway that runs elsewhere.
    Run {
        /// `http://127.0.0.1:8000`: a gateway that was started with what `kong` has written.
        #[arg(long, requires = "echo")]
        gateway: Option<String>,
        /// Address of the echo that it has as upstream.
        #[arg(long)]
        echo: Option<SocketAddr>,
        /// Only cases whose file and name hold this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Writes what a Kong needs.
    Kong {
        /// Directory for it.
        #[arg(long)]
        out: PathBuf,
        /// Address of the echo.
        #[arg(long, default_value = "127.0.0.1:18081")]
        echo: SocketAddr,
    },
    /// The upstream that answers with what it saw.
    Echo {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:18081")]
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // What the gateway logs of its filters belongs to the cases; RUST_LOG shows it.
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()),
        )
        .init();
    match Arguments::parse().command {
        Command::Run {
            gateway,
            echo,
            only,
        } => {
            let files = corpus::read();
            let only = only.as_deref();
            let report = match gateway.as_deref().zip(echo) {
                Some((gateway, echo)) => {
                    let address = gateway.trim_start_matches("http://").trim_end_matches('/');
                    let address = address.parse().expect("an address with its port");
                    run::elsewhere(&files, address, echo, only).await
                }
                None => run::here(&files, only).await,
            };
            println!("{report}");
            if report.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Command::Kong { out, echo } => {
            kong::write(&out, &chains::all(&corpus::read(), echo), echo);
            println!("{}: kong.yml, env, filters/", out.display());
            ExitCode::SUCCESS
        }
        Command::Echo { listen } => {
            let echo = Echo::start(listen).await;
            println!("{}", echo.address);
            echo.ended().await;
            ExitCode::SUCCESS
        }
    }
}
