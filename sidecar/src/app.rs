//! Puts the parts together: bind first, then run until drained.

use crate::SidecarError;
use crate::admin::{self, Admin, Page};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::status::Status;
use crate::worker::Worker;
use mesh_bus::Bus;
use mesh_trace::{LogHandle, Tracer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
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
    /// Changes what the process logs; without it, nobody can over the admin listener.
    pub logs: Option<LogHandle>,
    /// Where the metrics are registered, and what `/metrics` shows.
    pub metrics: prometheus::Registry,
}

/// A sidecar that is bound and does not work yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    registry: prometheus::Registry,
    logs: Option<LogHandle>,
    status: Arc<Status>,
    pages: Vec<(&'static str, Page)>,
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
    let worker = config.worker.as_ref();
    let ack_deadline = worker.map(|w| Duration::from_millis(w.ack_deadline_ms));
    let metrics = Metrics::register(&deps.metrics, &config.service, ack_deadline)?;
    let metrics = Arc::new(metrics);
    deps.tracer.register(&deps.metrics)?;
    let address = config.admin_listen;
    let listen = |source| SidecarError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let bus = deps.bus.filter(|_| config.worker.is_some());
    if config.worker.is_some() && bus.is_none() {
        let fault = "worker has no bus".to_owned();
        return Err(SidecarError::Config(vec![fault]));
    }
    let status = Arc::new(Status::new(
        bus.as_ref().map(|bus| bus.connected()),
        checked.app.as_ref().map(|app| app.address),
    ));
    let worker = match (&config.worker, bus, checked.app, config.service.agent()) {
        (Some(settings), Some(bus), Some(app), Some(agent)) => Some(Worker::new(
            settings,
            agent,
            config.drain_ms,
            app.process_uri,
            bus,
            deps.tracer,
            Arc::clone(&metrics),
            Arc::clone(&status),
        )),
        _ => None,
    };
    Ok(Bound {
        listener,
        address,
        registry: deps.metrics,
        logs: deps.logs,
        status,
        pages: vec![("/config", config_page(&config))],
        worker,
    })
}

/// The configuration, which does not change while it runs.
fn config_page(config: &Config) -> Page {
    let shown = serde_json::to_value(config.masked()).unwrap_or_default();
    Box::new(move || shown.clone())
}

impl Bound {
    /// Where `/health`, `/ready` and `/metrics` are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Where the program sends its requests, if there is a way out.
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Works until `shutdown` is cancelled and the drain is over.
    ///
    /// The admin listener goes last, so that a drain can be watched.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop_admin = CancellationToken::new();
        // Drained by an operator, it stays to say so until it is told to end.
        let drain = shutdown.child_token();
        let admin = Admin {
            metrics: self.registry,
            status: self.status,
            pages: self.pages,
            drain: drain.clone(),
            logs: self.logs,
        };
        let admin = admin::serve(self.listener, admin, stop_admin.clone());
        let work = async {
            match self.worker {
                Some(worker) => worker.run(drain).await,
                None => drain.cancelled().await,
            }
            shutdown.cancelled().await;
            stop_admin.cancel();
        };
        tokio::join!(admin, work);
    }
}
