//! Who is scraped, and where.
//!
//! The mesh's own jobs, then those of mesh.yaml; one of mesh.yaml with the name of an own one stands in its place.
//!
//! | job | what |
//! |---|---|
//! | `kong` | the gateway |
//! | `consul` | the registry |
//! | `ai-agents` | the sidecars beside agents, found in Consul |
//! | `sidecar` | those beside gateway and orchestrator |
//! | `orchestrator` | every orchestrator, found by its sidecar |

use super::config::{ConsulSd, RelabelConfig, ScrapeConfig, Static, Tls, duration};
use crate::fronted::{Metrics, Service};
use crate::mesh::{GATEWAY, Mesh};
use crate::render::kong::reachable;
use crate::render::sidecar::PROGRAM_METRICS_PORT;
use crate::secret::Secrets;
use crate::telemetry::{GATEWAY_STATUS_PORT, Job, Relabel};
use crate::trust::{Consul, Sidecar};
use mesh_protocol::names::ORCHESTRATOR;
use std::collections::BTreeMap;

pub(super) const AGENTS: &str = "ai-agents";
pub(super) const SIDECAR: &str = "sidecar";

/// All jobs; names are unique.
pub(super) fn jobs(mesh: &Mesh, secrets: &Secrets) -> Vec<ScrapeConfig> {
    let registry = mesh.trust.registry.consul.as_ref();
    let mut own = vec![gateway(mesh)];
    own.extend(registry.map(|consul| self::consul(consul, secrets)));
    match registry {
        _ if !mesh.has_orchestrator() => {}
        Some(consul) => own.extend(found(mesh, consul, secrets)),
        None => own.extend(configured(mesh)),
    }
    let mut others: Vec<ScrapeConfig> = Vec::new();
    for job in &mesh.telemetry.jobs {
        others.extend(other(job, mesh, secrets));
    }
    for service in &mesh.services {
        if let Some(metrics) = &service.metrics {
            served(service, metrics, &mut others);
        }
    }
    let mut jobs: Vec<ScrapeConfig> = Vec::new();
    for one in own {
        let named = others.iter().position(|job| job.job_name == one.job_name);
        jobs.push(named.map_or(one, |at| others.remove(at)));
    }
    // A job whose services have no place is none.
    let somewhere =
        |job: &ScrapeConfig| !(job.static_configs.is_empty() && job.consul_sd_configs.is_empty());
    jobs.extend(others.into_iter().filter(somewhere));
    jobs
}

/// Adds a service to its job, which services share and mesh.yaml may say more of. Where a service is asked otherwise than
/// its job, its target says so.
fn served(service: &Service, metrics: &Metrics, jobs: &mut Vec<ScrapeConfig>) {
    let Some(port) = metrics.port.or_else(|| service.port()) else {
        return;
    };
    let scheme = (metrics.scheme == "https").then_some("https");
    let at = match jobs.iter().position(|job| job.job_name == metrics.job) {
        Some(at) => at,
        None => {
            jobs.push(ScrapeConfig {
                job_name: metrics.job.clone(),
                scrape_interval: metrics.interval.map(duration),
                scrape_timeout: metrics
                    .interval
                    .map(|every| duration(every.min(super::TIMEOUT))),
                metrics_path: Some(metrics.path.clone()),
                params: metrics.params.clone(),
                scheme,
                ..ScrapeConfig::default()
            });
            jobs.len() - 1
        }
    };
    let Some(job) = jobs.get_mut(at) else { return };
    let mut labels = BTreeMap::from([("service".to_owned(), service.name.clone())]);
    if job.metrics_path.as_deref().unwrap_or("/metrics") != metrics.path {
        labels.insert("__metrics_path__".to_owned(), metrics.path.clone());
    }
    if job.scheme != scheme {
        labels.insert("__scheme__".to_owned(), metrics.scheme.clone());
    }
    if job.params != metrics.params {
        let first = metrics.params.iter();
        let first = first.filter_map(|(name, values)| Some((name, values.first()?)));
        labels.extend(first.map(|(name, value)| (format!("__param_{name}"), value.clone())));
    }
    job.static_configs.push(Static {
        targets: vec![format!("{}:{port}", service.host())],
        labels,
    });
}

