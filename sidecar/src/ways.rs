//! What a sidecar with an identity has beyond a worker: the ways in and out, and a place in the registry.

use crate::SidecarError;
use crate::config::{self, Config};
use crate::health::Probe;
use crate::identity::{Identity, Renewal};
use crate::policy::Policy;
use crate::proxy::{self, Mesh};
use crate::registry::{self, Announcement, Announcer, Discovery, Health, Registered, Registry};
use mesh_trace::Tracer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The parts, each where it is configured.
#[derive(Default)]
pub(crate) struct Ways {
    pub(crate) identity: Option<Identity>,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) inbound: Option<proxy::Inbound>,
    pub(crate) announcer: Option<Announcer>,
    pub(crate) announcement: Option<Announcement>,
    pub(crate) outbound: Option<proxy::Outbound>,
    pub(crate) discovery: Option<Discovery>,
}

/// What they are made of.
pub(crate) struct Given<'a> {
    pub(crate) config: &'a Config,
    pub(crate) app: Option<&'a config::Place>,
    pub(crate) policy: Option<&'a Arc<Policy>>,
    pub(crate) probe: Option<&'a Probe>,
    pub(crate) registry: &'a Arc<dyn Registry>,
    pub(crate) tracer: &'a Tracer,
    pub(crate) metrics: &'a prometheus::Registry,
    /// Where the metrics are served.
    pub(crate) admin: SocketAddr,
}

/// Binds them; there are none without an identity.
pub(crate) fn bind(given: &Given<'_>) -> Result<Ways, SidecarError> {
    let mut ways = Ways::default();
    let config = given.config;
    if !config.identity.exists() {
        return Ok(ways);
    }
    let consul = config.registry.consul();
    let (identity, renewal) =
        Identity::new(&config.service, &config.identity, consul, given.metrics)?;
    ways.identity = Some(identity.clone());
    ways.renewal = Some(renewal);
    let metrics = proxy::Metrics::register(given.metrics)?;
    let dealings = registry::Metrics::register(given.metrics, &config.service)?;
    let mut mesh = Mesh {
        identity,
        tracer: given.tracer.clone(),
        announcement: None,
    };
    if let (Some(inbound), Some(app), Some(policy)) = (&config.inbound, given.app, given.policy) {
        ways.inbound = Some(proxy::Inbound::bind(
            &config.service,
            inbound,
            app,
            Arc::clone(policy),
            mesh.clone(),
            &metrics,
            config.threads,
        )?);
    }
    let bound = ways.inbound.as_ref().map(proxy::Inbound::address);
    let announcer = Announcer::new(
        Arc::clone(given.registry),
        registered(config, bound, given.admin)?,
        health(given.probe),
        Arc::clone(&dealings),
    );
    ways.announcement = Some(announcer.announcement());
    mesh.announcement = Some(announcer.announcement());
    ways.announcer = Some(announcer);
    if let Some(outbound) = &config.outbound {
        let discovery = Discovery::new(Arc::clone(given.registry), dealings);
        ways.outbound = Some(proxy::Outbound::bind(
            outbound,
            Arc::clone(given.registry),
            discovery.clone(),
            mesh,
            &metrics,
            config.threads,
        )?);
        ways.discovery = Some(discovery);
    }
    Ok(ways)
}

/// The program's health; a sidecar without one is as well as it can say so.
fn health(probe: Option<&Probe>) -> watch::Receiver<Health> {
    match probe {
        Some(probe) => probe.health().watch(),
        None => watch::Sender::new(Health::Passing).subscribe(),
    }
}

/// What the registry is told. A sidecar that nobody calls is there to be scraped: its address is the admin
/// listener's, and it speaks no protocol.
fn registered(
    config: &Config,
    bound: Option<SocketAddr>,
    admin: SocketAddr,
) -> Result<Registered, SidecarError> {
    let (mut address, protocol) = match (&config.inbound, bound) {
        (Some(inbound), Some(bound)) => {
            // A port that the system chose is known only now.
            let address = inbound.advertise.map_or(bound, |advertise| {
                let port = match advertise.port() {
                    0 => bound.port(),
                    port => port,
                };
                SocketAddr::new(advertise.ip(), port)
            });
            (address, if inbound.app_h2 { "h2c" } else { "http" })
        }
        _ => (admin, "none"),
    };
    let registration = &config.registry.registration;
    if let Some(advertised) = registration.address
        && address.ip().is_unspecified()
    {
        let found = registry::found::address(advertised, config.registry.consul());
        address.set_ip(found.map_err(SidecarError::Address)?);
    }
    Ok(Registered::new(
        &config.service,
        registration,
        address,
        protocol,
        admin.port(),
    ))
}

/// What the registry will be told of a sidecar that does not run yet; nothing where a port is chosen by the system
/// only when it starts.
pub fn to_be_registered(config: &Config) -> Option<Registered> {
    let listen = config.inbound.as_ref().map(|inbound| inbound.listen);
    let inbound = config.inbound.as_ref();
    let own = inbound.and_then(|inbound| inbound.advertise).or(listen);
    let own = own.unwrap_or(config.admin_listen);
    if own.ip().is_unspecified() && config.registry.registration.address.is_some() {
        // Where it runs is found out there.
        return None;
    }
    let registered = registered(config, listen, config.admin_listen).ok()?;
    let place = registered.address;
    let known = place.port() != 0 && !place.ip().is_unspecified();
    (known && config.admin_listen.port() != 0).then_some(registered)
}
