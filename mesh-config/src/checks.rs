//! What concerns more than one value of the file.

mod broker;
mod delivery;
mod deploy;
mod filters;
mod gateway;
mod ollama;
mod resources;
mod services;
mod telemetry;
mod trust;
mod ways;

use crate::compile::{GATEWAY_LISTEN, ORCHESTRATOR_LISTEN};
use crate::finding::{Finding, Place, nearest};
use crate::schema::{Agent, At, File};
use crate::secret::Source;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use url::Url;

/// Every finding about the file as a whole.
pub(crate) fn run(file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    agents(file, &mut out);
    planner(file, &mut out);
    ollama::run(file, &mut out);
    gateway::run(file, &mut out);
    filters::run(file, &mut out);
    services::run(file, &mut out);
    backends(file, &mut out);
    delivery::run(file, &mut out);
    broker::run(file, &mut out);
    resources::run(file, &mut out);
    telemetry::run(file, &mut out);
    trust::run(file, &mut out);
    deploy::run(file, &mut out);
    ports(file, &mut out);
    out
}

fn error<T>(code: &'static str, at: &At<T>, message: impl Into<String>) -> Finding {
    Finding::error(code, at.place, at.path.clone(), message)
}

fn warning<T>(code: &'static str, at: &At<T>, message: impl Into<String>) -> Finding {
    Finding::warning(code, at.place, at.path.clone(), message)
}

fn ids(file: &File) -> impl Iterator<Item = &str> {
    file.agents
        .iter()
        .filter_map(|a| a.value.id.as_ref().map(|id| id.value.as_str()))
}

fn agents(file: &File, out: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for at in &file.agents {
        let agent = &at.value;
        if let Some(id) = &agent.id
            && let Some(first) = seen.insert(id.value.as_str(), id.place)
        {
            let message = format!(
                "agent {} stands twice, first in line {}",
                id.value, first.line
            );
            out.push(
                error("duplicate_agent", id, message)
                    .hint("give each agent an id of its own; `-` and `_` count as the same letter"),
            );
        }
        started(at, out);
        if let (Some(endpoint), Some(timeout)) = (&agent.endpoint, &agent.timeout) {
            let budget = file.orchestrator.step_timeout.as_ref().map(|b| b.value);
            if budget.is_some_and(|b| b < timeout.value) && endpoint.value.has_host() {
                let message = format!("{} is longer than orchestrator.steps.timeout", timeout.path);
                out.push(
                    warning("timeout_never_reached", timeout, message)
                        .hint("the step's time is over before; shorten this or lengthen that"),
                );
            }
        }
        let general = file.orchestrator.planner.general_agent.as_ref();
        if let Some(id) = &agent.id
            && agent.capabilities.is_empty()
            && general.is_none_or(|g| g.value != id.value)
            && !in_a_rule(file, id.value.as_str())
        {
            let message = format!("no task type leads to agent {}", id.value);
            out.push(
                warning("unreachable_agent", id, message)
                    .hint("give it capabilities, or name it in orchestrator.planner.rules"),
            );
        }
    }
}

fn in_a_rule(file: &File, id: &str) -> bool {
    match &file.orchestrator.planner.rules {
        Some(rules) => rules
            .iter()
            .any(|r| r.value.agents.iter().any(|a| a.value.as_str() == id)),
        None => mesh_orchestrator::config::plan_rules()
            .values()
            .flatten()
            .any(|name| name == id),
    }
}

/// How an agent is started and found.
fn started(at: &At<Agent>, out: &mut Vec<Finding>) {
    let agent = &at.value;
    let Some(run) = &agent.run else {
        if agent.endpoint.is_none() {
            let path = format!("{}.endpoint", at.path);
            let message = format!("{path} is missing");
            out.push(
                Finding::error("missing", at.place, path, message)
                    .hint("add `endpoint: http://127.0.0.1:PORT`, or `run: {builtin: NAME}`"),
            );
        }
        return;
    };
    match (&run.value.builtin, &run.value.command) {
        (Some(_), Some(command)) => out.push(error(
            "conflict",
            command,
            format!("{} holds both builtin and command", run.path),
        )),
        (None, Some(command)) if agent.endpoint.is_none() => out.push(
            error(
                "missing",
                command,
                format!(
                    "{}.endpoint is missing: where will the command listen?",
                    at.path
                ),
            )
            .hint("add `endpoint: http://127.0.0.1:PORT`"),
        ),
        _ => {}
    }
    if let Some(dir) = &run.value.dir
        && run.value.command.is_none()
    {
        let message = format!("{} has no effect without a command", dir.path);
        out.push(warning("no_effect", dir, message));
    }
    if let Some(endpoint) = &agent.endpoint
        && loopback(&endpoint.value).is_none()
    {
        let message = format!("{} is started here, so it is found on loopback", at.path);
        out.push(
            error("not_loopback", endpoint, message)
                .hint("write http://127.0.0.1:PORT, or leave `run` out for an agent elsewhere"),
        );
    }
}