fn gateway(mesh: &Mesh) -> ScrapeConfig {
    let mut status = reachable(mesh.gateway.listen);
    status.set_port(GATEWAY_STATUS_PORT);
    ScrapeConfig {
        job_name: "kong".to_owned(),
        static_configs: vec![at(vec![status.to_string()])],
        ..ScrapeConfig::default()
    }
}

fn consul(consul: &Consul, secrets: &Secrets) -> ScrapeConfig {
    ScrapeConfig {
        job_name: "consul".to_owned(),
        metrics_path: Some("/v1/agent/metrics".to_owned()),
        params: BTreeMap::from([("format".to_owned(), vec!["prometheus".to_owned()])]),
        scheme: scheme(consul),
        bearer_token: token(consul, secrets),
        tls_config: tls(consul),
        static_configs: vec![at(vec![server(consul)])],
        ..ScrapeConfig::default()
    }
}

/// Sidecars and orchestrators, as they are registered. Those of critical instances are scraped as well: what is wrong
/// stands in their metrics.
fn found(mesh: &Mesh, consul: &Consul, secrets: &Secrets) -> Vec<ScrapeConfig> {
    let discovery = |services: Vec<String>| vec![discovery(mesh, consul, services, secrets)];
    let beside = |job: &str, services: Vec<String>, more: Vec<RelabelConfig>| ScrapeConfig {
        job_name: job.to_owned(),
        consul_sd_configs: discovery(services),
        relabel_configs: named_port("metrics_port")
            .into_iter()
            .chain(more)
            .chain([
                copied("__meta_consul_service", "service"),
                copied("__meta_consul_service_id", "service_id"),
                copied("__meta_consul_node", "node"),
            ])
            .collect(),
        ..ScrapeConfig::default()
    };
    let agents: Vec<String> = mesh.agents.iter().map(|a| a.id.to_string()).collect();
    let agent_name = copied("__meta_consul_service", "agent_name");
    let both = vec![GATEWAY.to_owned(), ORCHESTRATOR.to_owned()];
    let orchestrators = if crate::render::sidecar::is_reached_beside(mesh) {
        ScrapeConfig {
            job_name: ORCHESTRATOR.to_owned(),
            consul_sd_configs: discovery(vec![ORCHESTRATOR.to_owned()]),
            relabel_configs: named_port(PROGRAM_METRICS_PORT)
                .into_iter()
                .chain([copied("__meta_consul_node", "node")])
                .collect(),
            ..ScrapeConfig::default()
        }
    } else {
        orchestrator(mesh)
    };
    let mut jobs = vec![beside(SIDECAR, both, Vec::new()), orchestrators];
    // Without a name, discovery would find everything.
    if !agents.is_empty() {
        jobs.insert(0, beside(AGENTS, agents, vec![agent_name]));
    }
    jobs
}

/// The same where there is no registry: those whose place mesh.yaml says.
fn configured(mesh: &Mesh) -> Vec<ScrapeConfig> {
    let one = |service: &str, sidecar: &Sidecar, agent: bool| {
        let admin = sidecar.admin_listen.filter(|at| at.port() != 0)?;
        let mut labels = BTreeMap::from([("service".to_owned(), service.to_owned())]);
        if agent {
            labels.insert("agent_name".to_owned(), service.to_owned());
        }
        Some(Static {
            targets: vec![reachable(admin).to_string()],
            labels,
        })
    };
    let job = |name: &str, targets: Vec<Static>| {
        (!targets.is_empty()).then(|| ScrapeConfig {
            job_name: name.to_owned(),
            static_configs: targets,
            ..ScrapeConfig::default()
        })
    };
    let agents = mesh.agents.iter();
    let agents = agents.filter_map(|agent| one(agent.id.as_str(), &agent.sidecar, true));
    let others = [
        (GATEWAY, &mesh.gateway.sidecar),
        (ORCHESTRATOR, &mesh.orchestrator.sidecar),
    ];
    let others = others
        .into_iter()
        .filter_map(|(name, at)| one(name, at, false));
    let sidecars = [
        job(AGENTS, agents.collect()),
        job(SIDECAR, others.collect()),
    ];
    sidecars
        .into_iter()
        .flatten()
        .chain([orchestrator(mesh)])
        .collect()
}

