//! The gateway as a program of its own.

use anyhow::Context as _;
use clap::Parser;
use mesh_gateway::{AccessLog, Config, Deps, build};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a kong.yml; SIGHUP loads it again, and a file that cannot be run changes nothing.
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
    /// Where a line of JSON goes for every request: a file, or `stdout`.
    #[arg(long)]
    access_log: Option<AccessLog>,
    /// Address of the metrics, at /metrics.
    #[arg(long)]
    status: Option<SocketAddr>,
}

impl Arguments {
    fn load(&self) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(&self.config)
            .with_context(|| format!("{} cannot be read", self.config.display()))?;
        let declarative = mesh_declarative::Config::from_yaml(&text)?;
        let mut config = Config::new(self.listen, declarative, &self.filters);
        config.workers = self.workers.unwrap_or(config.workers);
        config.access_log.clone_from(&self.access_log);
        Ok(config)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        // The standard output belongs to the access log.
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    let metrics = prometheus::Registry::new();
    let deps = Deps {
        metrics: metrics.clone(),
    };
    let gateway = build(arguments.load()?, deps).await?;
    tracing::info!(address = %gateway.address(), "gateway listens");
    let shutdown = CancellationToken::new();
    if let Some(address) = arguments.status {
        let status = mesh_gateway::Status::bind(address, metrics)?;
        tracing::info!(address = %status.address(), "metrics at /metrics");
        tokio::spawn(status.run(shutdown.clone()));
    }
    let (handle, ending) = (gateway.handle(), shutdown.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let signals = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
                _ = hangup.recv() => {}
            }
            let result = match arguments.load() {
                Ok(config) => handle.reload(config).await.map_err(anyhow::Error::from),
                Err(error) => {
                    handle.unreadable();
                    Err(error)
                }
            };
            match result {
                Ok(()) => tracing::info!("configuration loaded"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "configuration not loaded; the old one runs on");
                }
            }
        }
        ending.cancel();
    });
    let result = gateway.run(shutdown).await;
    signals.abort();
    Ok(result?)
}
