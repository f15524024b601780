//! The gateway as a program of its own.

use clap::Parser;
use mesh_gateway::{Config, Deps, build};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Runs a kong.yml.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The kong.yml.
    #[arg(long)]
    config: PathBuf,
    /// Directory of the filters' modules.
    #[arg(long)]
    filters: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:10005")]
    listen: SocketAddr,
    /// Threads; as many as cores when left out.
    #[arg(long)]
    workers: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    let text = std::fs::read_to_string(&arguments.config)?;
    let declarative = mesh_declarative::Config::from_yaml(&text)?;
    let mut config = Config::new(arguments.listen, declarative, arguments.filters);
    config.workers = arguments.workers.unwrap_or(config.workers);
    let deps = Deps {
        metrics: prometheus::Registry::new(),
    };
    let gateway = build(config, deps).await?;
    tracing::info!(address = %gateway.address(), "gateway listens");
    let shutdown = CancellationToken::new();
    let signal = shutdown.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        signal.cancel();
    });
    let result = gateway.run(shutdown).await;
    signals.abort();
    Ok(result?)
}