/// The agents whose sidecars are scraped.
pub(super) fn scraped_agents(mesh: &Mesh) -> impl Iterator<Item = &str> {
    let registry = mesh.trust.registry.consul.is_some();
    let agents = mesh.agents.iter().filter(move |agent| {
        registry || agent.sidecar.admin_listen.is_some_and(|at| at.port() != 0)
    });
    agents.map(|agent| agent.id.as_str())
}

fn orchestrator(mesh: &Mesh) -> ScrapeConfig {
    let target = reachable(mesh.orchestrator.listen).to_string();
    ScrapeConfig {
        job_name: ORCHESTRATOR.to_owned(),
        static_configs: vec![at(vec![target])],
        ..ScrapeConfig::default()
    }
}

/// A job of mesh.yaml; `None` for one that asks a registry that is not there, which was warned of.
fn other(job: &Job, mesh: &Mesh, secrets: &Secrets) -> Option<ScrapeConfig> {
    let registry = mesh.trust.registry.consul.as_ref();
    let (mut targets, mut services) = (Vec::new(), Vec::new());
    if job.services.is_empty() && !job.targets.is_empty() {
        targets.push(Static {
            targets: job.targets.clone(),
            labels: job.labels.clone(),
        });
    } else if !job.services.is_empty() {
        services.push(discovery(mesh, registry?, job.services.clone(), secrets));
    }
    // Targets that are found take labels in no other way.
    let labels = job.labels.iter().filter(|_| !services.is_empty());
    let labels = labels.map(|(name, value)| RelabelConfig {
        target_label: Some(name.clone()),
        // A `$` would begin a reference.
        replacement: Some(value.replace('$', "$$")),
        ..RelabelConfig::default()
    });
    Some(ScrapeConfig {
        job_name: job.name.clone(),
        scrape_interval: job.interval.map(duration),
        // No longer than the interval, which Prometheus refuses.
        scrape_timeout: job
            .interval
            .map(|every| duration(every.min(super::TIMEOUT))),
        metrics_path: job.path.clone(),
        params: job.params.clone(),
        scheme: job.https.then_some("https"),
        static_configs: targets,
        relabel_configs: labels.chain(job.relabel.iter().map(relabel)).collect(),
        consul_sd_configs: services,
        ..ScrapeConfig::default()
    })
}

fn relabel(step: &Relabel) -> RelabelConfig {
    RelabelConfig {
        source_labels: step.source_labels.clone(),
        separator: step.separator.clone(),
        regex: step.regex.clone(),
        target_label: step.target_label.clone(),
        replacement: step.replacement.clone(),
        action: step.action,
    }
}

fn discovery(mesh: &Mesh, consul: &Consul, services: Vec<String>, secrets: &Secrets) -> ConsulSd {
    ConsulSd {
        server: server(consul),
        scheme: scheme(consul),
        token: token(consul, secrets),
        tls_config: tls(consul),
        services,
        refresh_interval: duration(mesh.telemetry.scrape_interval),
    }
}

fn at(targets: Vec<String>) -> Static {
    Static {
        targets,
        labels: BTreeMap::new(),
    }
}

/// Only those that say so, at the port that they say.
fn named_port(meta: &str) -> [RelabelConfig; 2] {
    let port = format!("__meta_consul_service_metadata_{meta}");
    [
        RelabelConfig {
            source_labels: vec![port.clone()],
            regex: Some(r"\d+".to_owned()),
            action: Some("keep"),
            ..RelabelConfig::default()
        },
        RelabelConfig {
            source_labels: vec!["__meta_consul_service_address".to_owned(), port],
            separator: Some(":".to_owned()),
            target_label: Some("__address__".to_owned()),
            ..RelabelConfig::default()
        },
    ]
}

fn copied(from: &str, to: &str) -> RelabelConfig {
    RelabelConfig {
        source_labels: vec![from.to_owned()],
        target_label: Some(to.to_owned()),
        ..RelabelConfig::default()
    }
}

fn server(consul: &Consul) -> String {
    let host = consul.url.host_str().unwrap_or_default();
    match consul.url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn scheme(consul: &Consul) -> Option<&'static str> {
    (consul.url.scheme() == "https").then_some("https")
}

fn token(consul: &Consul, secrets: &Secrets) -> Option<String> {
    consul.token.as_ref().map(|token| secrets.show(token))
}

fn tls(consul: &Consul) -> Option<Tls> {
    let ca_file = consul.ca.as_ref()?.display().to_string();
    Some(Tls { ca_file })
}
