//! What the program is told on its command line, and by the environment where that says nothing.

use anyhow::Context as _;
use clap::Parser;
use mesh_gateway::{AccessLog, Config};
use mesh_trace::Protocol;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs a kong.yml; SIGHUP loads it again, and a file that cannot be run changes nothing.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// The kong.yml.
    #[arg(long)]
    config: PathBuf,
    /// Directory of the filters' modules.
    #[arg(long)]
    filters: PathBuf,
    /// Directory in which compiled modules are kept for the next start; the user's own, closed to others (0700).
    #[arg(long)]
    cache: Option<PathBuf>,
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
    pub(crate) status: Option<SocketAddr>,
    /// Base URL of an OTLP receiver for traces, such as http://127.0.0.1:4317; OTEL_EXPORTER_OTLP_ENDPOINT
    /// when left out.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// What is spoken there, grpc or http/protobuf; OTEL_EXPORTER_OTLP_PROTOCOL, or grpc, when left out.
    #[arg(long, value_name = "PROTOCOL")]
    otlp_protocol: Option<Protocol>,
    /// Share of traces that begin here and are recorded, 0 to 1.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    trace_sample: f64,
}

impl Arguments {
    /// The configuration that they name.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(&self.config)
            .with_context(|| format!("{} cannot be read", self.config.display()))?;
        let declarative = mesh_declarative::Config::from_yaml(&text)?;
        let mut config = Config::new(self.listen, declarative, &self.filters);
        config.workers = self.workers.unwrap_or(config.workers);
        config.access_log.clone_from(&self.access_log);
        config.cache.clone_from(&self.cache);
        Ok(config)
    }

    /// Where spans go.
    pub(crate) fn traces(&self) -> anyhow::Result<mesh_trace::Config> {
        let mut traces = mesh_trace::Config {
            sample: self.trace_sample,
            ..mesh_trace::Config::default()
        };
        let environment = |name: &str| std::env::var(name).ok();
        traces.apply(&environment).map_err(anyhow::Error::msg)?;
        traces.protocol = self.otlp_protocol.unwrap_or(traces.protocol);
        if let Some(endpoint) = &self.otlp {
            traces.endpoint = Some(endpoint.clone());
        }
        Ok(traces)
    }
}
