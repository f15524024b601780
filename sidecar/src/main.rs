//! The process around a sidecar: arguments, environment, log, signals.
//!
//! One thread: a lane of small messages gains nothing from a second one, and an idle sidecar is to
//! stay small.

use anyhow::Context;
use clap::Parser;
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
    config
        .apply(&|name| std::env::var(name).ok())
        .map_err(|faults| anyhow::anyhow!("environment: {}", faults.join("; ")))?;
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
    let agent = config.service.clone();
    let bus = match &config.worker {
        Some(worker) => Some(mesh_bus::connect(&worker.bus).await.context("broker")?),
        None => None,
    };
    let deps = Deps {
        bus: bus.clone(),
        registry: mesh_sidecar::registry::connect(&config.registry).context("registry")?,
        tracer: mesh_trace::Tracer::new(agent.as_str(), &config.traces)?,
        metrics: prometheus::Registry::new(),
        log: None,
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
    if let Some(bus) = bus {
        bus.close().await;
    }
    tracing::info!(%agent, "left");
    Ok(())
}
