//! Puts the parts together: bind first, then run until drained.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::status::Status;
use crate::worker::{self, Worker};
use crate::{SidecarError, admin, policy};
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
    worker: Option<Worker>,
    audit: Option<policy::audit::Writer>,
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
    let status = Arc::new(Status::new(
        bus.as_ref().map(|bus| bus.connected()),
        checked.app.as_ref().map(|app| app.address),
    ));
    let (policy, audit) = policy::build(&config, &deps.metrics)?.unzip();
    let worker = match (&config.worker, bus, checked.app, config.service.agent()) {
        (Some(settings), Some(bus), Some(app), Some(agent)) => Some(Worker::new(
            settings,
            agent,
            config.drain_ms,
            app.process_uri,
            worker::Given {
                bus,
                policy,
                metrics: Arc::clone(&metrics),
                status: Arc::clone(&status),
            },
        )),
        _ => None,
    };
    Ok(Bound {
        listener,
        address,
        registry: deps.metrics,
        status,
        worker,
        audit,
    })
}

impl Bound {
    /// Where `/health`, `/ready` and `/metrics` are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `shutdown` is cancelled and the drain is over.
    ///
    /// The admin listener and the audit log go last, so that a drain can be watched and what it refuses is kept.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop_admin = CancellationToken::new();
        let audit_until = stop_admin.clone();
        let audit = async {
            if let Some(writer) = self.audit {
                writer.run(audit_until).await;
            }
        };
        let admin = admin::serve(
            self.listener,
            self.registry,
            self.status,
            stop_admin.clone(),
        );
        let work = async {
            match self.worker {
                Some(worker) => worker.run(shutdown).await,
                None => shutdown.cancelled().await,
            }
            stop_admin.cancel();
        };
        tokio::join!(admin, audit, work);
    }
}
