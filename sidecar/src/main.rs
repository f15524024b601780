//! The process around a sidecar: arguments, environment, log, signals.
//!
//! One thread: a lane of small messages gains nothing from a second one, and an idle sidecar is to
//! stay small.

use anyhow::Context;
use clap::Parser;
use mesh_bus::{BrokerUrl, BusConfig};
use mesh_sidecar::config::Config;
use mesh_sidecar::{Deps, build};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Takes an agent's steps off the bus and hands them to it.
#[derive(Parser)]
struct Arguments {
    /// The configuration, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and leave.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let file = arguments.config.display();
    let text =
        std::fs::read_to_string(&arguments.config).with_context(|| format!("read {file}"))?;
    let mut config = Config::from_text(&text)
        .map_err(|faults| anyhow::anyhow!("{file}: {}", faults.join("; ")))?;
    if let Ok(url) = std::env::var("RABBITMQ_URL") {
        let url = BrokerUrl::try_from(url)
            .map_err(anyhow::Error::msg)
            .context("RABBITMQ_URL")?;
        config.bus = BusConfig::Rabbitmq { url };
    }
    if arguments.check {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Listened for before anything starts, so that an early signal drains as well.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let agent = config.agent.clone();
    let bus = mesh_bus::connect(&config.bus).await.context("broker")?;
    let deps = Deps {
        bus: bus.clone(),
        metrics: prometheus::Registry::new(),
    };
    let sidecar = build(config, deps).await?;
    tracing::info!(%agent, admin = %sidecar.admin_address(), "sidecar started");
    let shutdown = CancellationToken::new();
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(%agent, "draining");
        shutdown.cancel();
    };
    tokio::join!(asked, sidecar.run(shutdown.clone()));
    bus.close().await;
    tracing::info!(%agent, "left");
    Ok(())
}