fn planner(file: &File, out: &mut Vec<Finding>) {
    let planner = &file.orchestrator.planner;
    let known: Vec<&str> = ids(file).collect();
    let meant = |name: &str| match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "no agent here has a name".to_owned(),
        None => format!("agents here: {}", known.join(", ")),
    };
    if let Some(general) = &planner.general_agent
        && !known.contains(&general.value.as_str())
    {
        let message = format!("{}: there is no agent {}", general.path, general.value);
        out.push(error("unknown_agent", general, message).hint(meant(general.value.as_str())));
    }
    for rule in planner.rules.iter().flatten() {
        for agent in &rule.value.agents {
            if !known.contains(&agent.value.as_str()) {
                let message = format!("{}: there is no agent {}", agent.path, agent.value);
                out.push(warning("unknown_agent", agent, message).hint(format!(
                    "{}; until then an agent with the capability, or the general agent, stands in",
                    meant(agent.value.as_str())
                )));
            }
        }
    }
    if let (Some(width), Some(steps)) = (&planner.max_width, &planner.max_steps)
        && width.value > steps.value
    {
        let message = format!("{} is larger than max_steps", width.path);
        out.push(warning("no_effect", width, message));
    }
    if planner.general_agent.is_none() && !file.agents.is_empty() {
        let place = Place::default();
        let path = "orchestrator.planner.general_agent";
        let message = "there is no general agent: task types that nobody covers are refused";
        out.push(
            Finding::warning("no_general_agent", place, path, message)
                .hint(format!("add `{path}: NAME` if that is not meant")),
        );
    }
    if file.agents_listed && file.agents.is_empty() && !file.fronts_only {
        let place = Place::default();
        out.push(
            Finding::error("no_agents", place, "agents", "the mesh has no agents")
                .hint("add one: `agents: [{id: general-agent, run: {builtin: general-agent}}]`"),
        );
    }
}

fn backends(file: &File, out: &mut Vec<Finding>) {
    let (messaging, store) = (&file.messaging, &file.store);
    let parts = [
        (
            "messaging",
            "RABBITMQ_URL",
            &messaging.rabbitmq,
            &messaging.url,
        ),
        ("store", "REDIS_URL", &store.redis, &store.url),
    ];
    for (part, variable, remote, url) in parts {
        match (remote, url) {
            (Some(remote), None) if remote.value => out.push(
                error("missing", remote, format!("{part}.url is missing"))
                    .hint(format!("add `url: {{env: {variable}}}`")),
            ),
            (Some(remote), Some(url)) if !remote.value => out.push(warning(
                "no_effect",
                url,
                format!("{part}.url has no effect with the memory backend"),
            )),
            _ => {}
        }
        if let Some(at) = url
            && let Source::Inline(text) = &at.value
            && Url::parse(text).is_ok_and(|u| u.password().is_some())
        {
            let message = format!("{} holds a password in the open", at.path);
            out.push(
                warning("inline_secret", at, message)
                    .hint(format!("write {{env: {variable}}} or {{file: PATH}}")),
            );
        }
    }
    if let Some(broker) = &messaging.rabbitmq
        && broker.value
        && store.redis.as_ref().is_none_or(|redis| !redis.value)
    {
        let message = "steps survive a restart in RabbitMQ, their tasks do not survive in memory";
        out.push(
            warning("tasks_forgotten", broker, message)
                .hint("add `store: {backend: redis, url: {env: REDIS_URL}}`"),
        );
    }
}

/// Two listeners on one port.
fn ports(file: &File, out: &mut Vec<Finding>) {
    let fallback = |address: SocketAddr, path: &str| At {
        value: address,
        place: Place::default(),
        path: path.to_owned(),
    };
    let own = |at: &Option<At<SocketAddr>>, default, path| match at {
        Some(at) => at.clone(),
        None => fallback(default, path),
    };
    let mut taken: Vec<At<SocketAddr>> = Vec::new();
    let mut listeners = vec![
        own(&file.gateway.listen, GATEWAY_LISTEN, "gateway.listen"),
        own(
            &file.orchestrator.listen,
            ORCHESTRATOR_LISTEN,
            "orchestrator.listen",
        ),
    ];
    let tls = file.gateway.tls.as_ref();
    listeners.extend(tls.and_then(|tls| tls.value.listen.clone()));
    listeners.extend(trust::listeners(file.gateway.sidecar.as_ref()));
    listeners.extend(trust::listeners(file.orchestrator.sidecar.as_ref()));
    for agent in &file.agents {
        listeners.extend(trust::listeners(agent.value.sidecar.as_ref()));
        // Two entries may share an agent that runs elsewhere; one that is started here is alone.
        if let (Some(endpoint), Some(_)) = (&agent.value.endpoint, &agent.value.run)
            && let Some(address) = loopback(&endpoint.value)
        {
            listeners.push(endpoint.clone().map(|_| address));
        }
    }
    for at in listeners {
        let same = |other: &&At<SocketAddr>| {
            let (a, b) = (at.value, other.value);
            let ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && ip
        };
        if let Some(other) = taken.iter().find(same) {
            // The finding belongs to the one that the user wrote.
            let (at, other) = if at.place.line == 0 {
                (other, &at)
            } else {
                (&at, other)
            };
            let message = format!("port {} is also {}", at.value.port(), other.path);
            out.push(error("port_conflict", at, message).hint("choose another port"));
        }
        taken.push(at);
    }
}

/// The address of a URL on this machine's loopback, in figures: no name is resolved here.
fn loopback(url: &Url) -> Option<SocketAddr> {
    let ip: IpAddr = match url.host()? {
        url::Host::Ipv4(ip) => ip.into(),
        url::Host::Ipv6(ip) => ip.into(),
        url::Host::Domain(_) => return None,
    };
    let port = url.port_or_known_default()?;
    ip.is_loopback().then_some(SocketAddr::new(ip, port))
}
