//! What a gateway is built from, and why it may not be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of one gateway. The limits have values that fit a client of the mesh; each bounds what
/// a stranger can make the gateway hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Routes, services and filters.
    pub declarative: mesh_declarative::Config,
    /// Directory of the modules, `<filter>.wasm` each.
    pub filters_dir: PathBuf,
    /// Where compiled modules are kept from one start to the next; they are compiled at each when None.
    pub cache: Option<PathBuf>,
    /// Threads, each with its own VMs.
    pub workers: usize,
    /// Connections at a time; further ones wait in the listener's queue.
    pub max_connections: usize,
    /// Longest request body, in bytes. A body that filters see is held in memory as a whole.
    pub max_request_body: usize,
    /// Headers of one request; one with more is answered 431.
    pub max_headers: usize,
    /// Request line and headers together, in bytes, at least 8192; one with more is answered 431.
    pub max_head_bytes: usize,
    /// Longest wait for a request's head, on a new connection and on one kept alive.
    pub header_timeout: Duration,
    /// Longest wait between two parts of a request body.
    pub body_timeout: Duration,
    /// How long requests in flight may go on after the shutdown began.
    pub drain: Duration,
    /// What a filter may use.
    pub limits: mesh_wasm_host::Limits,
    /// Where a line of JSON goes for every request; nowhere when None.
    pub access_log: Option<AccessLog>,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// To the standard output.
    Stdout,
    /// To the end of a file, which is opened anew when the configuration is loaded again.
    File(PathBuf),
}

impl std::str::FromStr for AccessLog {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

impl Config {
    /// A gateway on `listen` with the default limits.
    pub fn new(
        listen: SocketAddr,
        declarative: mesh_declarative::Config,
        filters_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            listen,
            declarative,
            filters_dir: filters_dir.into(),
            cache: None,
            // More workers mean more copies of every filter's cache; a gateway shares its machine.
            workers: std::thread::available_parallelism().map_or(1, |n| n.get().min(8)),
            max_connections: 4096,
            max_request_body: 1024 * 1024,
            max_headers: 128,
            max_head_bytes: 32 * 1024,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            limits: mesh_wasm_host::Limits::default(),
            access_log: None,
        }
    }
}

/// What a gateway needs from its process.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Begins spans.
    pub tracer: mesh_trace::Tracer,
    /// Takes the gateway's metrics and its filters'.
    pub metrics: prometheus::Registry,
}

/// Why a gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kong.yml asks for what this gateway does not do, or is wrong in itself; all of it.
    #[error("kong.yml cannot be run: {}", .0.join("; "))]
    Declarative(Vec<String>),
    /// A filter has no module that can be read.
    #[error("filter {filter}: no module at {path}")]
    Module {
        /// Name of the filter.
        filter: String,
        /// Where its module should be.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// A filter cannot run.
    #[error("filter {filter}")]
    Filter {
        /// Name of the filter.
        filter: String,
        /// Why.
        #[source]
        source: mesh_wasm_host::HostError,
    },
    /// The engine cannot be set up.
    #[error("the wasm engine cannot be set up")]
    Engine(#[source] mesh_wasm_host::HostError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The metrics are registered already.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
    /// A new configuration changes what a gateway that runs cannot change.
    #[error("{0} cannot change while the gateway runs: start another one")]
    Fixed(&'static str),
    /// The gateway has ended.
    #[error("the gateway has ended")]
    Gone,
    /// The build was cut off.
    #[error("the build ended early: {0}")]
    Cut(String),
}

/// Why a gateway that ran ended otherwise than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker cannot be started.
    #[error("a worker cannot be started")]
    Worker(#[source] std::io::Error),
    /// A worker ended by itself.
    #[error("worker {0} ended by itself")]
    Ended(usize),
}
