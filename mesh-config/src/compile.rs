//! From the raw file to the checked mesh.
//!
//! Everything that can be said about the file is said in one go: reading goes on after a fault, the
//! checks run on what was read, and the mesh is built only when there is no error.

mod broker;
mod deploy;
mod entry;
mod follow;
mod ollama;
mod services;
mod telemetry;
mod trust;

pub(crate) use entry::not_utf8;
pub use entry::{Compiled, compile, compile_bytes, compile_file, compile_read};

use crate::filters::{Filters, Setting};
use crate::fronted::Extras;
use crate::mesh::{
    ASSERTION_KEY, Agent, Auth, Destination, Gateway, Issuer, Key, Mesh, Messaging, Orchestrator,
    Route, Run, Store,
};
use crate::schema::{self, At, File};
use crate::secret::Source;
use mesh_bus::{QueueKind, Topology};
use mesh_orchestrator::config as orchestrator;
use mesh_orchestrator::resources::Amounts;
use mesh_protocol::AgentId;
use mesh_sidecar::config::{Settings, Worker};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the gateway listens when mesh.yaml does not say; the plan's port.
pub(crate) const GATEWAY_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10005);
/// Where the orchestrator listens when mesh.yaml does not say; the plan's port.
pub(crate) const ORCHESTRATOR_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8589);

/// Fills in defaults. What is still absent here was reported, so its stand-in is never used.
fn build(mut file: File, revision: String) -> Mesh {
    let name = value(file.mesh.take()).unwrap_or_default();
    let trust = trust::trust(&mut file, &name);
    let usual = value(file.messaging.delivery.take());
    let queue_kind = value(file.messaging.queue_kind.take()).unwrap_or_default();
    let consumer_timeout = value(file.messaging.consumer_timeout.take())
        .unwrap_or(Duration::from_millis(Worker::default().ack_deadline_ms));
    let warn_before = trust.identity.warn_before;
    let mut extras = services::extras(&mut file.gateway);
    let services = services::services(std::mem::take(&mut file.services));
    extras.vault = file.vault.take();
    extras.secrets = services::secrets(&extras, &services);
    let guarded = !file.agents.is_empty();
    Mesh {
        name,
        revision,
        gateway: gateway(file.gateway, extras, guarded),
        orchestrator: orchestrator(file.orchestrator),
        messaging: Messaging {
            rabbitmq: value(file.messaging.rabbitmq)
                .unwrap_or_default()
                .then(|| value(file.messaging.url))
                .flatten(),
            queue_kind,
            max_length: value(file.messaging.max_length),
            consumer_timeout,
            state_dir: value(file.messaging.state_dir),
            broker: broker::broker(file.messaging.broker),
        },
        store: Store {
            redis: value(file.store.redis)
                .unwrap_or_default()
                .then(|| value(file.store.url))
                .flatten(),
            retention: value(file.store.retention).unwrap_or(Duration::from_secs(86_400)),
        },
        deploy: deploy::deploy(file.deploy),
        agents: file
            .agents
            .into_iter()
            .filter_map(|a| agent(a.value, &trust.traffic, usual.as_ref(), queue_kind))
            .collect(),
        services,
        trust,
        telemetry: telemetry::telemetry(file.telemetry, warn_before, consumer_timeout),
    }
}

/// The mesh's own exchanges and queues, but for delays.
pub(crate) fn topology<'a>(agents: impl Iterator<Item = &'a AgentId>) -> Topology {
    let own = Topology::exchanges()
        .with_orchestrator(QueueKind::default())
        .with_intake(QueueKind::default());
    agents.fold(own, |all, id| all.with_agent(id, QueueKind::default()))
}

/// `guarded`: whether there is an agent that the usual routes lead to.
fn gateway(raw: schema::Gateway, extras: Extras, guarded: bool) -> Gateway {
    let auth = value(raw.auth).unwrap_or_default();
    let issuers = value(auth.issuers).unwrap_or_default();
    Gateway {
        listen: value(raw.listen).unwrap_or(GATEWAY_LISTEN),
        auth: if issuers.is_empty() {
            Auth::Development
        } else {
            Auth::Issuers(
                issuers
                    .into_iter()
                    .filter_map(|i| issuer(i.value))
                    .collect(),
            )
        },
        assertion_key: value(auth.assertion_key)
            .unwrap_or_else(|| Source::File(PathBuf::from(ASSERTION_KEY))),
        assertion_lifetime: value(auth.assertion_lifetime).unwrap_or(Duration::from_secs(60)),
        sidecar: trust::sidecar(raw.sidecar),
        filters: filters(raw.filters),
        admin: value(raw.admin),
        filters_path: crate::render::FILTERS_PATH.to_owned(),
        extras,
        routes: match value(raw.routes) {
            Some(routes) => routes.into_iter().filter_map(|r| route(r.value)).collect(),
            None if guarded => default_routes(),
            None => Vec::new(),
        },
    }
}

fn issuer(raw: schema::Issuer) -> Option<Issuer> {
    let keys = raw.keys.into_iter().filter_map(|key| {
        let key: schema::Key = key.value;
        Some(Key {
            id: value(key.id),
            algorithm: value(key.algorithm)?,
            source: value(key.secret).or_else(|| value(key.public_key))?,
        })
    });
    Some(Issuer {
        issuer: value(raw.issuer)?,
        audiences: raw.audiences.into_iter().map(|a| a.value).collect(),
        keys: keys.collect(),
        jwks_url: value(raw.jwks_url)
            .and_then(|url| serde_json::from_value(url.config?.into()).ok()),
    })
}

