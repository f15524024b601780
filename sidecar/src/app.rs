//! Puts the parts together: bind first, then run until drained.

use crate::admin::{self, Admin, Page};
use crate::config::Config;
use crate::health::Probe;
use crate::identity::Renewal;
use crate::metrics::Metrics;
use crate::registry::{self, Announcer, Registry};
use crate::status::Status;
use crate::ways::{self, Ways};
use crate::worker::{self, Worker};
use crate::{SidecarError, policy, proxy};
use mesh_bus::Bus;
use mesh_trace::{LogHandle, Tracer};
use std::future::Future;
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
    probe: Option<Probe>,
    worker: Option<Worker>,
    audit: Option<policy::audit::Writer>,
    ways: Ways,
    drain: Duration,
}

/// Checks `config`, registers the metrics and binds the listeners.
///
/// The broker, the registry and the agent need not be there yet.
///
/// # Errors
/// [`SidecarError`], when it cannot start at all.
pub async fn build(config: Config, deps: Deps) -> Result<Bound, SidecarError> {
    let checked = config.check().map_err(SidecarError::Config)?;
    let settings = config.worker.as_ref();
    let ack_deadline = settings.map(|worker| Duration::from_millis(worker.ack_deadline_ms));
    let metrics = Metrics::register(&deps.metrics, &config.service, ack_deadline)?;
    let metrics = Arc::new(metrics);
    deps.tracer.register(&deps.metrics)?;
    let address = config.admin_listen;
    let listen = |source| SidecarError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let bus = deps.bus.filter(|_| settings.is_some());
    if settings.is_some() && bus.is_none() {
        let fault = "worker has no bus".to_owned();
        return Err(SidecarError::Config(vec![fault]));
    }
    let probe = match (&config.app, &checked.app) {
        (Some(app), Some(place)) => Some(Probe::new(&app.health, place)),
        _ => None,
    };
    let (policy, audit) = policy::build(&config, &deps.metrics)?.unzip();
    let ways = ways::bind(&ways::Given {
        config: &config,
        app: checked.app.as_ref(),
        policy: policy.as_ref(),
        probe: probe.as_ref(),
        registry: &deps.registry,
        tracer: &deps.tracer,
        metrics: &deps.metrics,
        admin: address,
    })?;
    let status = Arc::new(Status::new(
        bus.as_ref().map(|bus| bus.connected()),
        probe.as_ref().map(Probe::health),
        checked.app.as_ref().map(|app| app.address),
        ways.identity.clone(),
        ways.announcement.clone(),
    ));
    let worker = match (settings, bus, checked.app, config.service.agent()) {
        (Some(settings), Some(bus), Some(app), Some(agent)) => {
            let worker = Worker::new(
                settings,
                agent,
                config.drain_ms,
                app.process_uri,
                worker::Given {
                    bus,
                    policy,
                    tracer: deps.tracer,
                    metrics,
                    status: Arc::clone(&status),
                },
            );
            Some(worker.map_err(SidecarError::State)?)
        }
        _ => None,
    };
    Ok(Bound {
        listener,
        address,
        registry: deps.metrics,
        logs: deps.logs,
        status,
        pages: pages(&config, &ways),
        probe,
        worker,
        audit,
        ways,
        drain: Duration::from_millis(config.drain_ms),
    })
}

/// What the admin listener shows of this sidecar.
fn pages(config: &Config, ways: &Ways) -> Vec<(&'static str, Page)> {
    let shown = serde_json::to_value(config.masked()).unwrap_or_default();
    let mut pages: Vec<(&'static str, Page)> = vec![("/config", Box::new(move || shown.clone()))];
    if let Some(identity) = ways.identity.clone() {
        let (announcement, discovery) = (ways.announcement.clone(), ways.discovery.clone());
        pages.push(("/certificate", Box::new(move || identity.shown())));
        pages.push((
            "/registry",
            Box::new(move || registry::shown(announcement.as_ref(), discovery.as_ref())),
        ));
    }
    pages
}

impl Bound {
    /// Where `/health`, `/ready` and `/metrics` are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Where peers connect, by mTLS.
    pub fn inbound_address(&self) -> Option<SocketAddr> {
        self.ways.inbound.as_ref().map(proxy::Inbound::address)
    }

    /// Where the program sends its requests.
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        self.ways.outbound.as_ref().map(proxy::Outbound::address)
    }

    /// Works until `shutdown` is cancelled and the drain is over.
    ///
    /// The drain: first the registry is told, so that peers go elsewhere; then the ways in and the worker finish what
    /// is under way; then the way out, which the program may need until then. The admin listener, the certificate
    /// and the audit log go last, so that a drain can be watched and what it refuses is kept.
    pub async fn run(self, shutdown: CancellationToken) {
        let (stop_inbound, stop_outbound, stop_rest) = (
            CancellationToken::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        // Drained by an operator, it stays to say so until it is told to end.
        let drained = shutdown.child_token();
        let Ways {
            identity,
            renewal,
            inbound,
            announcer,
            outbound,
            discovery,
            ..
        } = self.ways;
        let status = Arc::clone(&self.status);
        let admin = Admin {
            metrics: self.registry,
            status: self.status,
            pages: self.pages,
            drain: drained.clone(),
            logs: self.logs,
        };
        let admin = admin::serve(self.listener, admin, stop_rest.clone());
        let audit = either(self.audit, &stop_rest, policy::audit::Writer::run);
        let probe = either(self.probe, &stop_rest, Probe::run);
        let renewal = either(renewal, &stop_rest, Renewal::run);
        let worker = either(self.worker, &drained, Worker::run);
        let announce = async {
            // Peers are told of a way in that can prove who is behind it.
            let first = async {
                if let Some(identity) = identity {
                    identity.first().await;
                }
            };
            if drained.run_until_cancelled(first).await.is_some() {
                either(announcer, &drained, Announcer::run).await;
            }
            status.draining();
            stop_inbound.cancel();
        };
        let drain = self.drain;
        let inbound = either(inbound, &stop_inbound, |inbound, stop| {
            inbound.run(stop, drain)
        });
        let ways_in = async {
            tokio::join!(worker, announce, inbound);
            stop_outbound.cancel();
        };
        let way_out = async {
            either(outbound, &stop_outbound, |outbound, stop| {
                outbound.run(stop, drain)
            })
            .await;
            if let Some(discovery) = discovery {
                discovery.close().await;
            }
            shutdown.cancelled().await;
            stop_rest.cancel();
        };
        tokio::join!(admin, audit, probe, renewal, ways_in, way_out);
    }
}

/// Runs a part, where there is one, until `stop`.
async fn either<P, F: Future<Output = ()>>(
    part: Option<P>,
    stop: &CancellationToken,
    run: impl FnOnce(P, CancellationToken) -> F,
) {
    match part {
        Some(part) => run(part, stop.clone()).await,
        None => stop.cancelled().await,
    }
}
