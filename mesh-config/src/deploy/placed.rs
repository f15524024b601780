//! The same mesh where each part has a machine of its own: what was on loopback is found by name.

use super::Part;
use crate::mesh::{Agent, Mesh, Run};
use crate::secret::Source;
use crate::telemetry::Job;
use crate::trust::{Consul, Identity, IdentitySource, Sidecar};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use url::Url;

/// Where containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Docker Compose, on one machine.
    Compose,
    /// Kubernetes.
    Kubernetes,
}

/// Where Kong listens in its container.
pub(crate) const GATEWAY_PORT: u16 = 8000;
/// Kong's own interface for administrators: on loopback, unless the port is published.
pub(crate) const GATEWAY_ADMIN_PORT: u16 = 8001;
/// Where Kong says whether it is ready, and what it measured.
pub(crate) const GATEWAY_STATUS_PORT: u16 = 8100;
/// The gateway's job in Prometheus.
const GATEWAY_JOB: &str = "kong";
/// Where the sidecar beside the gateway takes requests; loopback alone.
const OUTBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
/// Variable of the token of a Consul that runs with the mesh, where mesh.yaml names none.
pub(crate) const REGISTRY_TOKEN: &str = "MESH_CONSUL_TOKEN";
/// Where peers reach a sidecar.
pub(crate) const INBOUND_PORT: u16 = 15006;
/// Where a sidecar serves health and metrics.
pub(crate) const ADMIN_PORT: u16 = 15020;
/// Where an agent of ours listens; loopback alone.
pub(crate) const AGENT_PORT: u16 = 8080;
/// What sidecars keep lies here.
pub(crate) const STATE: &str = "/var/lib/mesh";
/// What is mounted from beside mesh.yaml lies here.
pub(crate) const MOUNTED: &str = "/etc/mesh";

/// The mesh as its parts are configured at `place`. Nothing but addresses, backends and paths is changed.
///
/// Containers share nothing but a network: a broker, a store and a registry within the process become
/// RabbitMQ, Redis and Consul, and the development authority, which is a directory, becomes Consul's.
#[must_use]
pub fn placed(mesh: &Mesh, place: Place) -> Mesh {
    let mut mesh = mesh.clone();
    mesh.gateway.listen = everywhere(GATEWAY_PORT);
    mesh.gateway.sidecar = Sidecar {
        outbound: Some(OUTBOUND),
        admin_listen: Some(everywhere(ADMIN_PORT)),
        ..Sidecar::default()
    };
    mesh.orchestrator.listen = everywhere(mesh.orchestrator.listen.port());
    mesh.orchestrator.sidecar = reached(&mesh.orchestrator.sidecar);
    mesh.agents.iter_mut().for_each(agent);
    let url = |variable: &str| Source::Env(variable.to_owned());
    mesh.messaging
        .rabbitmq
        .get_or_insert_with(|| url("RABBITMQ_URL"));
    mesh.store.redis.get_or_insert_with(|| url("REDIS_URL"));
    registry(&mut mesh, place);
    identity(&mut mesh.trust.identity, place);
    let ca = mesh.trust.registry.consul.as_mut();
    if let Some(ca) = ca.and_then(|consul| consul.ca.as_mut()) {
        *ca = mounted(ca);
    }
    let state = Path::new(STATE);
    if let Some(directory) = &mut mesh.messaging.state_dir {
        *directory = state.join("state").display().to_string();
    }
    if let Some(audit) = &mut mesh.trust.audit {
        *audit = state.join("audit.jsonl");
    }
    if let Some(ollama) = &mut mesh.orchestrator.ollama
        && let Some(url) = found(&mesh.deploy.parts, Part::Ollama, &ollama.url)
    {
        ollama.url = url;
    }
    if let Some(endpoint) = &mut mesh.trust.traces.endpoint
        && let Some(url) = found(&mesh.deploy.parts, Part::Jaeger, endpoint)
    {
        *endpoint = url;
    }
    if let Some(tls) = &mut mesh.gateway.extras.tls {
        tls.listen = everywhere(tls.listen.port());
    }
    if let (Place::Compose, Some(gateway)) = (place, mesh.deploy.parts.get(&Part::Gateway)) {
        let jobs = &mut mesh.telemetry.jobs;
        if jobs.iter().all(|job| job.name != GATEWAY_JOB) {
            jobs.push(Job {
                name: GATEWAY_JOB.to_owned(),
                targets: vec![format!("{}:{GATEWAY_STATUS_PORT}", gateway.name)],
                ..Job::default()
            });
        }
    }
    let parts = mesh.deploy.parts.clone();
    let grafana = &mut mesh.telemetry.grafana;
    if let Some(url) = found(&parts, Part::Prometheus, &grafana.prometheus) {
        grafana.prometheus = url;
    }
    mesh
}

