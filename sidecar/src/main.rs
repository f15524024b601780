//! The process around a sidecar: arguments, environment, log, signals.
//!
//! One thread: a lane of small messages gains nothing from a second one, and an idle sidecar is to
//! stay small.

use anyhow::Context;
use clap::Parser;
use mesh_sidecar::config::Config;
use mesh_sidecar::{Deps, build};
use mesh_trace::logs::{self, Format, Settings};
use mesh_trace::{LogHandle, Tracer};
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
    let settings = Settings::from_environment(Format::Text, &|name| std::env::var(name).ok())?;
    let logs = logs::install(&settings).context("log")?;
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
    mesh_sidecar::runtime()
        .context("start the runtime")?
        .block_on(serve(config, logs))
}

async fn serve(config: Config, logs: LogHandle) -> anyhow::Result<()> {
    // Listened for before anything starts, so that an early signal drains as well.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let agent = config.service.clone();
    let bus = match &config.worker {
        Some(worker) => Some(mesh_bus::connect(&worker.bus).await.context("broker")?),
        None => None,
    };
    let metrics = prometheus::Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    metrics.register(Box::new(process)).context("metrics")?;
    // Beside the service's own spans, these are the sidecar's.
    let tracer = Tracer::new(&format!("{agent}-sidecar"), &config.traces)?;
    let deps = Deps {
        bus: bus.clone(),
        registry: mesh_sidecar::registry::connect(&config.registry).context("registry")?,
        tracer: tracer.clone(),
        logs: Some(logs),
        metrics,
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
    tracer.shutdown();
    tracing::info!(%agent, "left");
    Ok(())
}
