//! From a kong.yml to a gateway that is bound: everything that can fail fails here.

use crate::access::Access;
use crate::checked::Checked;
use crate::config::{BuildError, Config, Deps, RunError};
use crate::filters::Set;
use crate::generation::{Generation, Process};
use crate::metrics::Metrics;
use crate::reload::{Handle, Next};
use crate::worker;
use mesh_wasm_host::Shared as FilterShared;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// A gateway that listens and does not answer yet.
pub struct Bound {
    address: SocketAddr,
    listener: std::net::TcpListener,
    process: Arc<Process>,
    generation: Arc<Generation>,
    workers: Vec<(Set, mpsc::Receiver<Next>)>,
    handle: Handle,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.address)
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

/// Checks the kong.yml, listens, compiles the filters and gives them their configurations.
///
/// # Errors
/// [`BuildError`], which names what cannot be run.
pub async fn build(config: Config, deps: Deps) -> Result<Bound, BuildError> {
    // First what is wrong in the file: it is found without touching anything.
    Checked::read(&config.declarative).map_err(BuildError::Declarative)?;
    let (listener, address) = listen(config.listen)?;
    let store = Arc::new(FilterShared::default());
    let metrics =
        Metrics::register(&deps.metrics, Arc::clone(&store)).map_err(BuildError::Metrics)?;
    let spans = deps.tracer.register(&deps.metrics);
    spans.map_err(BuildError::Metrics)?;
    let access = match &config.access_log {
        Some(log) => Some(Arc::new(
            Access::open(log.clone(), metrics.lines_dropped.clone())
                .map_err(BuildError::AccessLog)?,
        )),
        None => None,
    };
    let process = Arc::new(Process {
        connections: Arc::new(Semaphore::new(config.max_connections)),
        metrics,
        local_port: address.port(),
        store,
        counters: crate::plugins::rate::Counters::default(),
        access,
        tracer: deps.tracer,
    });
    let (generation, sets) = Generation::make(config, &process).await?;
    process.metrics.pools.replace(generation.pools.clone());
    let mut senders = Vec::with_capacity(sets.len());
    let mut workers = Vec::with_capacity(sets.len());
    for set in sets {
        // One reload at a time: a worker has taken the last one before the next is made.
        let (sender, receiver) = mpsc::channel(1);
        senders.push(sender);
        workers.push((set, receiver));
    }
    let handle = Handle::new(Arc::clone(&process), senders, generation.config.clone());
    Ok(Bound {
        address,
        listener,
        process,
        generation,
        workers,
        handle,
    })
}

impl Bound {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What gives the gateway another configuration while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until `shutdown`, then finishes the requests in flight, for as long as the drain lasts.
    ///
    /// # Errors
    /// [`RunError`] when a worker cannot be started or ends by itself; the others are ended then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        drop(self.handle);
        worker::run(
            self.listener,
            &self.process,
            &self.generation,
            self.workers,
            shutdown,
        )
        .await
    }
}

fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), BuildError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| BuildError::Listen { address, source })
}