/// Where a part is found that runs with the mesh and was on loopback; its own port stays that of the URL, but for
/// the model server, whose container says it.
fn found(
    parts: &std::collections::BTreeMap<Part, super::Container>,
    part: Part,
    url: &str,
) -> Option<String> {
    let container = parts.get(&part)?;
    let mut url = Url::parse(url).ok().filter(is_loopback)?;
    url.set_host(Some(&container.name)).ok()?;
    if part == Part::Ollama {
        url.set_port(container.first_port()).ok()?;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn everywhere(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn reached(own: &Sidecar) -> Sidecar {
    Sidecar {
        listen: Some(everywhere(INBOUND_PORT)),
        advertise: None,
        outbound: own.outbound,
        admin_listen: Some(everywhere(ADMIN_PORT)),
    }
}

fn agent(agent: &mut Agent) {
    agent.sidecar = reached(&agent.sidecar);
    if agent.endpoint.is_none() && matches!(agent.run, Some(Run::Builtin(_))) {
        agent.endpoint = Url::parse(&format!("http://127.0.0.1:{AGENT_PORT}")).ok();
    }
}

fn registry(mesh: &mut Mesh, place: Place) {
    let Some(part) = mesh.deploy.parts.get(&Part::Consul) else {
        return;
    };
    let at = format!("http://{}:{}", part.name, part.first_port().unwrap_or(8500));
    let Ok(url) = Url::parse(&at) else { return };
    let consul = mesh.trust.registry.consul.get_or_insert_with(|| Consul {
        url: url.clone(),
        token: None,
        ca: None,
    });
    if is_loopback(&consul.url) {
        consul.url = url;
    }
    // Without one, each agent could ask for every certificate.
    if place == Place::Compose && runs_registry(mesh) {
        let consul = mesh.trust.registry.consul.as_mut();
        if let Some(consul) = consul {
            let usual = || Source::Env(REGISTRY_TOKEN.to_owned());
            consul.token.get_or_insert_with(usual);
        }
    }
}

/// Whether the registry of a placed mesh is the one that runs with it.
pub(crate) fn runs_registry(mesh: &Mesh) -> bool {
    let part = mesh.deploy.parts.get(&Part::Consul);
    let host = mesh.trust.registry.consul.as_ref();
    let host = host.and_then(|consul| consul.url.host_str());
    part.is_some_and(|part| Some(part.name.as_str()) == host)
}

fn identity(identity: &mut Identity, place: Place) {
    match &mut identity.source {
        IdentitySource::Development { .. } => {
            identity.source = IdentitySource::Consul;
            identity.trust_domain = None;
        }
        IdentitySource::Files {
            certificate,
            key,
            roots,
        } => {
            for (path, name) in [
                (certificate, "tls.crt"),
                (key, "tls.key"),
                (roots, "ca.crt"),
            ] {
                *path = match place {
                    Place::Compose => mounted(Path::new(path)).display().to_string(),
                    // The names that cert-manager and `kubectl create secret tls` give.
                    Place::Kubernetes => format!("{MOUNTED}/certificate/{name}"),
                };
            }
        }
        IdentitySource::Vault { ca: Some(ca), .. } => *ca = mounted(ca),
        IdentitySource::Consul | IdentitySource::Vault { .. } => {}
    }
}

/// Where a file from beside mesh.yaml is in the container; one with a whole path is there under the same.
pub(crate) fn mounted(path: &Path) -> PathBuf {
    Path::new(MOUNTED).join(path)
}
