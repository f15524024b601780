//! The gateway as a program of its own.

mod arguments;

use anyhow::Context as _;
use arguments::Arguments;
use clap::Parser;
use mesh_gateway::{Deps, build};
use mesh_trace::Tracer;
use mesh_trace::logs::{self, Format, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings::from_environment(Format::Json, &|name| std::env::var(name).ok())?;
    logs::install(&settings).context("log")?;
    let metrics = prometheus::Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    metrics.register(Box::new(process))?;
    let tracer = Tracer::new("gateway", &arguments.traces()?)?;
    let deps = Deps {
        tracer: tracer.clone(),
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
    tracer.shutdown();
    Ok(result?)
}