fn route(raw: schema::Route) -> Option<Route> {
    Some(Route {
        name: value(raw.name)?,
        paths: raw.paths.into_iter().map(|p| p.value).collect(),
        methods: raw.methods.into_iter().map(|m| m.value).collect(),
        strip_path: value(raw.strip_path).unwrap_or(true),
        to: value(raw.to).unwrap_or_default(),
        filters: filters(raw.filters),
    })
}

fn filters(raw: Option<At<schema::Filters>>) -> Filters {
    let raw = value(raw).unwrap_or_default();
    let setting = |at: Option<At<schema::Setting>>| match value(at) {
        None => Setting::Unsaid,
        Some(setting) => setting.config.map_or(Setting::Off, Setting::On),
    };
    Filters {
        jwt_auth: setting(raw.jwt_auth),
        rate_limit: setting(raw.rate_limit),
        task_admission: setting(raw.task_admission),
        agent_router: setting(raw.agent_router),
    }
}

/// The plan's way in, and what a client needs to see its task through.
pub(crate) fn default_routes() -> Vec<Route> {
    let route = |name: &str, paths: &[&str], methods: &[&str], strip_path| Route {
        name: name.to_owned(),
        paths: paths.iter().map(|&p| p.to_owned()).collect(),
        methods: methods.iter().map(|&m| m.to_owned()).collect(),
        strip_path,
        to: Destination::Orchestrator,
        filters: Filters::default(),
    };
    vec![
        route("orchestrate", &["/ai/orchestrate"], &["POST"], true),
        route("tasks", &["/task", "/tasks"], &["GET", "DELETE"], false),
        route("events", &["/events"], &["GET"], false),
        route("agents", &["/agents"], &["GET"], false),
        route(
            "coordinate",
            &["/ai/coordinate", "/coordinate"],
            &["POST"],
            false,
        ),
        Route {
            filters: Filters {
                // What comes here is no task.
                task_admission: Setting::Off,
                ..Filters::default()
            },
            ..route("messages", &["/register", "/ws"], &["GET", "POST"], false)
        },
        route("resources", &["/resources"], &["GET"], false),
    ]
}

fn orchestrator(raw: schema::Orchestrator) -> Orchestrator {
    let limits = orchestrator::Limits::default();
    let steps = orchestrator::Steps::default();
    let planner = raw.planner;
    let rules = planner.rules.map(|rules| {
        let rules = rules.into_iter().map(|rule| {
            let agents = rule.value.agents.iter().map(|a| a.value.to_string());
            (rule.value.task_type, agents.collect())
        });
        rules.collect()
    });
    Orchestrator {
        listen: value(raw.listen).unwrap_or(ORCHESTRATOR_LISTEN),
        sidecar: trust::sidecar(raw.sidecar),
        resources: amounts(raw.resources),
        rules: rules.unwrap_or_else(orchestrator::plan_rules),
        general_agent: value(planner.general_agent),
        ollama: value(planner.ollama).and_then(ollama::ollama),
        max_steps: value(planner.max_steps).unwrap_or(100),
        max_width: value(planner.max_width).unwrap_or(16),
        limits: orchestrator::Limits {
            max_body_bytes: value(raw.max_body).unwrap_or(limits.max_body_bytes),
            max_wait_s: value(raw.max_wait).map_or(limits.max_wait_s, |d| {
                u32::try_from(d.as_secs()).unwrap_or(limits.max_wait_s)
            }),
            max_runs: value(raw.max_runs).unwrap_or(limits.max_runs),
        },
        step_timeout: value(raw.step_timeout).unwrap_or(Duration::from_millis(steps.timeout_ms)),
        on_failure: value(raw.on_failure).unwrap_or(steps.on_failure),
    }
}

fn agent(
    raw: schema::Agent,
    traffic: &Settings,
    usual: Option<&schema::Delivery>,
    queue_kind: QueueKind,
) -> Option<Agent> {
    let worker = Worker::default();
    let run = value(raw.run).and_then(|run: schema::Run| {
        value(run.builtin).map(Run::Builtin).or_else(|| {
            let command = value(run.command)?;
            Some(Run::Command {
                command: command.into_iter().map(|word| word.value).collect(),
                dir: value(run.dir),
            })
        })
    });
    let id = value(raw.id)?;
    Some(Agent {
        container: value(raw.container).map(services::container),
        id,
        capabilities: raw.capabilities.into_iter().map(|c| c.value).collect(),
        description: value(raw.description).unwrap_or_default(),
        endpoint: value(raw.endpoint),
        run,
        concurrency: value(raw.concurrency).unwrap_or(worker.concurrency),
        timeout: value(raw.timeout).unwrap_or(Duration::from_millis(worker.timeout_ms)),
        attempts: value(raw.attempts).unwrap_or(worker.max_attempts),
        pause: value(raw.pause).unwrap_or(Duration::from_millis(worker.retry_base_ms)),
        queue_kind: value(raw.queue_kind).unwrap_or(queue_kind),
        delivery: value(raw.delivery)
            .unwrap_or_default()
            .over(usual)
            .checked(),
        sidecar: trust::sidecar(raw.sidecar),
        health: value(raw.health).unwrap_or_default(),
        traffic: value(raw.traffic).map_or_else(|| traffic.clone(), |own| own.over(traffic)),
        resources: amounts(raw.resources),
    })
}

fn amounts(raw: Option<At<Vec<At<schema::Amount>>>>) -> Amounts {
    let all = value(raw).unwrap_or_default().into_iter();
    all.map(|at| (at.value.name, at.value.amount)).collect()
}

fn value<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}
