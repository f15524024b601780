//! The configurations of the sidecars: beside the gateway, the orchestrator and every agent.

use super::RenderError;
use super::kong::reachable;
use super::orchestrator::{assertions, bus, millis};
use crate::mesh::{Agent, Destination, GATEWAY, Mesh};
use crate::secret::{Secrets, Source};
use crate::trust::{IdentitySource, SERVICE_PLACEHOLDER, Sidecar};
use mesh_orchestrator::api::{HEADER_PEER, MODELS};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::{
    self, Action, Advertised, App, AssertionRule, Callers, Config, ConnectionLimits, From, Health,
    Inbound, Intention, Outbound, Policy, Registration, Secret, ServiceName, Settings, Worker,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where the sidecar beside the gateway takes requests when mesh.yaml does not say.
pub const GATEWAY_OUTBOUND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

/// Meta of the orchestrator's registration: the port of its own metrics, at the address of its sidecar.
pub(super) const PROGRAM_METRICS_PORT: &str = "program_metrics_port";

/// What of the orchestrator is asked without a caller's assertion: the filters' own questions, which bring the
/// internal token, and its health.
const WITHOUT_ASSERTION: [&str; 2] = ["/internal", "/health"];

/// What of the orchestrator agents may call, where mesh.yaml has no intentions.
const COORDINATION: [&str; 5] = ["/coordinate", "/register", "/ws", "/task", "/agents"];

/// Renders the configuration of the sidecar beside `agent`.
///
/// A builtin without an endpoint has its address only when it runs; until then it is port 0.
///
/// # Errors
/// [`RenderError::Secret`] for a secret that is of no use.
pub fn sidecar(mesh: &Mesh, agent: &Agent, secrets: &Secrets) -> Result<Config, RenderError> {
    let endpoint = agent.endpoint.as_ref().map_or_else(
        || "http://127.0.0.1:0".to_owned(),
        |url| url.as_str().trim_end_matches('/').to_owned(),
    );
    let service = ServiceName::from(&agent.id);
    let mut config = base(mesh, service, &agent.sidecar, secrets)?;
    config.app = Some(App {
        url: endpoint,
        health: agent.health.clone(),
    });
    config.worker = Some(Worker {
        bus: bus(mesh, secrets)?,
        queue_kind: agent.queue_kind,
        max_queue_length: mesh.messaging.max_length,
        concurrency: agent.concurrency,
        timeout_ms: millis(agent.timeout),
        max_attempts: agent.attempts,
        retry_base_ms: millis(agent.pause),
        delivery: agent.delivery.clone(),
        ack_deadline_ms: millis(mesh.messaging.consumer_timeout),
        // One each: a journal has one writer.
        state_dir: mesh
            .messaging
            .state_dir
            .as_ref()
            .map(|directory| PathBuf::from(directory).join(agent.id.as_str())),
        ..Worker::default()
    });
    config.inbound = Some(Inbound {
        identity_headers: mesh.trust.identity_headers.clone(),
        // Who comes through the gateway shows that its filters ran.
        assertion: AssertionRule::Required {
            from: vec![name(GATEWAY)?],
            except: Vec::new(),
        },
        ..inbound(&agent.sidecar, agent.traffic.clone())
    });
    config.outbound = agent.sidecar.outbound.map(|listen| outbound(mesh, listen));
    config.registry.registration = Registration {
        tags: vec!["agent".to_owned()],
        capabilities: agent.capabilities.clone(),
        ..config.registry.registration
    };
    Ok(config)
}

/// Renders the configurations of all sidecars.
///
/// # Errors
/// As [`sidecar`].
pub fn sidecars(mesh: &Mesh, secrets: &Secrets) -> Result<Vec<Config>, RenderError> {
    let mut all = vec![
        gateway_sidecar(mesh, secrets)?,
        orchestrator_sidecar(mesh, secrets)?,
    ];
    for agent in &mesh.agents {
        all.push(sidecar(mesh, agent, secrets)?);
    }
    Ok(all)
}

/// Renders the configuration of the sidecar beside the orchestrator.
///
/// # Errors
/// As [`sidecar`].
pub fn orchestrator_sidecar(mesh: &Mesh, secrets: &Secrets) -> Result<Config, RenderError> {
    let own = &mesh.orchestrator.sidecar;
    let mut config = base(mesh, name(ORCHESTRATOR)?, own, secrets)?;
    config.app = Some(App {
        url: format!("http://{}", reachable(mesh.orchestrator.listen)),
        health: Health::default(),
    });
    config.inbound = Some(Inbound {
        // Who comes through the gateway shows that its filters ran; agents are known by their certificates.
        assertion: AssertionRule::Required {
            from: vec![name(GATEWAY)?],
            except: WITHOUT_ASSERTION.map(str::to_owned).to_vec(),
        },
        // It verifies the assertion itself, and sends it on with the steps.
        forward_assertion: true,
        identity_headers: BTreeMap::from([(HEADER_PEER.to_owned(), "peer_service".to_owned())]),
        ..inbound(own, to_orchestrator(mesh))
    });
    config.registry.registration.tags = vec![ORCHESTRATOR.to_owned()];
    if is_reached_beside(mesh) {
        let port = mesh.orchestrator.listen.port().to_string();
        let meta = &mut config.registry.registration.meta;
        meta.insert(PROGRAM_METRICS_PORT.to_owned(), port);
    }
    Ok(config)
}

/// Whether whoever finds the orchestrator's sidecar in the registry finds the orchestrator at the same address: it
/// listens there or everywhere, and not on loopback beside a sidecar that others reach.
pub(super) fn is_reached_beside(mesh: &Mesh) -> bool {
    let (program, own) = (mesh.orchestrator.listen, &mesh.orchestrator.sidecar);
    let sidecar = own.advertise.or(own.listen);
    let sidecar = sidecar.map_or(Ipv4Addr::LOCALHOST.into(), |at| at.ip());
    mesh.trust.registry.consul.is_some()
        && (program.ip().is_unspecified() || program.ip() == sidecar)
}

/// Renders the configuration of the sidecar beside the gateway.
///
/// # Errors
/// As [`sidecar`].
pub fn gateway_sidecar(mesh: &Mesh, secrets: &Secrets) -> Result<Config, RenderError> {
    let own = &mesh.gateway.sidecar;
    let mut config = base(mesh, name(GATEWAY)?, own, secrets)?;
    config.outbound = Some(Outbound {
        by_agent_header: true,
        ..outbound(mesh, gateway_outbound(mesh))
    });
    config.registry.registration.tags = vec![GATEWAY.to_owned()];
    Ok(config)
}

/// Where the sidecar beside the gateway takes requests.
pub(super) fn gateway_outbound(mesh: &Mesh) -> SocketAddr {
    mesh.gateway.sidecar.outbound.unwrap_or(GATEWAY_OUTBOUND)
}

/// What all of them have.
fn base(
    mesh: &Mesh,
    service: ServiceName,
    own: &Sidecar,
    secrets: &Secrets,
) -> Result<Config, RenderError> {
    let consul = mesh.trust.registry.consul.as_ref();
    Ok(Config {
        identity: identity(mesh, &service, secrets),
        registry: config::Registry {
            registration: Registration {
                address: found_out(own).then_some(Advertised::Auto),
                ..Registration::default()
            },
            consul: consul.map(|consul| config::Consul {
                token: consul.token.as_ref().map(|token| secret(token, secrets)),
                ca_file: consul.ca.clone(),
                ..config::Consul::at(consul.url.as_str().trim_end_matches('/'))
            }),
        },
        policy: Policy {
            intentions: intentions(mesh, &service)?,
            assertions: Some(assertions(mesh, secrets)?),
            audit: mesh.trust.audit.clone(),
        },
        service,
        admin_listen: own
            .admin_listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        drain_ms: 30_000,
        app: None,
        worker: None,
        inbound: None,
        outbound: None,
        traces: mesh.trust.traces.clone(),
        threads: 1,
    })
}

/// Whether the address that peers are told is known only where the sidecar runs.
fn found_out(own: &Sidecar) -> bool {
    let listeners = [own.listen, own.admin_listen];
    own.advertise.is_none()
        && listeners
            .iter()
            .flatten()
            .any(|at| at.ip().is_unspecified())
}

fn identity(mesh: &Mesh, service: &ServiceName, secrets: &Secrets) -> config::Identity {
    let own = &mesh.trust.identity;
    let path = |text: &str| PathBuf::from(text.replace(SERVICE_PLACEHOLDER, service.as_str()));
    config::Identity {
        trust_domain: own.trust_domain.clone(),
        warn_before_s: own.warn_before.as_secs(),
        source: match &own.source {
            IdentitySource::Consul => config::IdentitySource::Consul {},
            IdentitySource::Development {
                directory,
                lifetime,
            } => config::IdentitySource::Development {
                directory: directory.clone(),
                lifetime_s: lifetime.as_secs(),
            },
            IdentitySource::Files {
                certificate,
                key,
                roots,
            } => config::IdentitySource::Files {
                certificate: path(certificate),
                key: path(key),
                roots: path(roots),
            },
            IdentitySource::Vault {
                url,
                mount,
                role,
                token,
                ca,
            } => config::IdentitySource::Vault {
                url: url.as_str().trim_end_matches('/').to_owned(),
                mount: mount.clone(),
                role: role.clone(),
                token: Some(secret(token, secrets)),
                token_file: None,
                ca_file: ca.clone(),
            },
        },
    }
}

fn secret(source: &Source, secrets: &Secrets) -> Secret {
    Secret::from(secrets.show(source))
}

/// Whether `from` may call the service beside the sidecar of `config` at all: some way is open, and no denial closes
/// all of them.
pub fn may_call(config: &Config, from: &str) -> bool {
    let speaks = |intention: &&Intention| match &intention.from {
        From::Any => true,
        From::Services(services) => services.iter().any(|service| service.as_str() == from),
    };
    let whole = |intention: &Intention| {
        intention.methods.is_empty() && intention.paths.is_empty() && intention.callers.is_none()
    };
    let mut open = false;
    for intention in config.policy.intentions.iter().filter(speaks) {
        match intention.action {
            Action::Deny if whole(intention) => return false,
            Action::Deny => {}
            Action::Allow => open = true,
        }
    }
    open
}

/// The intentions that lead to a service of this name.
///
/// # Errors
/// [`RenderError::Write`] for what is no name of a service.
pub(super) fn ways_to(mesh: &Mesh, service: &str) -> Result<Vec<Intention>, RenderError> {
    intentions(mesh, &name(service)?)
}

/// The intentions that lead to `service`; without any in mesh.yaml, the mesh's own ways.
pub(super) fn intentions(
    mesh: &Mesh,
    service: &ServiceName,
) -> Result<Vec<Intention>, RenderError> {
    if let Some(intentions) = &mesh.trust.intentions {
        let here = intentions.iter().filter(|i| i.leads_to(service));
        return Ok(here
            .map(|i| Intention {
                from: i.from.clone(),
                action: i.action,
                methods: i.methods.clone(),
                paths: i.paths.clone(),
                callers: i.callers.clone(),
            })
            .collect());
    }
    let open = |from: &str, callers: Option<Callers>| {
        Ok(Intention {
            from: From::Services(vec![name(from)?]),
            action: Action::Allow,
            methods: Vec::new(),
            paths: Vec::new(),
            callers,
        })
    };
    Ok(match service.as_str() {
        ORCHESTRATOR => {
            let agents = mesh.agents.iter();
            let agents = agents.map(|agent| ServiceName::from(&agent.id)).collect();
            let mut paths = COORDINATION.map(str::to_owned).to_vec();
            if mesh.orchestrator.ollama.is_some() {
                paths.push(MODELS.to_owned());
            }
            vec![
                open(GATEWAY, None)?,
                Intention {
                    from: From::Services(agents),
                    action: Action::Allow,
                    methods: Vec::new(),
                    paths,
                    callers: None,
                },
            ]
        }
        GATEWAY => Vec::new(),
        _ => {
            let mut ways = vec![open(ORCHESTRATOR, None)?];
            let routes = &mesh.gateway.routes;
            if routes.iter().any(|route| route.to == Destination::Agents) {
                ways.push(open(GATEWAY, None)?);
            }
            ways
        }
    })
}

fn inbound(own: &Sidecar, settings: Settings) -> Inbound {
    Inbound {
        listen: own
            .listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        advertise: own.advertise,
        assertion: AssertionRule::Optional,
        identity_headers: BTreeMap::new(),
        forward_assertion: false,
        app_h2: false,
        settings,
        limits: ConnectionLimits::default(),
    }
}

fn outbound(mesh: &Mesh, listen: SocketAddr) -> Outbound {
    let usual = Settings::default();
    let agents = mesh
        .agents
        .iter()
        .map(|agent| (ServiceName::from(&agent.id), agent.traffic.clone()));
    let orchestrator = name(ORCHESTRATOR)
        .ok()
        .map(|name| (name, to_orchestrator(mesh)));
    Outbound {
        listen,
        between: config::Between::default(),
        by_agent_header: false,
        known: mesh
            .agents
            .iter()
            .map(|agent| ServiceName::from(&agent.id))
            .chain(name(ORCHESTRATOR).ok())
            .collect(),
        // Said once for the mesh, and only where it differs.
        services: agents
            .chain(orchestrator)
            .filter(|(_, settings)| *settings != mesh.trust.traffic)
            .collect(),
        defaults: if mesh.trust.traffic == usual {
            usual
        } else {
            mesh.trust.traffic.clone()
        },
        limits: ConnectionLimits::default(),
    }
}

/// How the orchestrator is called: a client may wait for its task's end, and nothing on the way must hang up
/// before the orchestrator answers.
fn to_orchestrator(mesh: &Mesh) -> Settings {
    let longest = u64::from(mesh.orchestrator.limits.max_wait_s).saturating_add(5) * 1000;
    let usual = &mesh.trust.traffic;
    Settings {
        response_timeout_ms: usual.response_timeout_ms.max(longest),
        ..usual.clone()
    }
}

fn name(text: &str) -> Result<ServiceName, RenderError> {
    text.parse()
        .map_err(|e: config::NameError| RenderError::Write {
            part: "sidecar",
            detail: e.to_string(),
        })
}
