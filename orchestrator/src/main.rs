//! `orchestrator --config FILE`: reads the file, lets the environment override it, runs until a signal.

use anyhow::{Context, bail};
use mesh_orchestrator::config::{Config, Store, StoreUrl};
use mesh_orchestrator::coordination::hub;
use mesh_orchestrator::{Deps, build, quota, resources, store};
use mesh_trace::Tracer;
use mesh_trace::logs::{self, Format, Settings};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::from_environment(Format::Text, &|name| std::env::var(name).ok())?;
    logs::install(&settings).context("log")?;
    let config = read(&file()?)?;
    let metrics = prometheus::Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    metrics.register(Box::new(process))?;
    let tracer = Tracer::new("orchestrator", &config.traces)?;
    let bus = mesh_bus::connect(&config.bus).await?;
    let deps = Deps {
        bus: bus.clone(),
        store: store::connect(&config.store).await?,
        quota: quota::connect(&config.store)?,
        hub: hub::connect(&config.store, config.coordination.mailboxes)?,
        arbiter: resources::connect(&config)?,
        tracer: tracer.clone(),
        metrics,
    };
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stop.cancel();
    });
    build(config, deps).await?.run(shutdown).await;
    bus.close().await;
    tracer.shutdown();
    Ok(())
}

fn file() -> anyhow::Result<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(flag), Some(file), None) if flag == "--config" => Ok(file.into()),
        _ => bail!("usage: orchestrator --config FILE"),
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Config> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // No snippet in errors: the line beside the fault may hold a password.
    let options = serde_saphyr::options! { with_snippet: false };
    let mut config: Config = serde_saphyr::from_str_with_options(&text, options)
        .with_context(|| format!("in {}", file.display()))?;
    if let Ok(port) = std::env::var("PORT") {
        config.listen.set_port(port.parse().context("PORT")?);
    }
    if let Ok(url) = std::env::var("RABBITMQ_URL") {
        let url = url
            .try_into()
            .map_err(anyhow::Error::msg)
            .context("RABBITMQ_URL")?;
        config.bus = mesh_bus::BusConfig::Rabbitmq { url };
    }
    if let Ok(url) = std::env::var("REDIS_URL") {
        let url = StoreUrl::try_from(url)
            .map_err(anyhow::Error::msg)
            .context("REDIS_URL")?;
        let (Store::Memory { retention_s } | Store::Redis { retention_s, .. }) = config.store;
        config.store = Store::Redis { url, retention_s };
    }
    if let (Ok(url), Some(ollama)) = (std::env::var("OLLAMA_URL"), &mut config.planner.ollama) {
        ollama.url = url;
    }
    let environment = |name: &str| std::env::var(name).ok();
    let applied = config.traces.apply(&environment);
    applied.map_err(anyhow::Error::msg)?;
    Ok(config)
}
