//! Puts the parts together: bind first, then run until drained.

use crate::config::Config;
use crate::identity::{Identity, Renewal};
use crate::metrics::Metrics;
use crate::proxy::{self, Mesh};
use crate::registry::Registry;
use crate::status::Status;
use crate::worker::{self, Worker};
use crate::{SidecarError, admin, policy};
use mesh_bus::Bus;
use mesh_trace::Tracer;
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
    inbound: Option<proxy::Inbound>,
    outbound: Option<proxy::Outbound>,
    renewal: Option<Renewal>,
    audit: Option<policy::audit::Writer>,
    drain: Duration,
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
    let worker = match (&config.worker, bus, &checked.app, config.service.agent()) {
        (Some(settings), Some(bus), Some(app), Some(agent)) => Some(Worker::new(
            settings,
            agent,
            config.drain_ms,
            app.process_uri.clone(),
            worker::Given {
                bus,
                policy: policy.clone(),
                metrics: Arc::clone(&metrics),
                status: Arc::clone(&status),
            },
        )),
        _ => None,
    };
    let (mut inbound, mut outbound, mut renewal) = (None, None, None);
    if config.identity.exists() {
        let consul = config.registry.consul();
        let (identity, renewed) =
            Identity::new(&config.service, &config.identity, consul, &deps.metrics)?;
        renewal = Some(renewed);
        let mesh = Mesh {
            identity,
            tracer: deps.tracer,
            zone: None,
        };
        let metrics = proxy::Metrics::register(&deps.metrics)?;
        if let (Some(inbound_), Some(app), Some(policy)) = (&config.inbound, &checked.app, &policy) {
            inbound = Some(proxy::Inbound::bind(
                &config.service,
                inbound_,
                app,
                Arc::clone(policy),
                mesh.clone(),
                &metrics,
                config.threads,
            )?);
        }
        if let Some(outbound_) = &config.outbound {
            let discovery = proxy::Discovery(Arc::clone(&deps.registry));
            outbound = Some(proxy::Outbound::bind(
                outbound_,
                Arc::clone(&deps.registry),
                discovery,
                mesh,
                &metrics,
                config.threads,
            )?);
        }
    }
    Ok(Bound {
        listener,
        address,
        registry: deps.metrics,
        status,
        worker,
        inbound,
        outbound,
        renewal,
        audit,
        drain: Duration::from_millis(config.drain_ms),
    })
}

impl Bound {
    /// Where `/health`, `/ready` and `/metrics` are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Where peers connect, by mTLS.
    pub fn inbound_address(&self) -> Option<SocketAddr> {
        self.inbound.as_ref().map(proxy::Inbound::address)
    }

    /// Where the program sends its requests.
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        self.outbound.as_ref().map(proxy::Outbound::address)
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
        let stop_outbound = CancellationToken::new();
        let worker = async {
            match self.worker {
                Some(worker) => worker.run(shutdown.clone()).await,
                None => shutdown.cancelled().await,
            }
        };
        let inbound = async {
            if let Some(inbound) = self.inbound {
                inbound.run(shutdown.clone(), self.drain).await;
            }
        };
        let work = async {
            // What the program still does for others may need others: the way out goes after the ways in.
            tokio::join!(worker, inbound);
            stop_outbound.cancel();
        };
        let outbound = async {
            match self.outbound {
                Some(outbound) => outbound.run(stop_outbound.clone(), self.drain).await,
                None => stop_outbound.cancelled().await,
            }
            stop_admin.cancel();
        };
        let renewal = async {
            if let Some(renewal) = self.renewal {
                renewal.run(stop_admin.clone()).await;
            }
        };
        tokio::join!(admin, audit, work, outbound, renewal);
    }
}
