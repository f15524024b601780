//! Puts the parts together: bind first, then run until drained.

use crate::admin::{self, Admin, Page};
use crate::config::Config;
use crate::identity::{Identity, Renewal};
use crate::metrics::Metrics;
use crate::proxy::{self, Mesh};
use crate::registry::Registry;
use crate::status::Status;
use crate::worker::{self, Worker};
use crate::{SidecarError, policy};
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
                tracer: deps.tracer.clone(),
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
        };
        let metrics = proxy::Metrics::register(&deps.metrics)?;
        if let (Some(inbound_), Some(app), Some(policy)) = (&config.inbound, &checked.app, &policy)
        {
            inbound = Some(proxy::Inbound::bind(
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
        logs: deps.logs,
        status,
        pages: vec![("/config", config_page(&config))],
        worker,
        inbound,
        outbound,
        renewal,
        audit,
        drain: Duration::from_millis(config.drain_ms),
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
        let audit = async {
            if let Some(writer) = self.audit {
                writer.run(stop_admin.clone()).await;
            }
        };
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
        let stop_outbound = CancellationToken::new();
        let worker = async {
            match self.worker {
                Some(worker) => worker.run(drain.clone()).await,
                None => drain.cancelled().await,
            }
        };
        let inbound = async {
            if let Some(inbound) = self.inbound {
                inbound.run(drain.clone(), self.drain).await;
            }
        };
        let ways_in = async {
            // What the program still does for others may need others: the way out goes after the ways in.
            tokio::join!(worker, inbound);
            stop_outbound.cancel();
        };
        let outbound = async {
            match self.outbound {
                Some(outbound) => outbound.run(stop_outbound.clone(), self.drain).await,
                None => stop_outbound.cancelled().await,
            }
            shutdown.cancelled().await;
            stop_admin.cancel();
        };
        let renewal = async {
            if let Some(renewal) = self.renewal {
                renewal.run(stop_admin.clone()).await;
            }
        };
        tokio::join!(admin, ways_in, outbound, renewal, audit);
    }
}
