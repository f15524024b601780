//! Puts the parts together: bind first, then run until drained.

use crate::config::Config;
use crate::health::Probe;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::status::Status;
use crate::worker::Worker;
use crate::{SidecarError, admin};
use mesh_bus::Bus;
use mesh_trace::Tracer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a sidecar is given.
pub struct Deps {
    /// The lane that steps and results travel, for a worker; stays its owner's to close.
    pub bus: Option<Arc<dyn Bus>>,
    /// Where services are found.
    pub registry: Arc<dyn Registry>,
    /// Begins spans.
    pub tracer: Tracer,
    /// Where the metrics are registered, and what `/metrics` shows.
    pub metrics: prometheus::Registry,
}

/// A sidecar that is bound and does not work yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    registry: prometheus::Registry,
    status: Arc<Status>,
    probe: Option<Probe>,
    worker: Option<Worker>,
}

/// Checks `config`, registers the metrics and binds the admin listener.
///
/// The broker and the agent need not be there yet.
///
/// # Errors
/// [`SidecarError`], when it cannot start at all.
pub async fn build(config: Config, deps: Deps) -> Result<Bound, SidecarError> {
    let checked = config.check().map_err(SidecarError::Config)?;
    let metrics = Arc::new(Metrics::register(&deps.metrics, &config.service)?);
    let address = config.admin_listen;
    let listen = |source| SidecarError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let bus = deps.bus.filter(|_| config.worker.is_some());
    if config.worker.is_some() && bus.is_none() {
        let fault = "worker has no bus".to_owned();
        return Err(SidecarError::Config(vec![fault]));
    }
    let probe = match (&config.app, &checked.app) {
        (Some(app), Some(place)) => Some(Probe::new(&app.health, place)),
        _ => None,
    };
    let status = Arc::new(Status::new(
        bus.as_ref().map(|bus| bus.connected()),
        probe.as_ref().map(Probe::health),
    ));
    let worker = match (&config.worker, bus, checked.app, config.service.agent()) {
        (Some(settings), Some(bus), Some(app), Some(agent)) => Some(Worker::new(
            settings,
            agent,
            config.drain_ms,
            app.process_uri,
            bus,
            Arc::clone(&metrics),
            Arc::clone(&status),
        )),
        _ => None,
    };
    Ok(Bound {
        listener,
        address,
        registry: deps.metrics,
        status,
        probe,
        worker,
    })
}

impl Bound {
    /// Where `/health`, `/ready` and `/metrics` are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `shutdown` is cancelled and the drain is over.
    ///
    /// The admin listener goes last, so that a drain can be watched.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop_admin = CancellationToken::new();
        let admin = admin::serve(
            self.listener,
            self.registry,
            self.status,
            stop_admin.clone(),
        );
        let probe = async {
            if let Some(probe) = self.probe {
                probe.run(stop_admin.clone()).await;
            }
        };
        let work = async {
            match self.worker {
                Some(worker) => worker.run(shutdown).await,
                None => shutdown.cancelled().await,
            }
            stop_admin.cancel();
        };
        tokio::join!(admin, probe, work);
    }
}
