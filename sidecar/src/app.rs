//! Puts the parts together: bind first, then run until drained.

use crate::config::{self, Config};
use crate::health::Probe;
use crate::identity::{Identity, Renewal};
use crate::metrics::Metrics;
use crate::proxy::{self, Mesh};
use crate::registry::{self, Announcer, Discovery, Registered, Registry};
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
    probe: Option<Probe>,
    worker: Option<Worker>,
    audit: Option<policy::audit::Writer>,
    ways: Ways,
    drain: Duration,
}

/// What a sidecar with an identity has beyond a worker.
#[derive(Default)]
struct Ways {
    identity: Option<Identity>,
    renewal: Option<Renewal>,
    inbound: Option<proxy::Inbound>,
    announcer: Option<Announcer>,
    outbound: Option<proxy::Outbound>,
    discovery: Option<Discovery>,
}

/// Checks `config`, registers the metrics and binds the listeners.
///
/// The broker, the registry and the agent need not be there yet.
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
    let bus = deps.bus.clone().filter(|_| config.worker.is_some());
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
    let (policy, audit) = policy::build(&config, &deps.metrics)?.unzip();
    let ways = ways(&config, &deps, policy.as_ref(), &checked, probe.as_ref(), address)?;
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
        probe,
        worker,
        audit,
        ways,
        drain: Duration::from_millis(config.drain_ms),
    })
}

/// Binds the ways in and out; there are none without an identity.
fn ways(
    config: &Config,
    deps: &Deps,
    policy: Option<&Arc<policy::Policy>>,
    checked: &config::Checked,
    probe: Option<&Probe>,
    admin: SocketAddr,
) -> Result<Ways, SidecarError> {
    let mut ways = Ways::default();
    if !config.identity.exists() {
        return Ok(ways);
    }
    let consul = config.registry.consul();
    let (identity, renewal) =
        Identity::new(&config.service, &config.identity, consul, &deps.metrics)?;
    ways.renewal = Some(renewal);
    ways.identity = Some(identity.clone());
    let metrics = proxy::Metrics::register(&deps.metrics)?;
    let dealings = registry::Metrics::register(&deps.metrics, &config.service)?;
    let mut mesh = Mesh {
        identity,
        tracer: deps.tracer.clone(),
        announcement: None,
    };
    if let (Some(inbound), Some(app), Some(policy)) = (&config.inbound, &checked.app, policy) {
        let bound = proxy::Inbound::bind(
            &config.service,
            inbound,
            app,
            Arc::clone(policy),
            mesh.clone(),
            &metrics,
            config.threads,
        )?;
        if let Some(probe) = probe {
            let announcer = Announcer::new(
                Arc::clone(&deps.registry),
                registered(config, inbound, bound.address(), admin),
                probe.health().watch(),
                Arc::clone(&dealings),
            );
            mesh.announcement = Some(announcer.announcement());
            ways.announcer = Some(announcer);
        }
        ways.inbound = Some(bound);
    }
    if let Some(outbound) = &config.outbound {
        let discovery = Discovery::new(Arc::clone(&deps.registry), dealings);
        let registry = Arc::clone(&deps.registry);
        ways.outbound = Some(proxy::Outbound::bind(
            outbound,
            registry,
            discovery.clone(),
            mesh,
            &metrics,
            config.threads,
        )?);
        ways.discovery = Some(discovery);
    }
    Ok(ways)
}

/// What the registry is told.
fn registered(
    config: &Config,
    inbound: &config::Inbound,
    bound: SocketAddr,
    admin: SocketAddr,
) -> Registered {
    // A port that the system chose is known only now.
    let address = inbound.advertise.map_or(bound, |advertise| {
        let port = match advertise.port() {
            0 => bound.port(),
            port => port,
        };
        SocketAddr::new(advertise.ip(), port)
    });
    let protocol = if inbound.app_h2 { "h2c" } else { "http" };
    let registration = &config.registry.registration;
    Registered::new(
        &config.service,
        registration,
        address,
        protocol,
        admin.port(),
    )
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
        let Ways {
            identity,
            renewal,
            inbound,
            announcer,
            outbound,
            discovery,
        } = self.ways;
        let admin = admin::serve(
            self.listener,
            self.registry,
            self.status,
            stop_rest.clone(),
        );
        let audit = either(self.audit, &stop_rest, policy::audit::Writer::run);
        let probe = either(self.probe, &stop_rest, Probe::run);
        let renewal = either(renewal, &stop_rest, Renewal::run);
        let worker = either(self.worker, &shutdown, Worker::run);
        let announce = async {
            // Peers are told of a way in that can prove who is behind it.
            let first = async {
                if let Some(identity) = identity {
                    identity.first().await;
                }
            };
            if shutdown.run_until_cancelled(first).await.is_some() {
                either(announcer, &shutdown, Announcer::run).await;
            }
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
