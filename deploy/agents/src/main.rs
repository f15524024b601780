//! Runs one agent: `agent hardware-optimizer --listen 127.0.0.1:8081`.

use anyhow::Context;
use clap::Parser;
use mesh_agents::{Kind, Options, general_agent::Model};
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs one agent.
#[derive(Parser)]
struct Arguments {
    /// hardware-optimizer, resource-arbitrator, data-processor or general-agent.
    agent: Kind,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Ollama server that the general agent asks, such as http://127.0.0.1:11434.
    #[arg(long, env = "OLLAMA_URL")]
    ollama_url: Option<String>,
    /// The model that is asked.
    #[arg(long, env = "OLLAMA_MODEL", default_value = "tinyllama")]
    ollama_model: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let model = match arguments.ollama_url.filter(|url| !url.is_empty()) {
        Some(url) => Some(Model::new(&url, &arguments.ollama_model).context("OLLAMA_URL")?),
        None => None,
    };
    let options = Options {
        model,
        ..Options::default()
    };
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listen on {}", arguments.listen))?;
    let address = listener.local_addr().context("read the address")?;
    tracing::info!(agent = arguments.agent.name(), %address, "agent started");
    let shutdown = CancellationToken::new();
    let served = mesh_agents::serve(listener, arguments.agent.router(&options), shutdown.clone());
    tokio::pin!(served);
    tokio::select! {
        ended = served.as_mut() => return ended.context("serve"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
    served.await.context("serve")
}
