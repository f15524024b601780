//! Identity, registry, intentions and the sidecars' listeners, as far as they concern one another.

use super::{error, ids, listed, warning};
use crate::finding::{Finding, nearest};
use crate::schema::{At, File, Intention, Services, Sidecar};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_sidecar::config::Action;
use std::collections::HashSet;
use std::net::SocketAddr;

/// Names of services that are no agents.
const OWN: [&str; 2] = ["gateway", "orchestrator"];

/// Every finding about who is who and who may call whom.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    names(file, out);
    registry(file, out);
    intentions(file, out);
    headers(file, out);
    for sidecar in sidecars(file) {
        addresses(sidecar, out);
    }
}

fn sidecars(file: &File) -> impl Iterator<Item = &At<Sidecar>> {
    let agents = file.agents.iter().map(|agent| &agent.value.sidecar);
    [&file.gateway.sidecar, &file.orchestrator.sidecar]
        .into_iter()
        .chain(agents)
        .flatten()
}

/// The listeners of a sidecar that are written down.
pub(super) fn listeners(sidecar: Option<&At<Sidecar>>) -> Vec<At<SocketAddr>> {
    let Some(sidecar) = sidecar else {
        return Vec::new();
    };
    let Sidecar {
        listen,
        outbound,
        admin_listen,
        ..
    } = &sidecar.value;
    [listen, outbound, admin_listen]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

fn names(file: &File, out: &mut Vec<Finding>) {
    for agent in &file.agents {
        if let Some(id) = &agent.value.id
            && OWN.contains(&id.value.as_str())
        {
            let message = format!("{}: {} is the mesh's own", id.path, id.value);
            out.push(error("reserved_name", id, message).hint("give the agent another id"));
        }
    }
}

fn registry(file: &File, out: &mut Vec<Finding>) {
    let raw = &file.registry;
    match (&raw.consul, &raw.url) {
        (Some(consul), None) if consul.value => out.push(
            Finding::error(
                "missing",
                consul.place,
                "registry.url",
                "registry.url is missing",
            )
            .hint("add `url: \"http://127.0.0.1:8500\"`, the agent of Consul on each machine"),
        ),
        (Some(consul), Some(url)) if !consul.value => out.push(
            warning(
                "no_effect",
                url,
                "registry.url has no effect with the memory backend",
            )
            .hint("leave it out, or write `backend: consul`"),
        ),
        _ => {}
    }
    let consul = raw.consul.as_ref().is_some_and(|consul| consul.value);
    if let Some(identity) = &file.identity
        && let Some(source) = &identity.value.source
        && source.value == "consul"
        && !consul
    {
        let message = format!("{} needs Consul", source.path);
        out.push(
            error("conflict", source, message)
                .hint("add `registry: {backend: consul, url: \"http://127.0.0.1:8500\"}`"),
        );
    }
}

fn intentions(file: &File, out: &mut Vec<Finding>) {
    let Some(intentions) = &file.intentions else {
        return;
    };
    let known: Vec<&str> = ids(file).chain(OWN).collect();
    let there: HashSet<&str> = known.iter().copied().collect();
    for intention in &intentions.value {
        for services in [&intention.value.from, &intention.value.to] {
            let Some(At {
                value: Services::Named(names),
                ..
            }) = services
            else {
                continue;
            };
            for name in names {
                if there.contains(name.value.as_str()) {
                    continue;
                }
                let message = format!("{}: there is no service {}", name.path, name.value);
                let hint = match nearest(name.value.as_str(), known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("services here: {}", listed(&known)),
                };
                out.push(error("unknown_service", name, message).hint(hint));
            }
        }
    }
    let open = |from: &str, to: &str| intentions.value.iter().any(|i| allows(&i.value, from, to));
    // Once for all agents, of which each would be looked for in every intention.
    let planner: Vec<&Intention> = intentions
        .value
        .iter()
        .map(|i| &i.value)
        .filter(|i| allowed(i) && holds(&i.from, ORCHESTRATOR))
        .collect();
    let every =
        |s: &Option<At<Services>>| matches!(s.as_ref().map(|s| &s.value), Some(Services::Any));
    let all_open = planner.iter().any(|i| every(&i.to));
    let reached: HashSet<&str> = planner
        .iter()
        .filter_map(|i| match i.to.as_ref().map(|to| &to.value) {
            Some(Services::Named(names)) => Some(names),
            _ => None,
        })
        .flatten()
        .map(|name| name.value.as_str())
        .collect();
    if !open("gateway", "orchestrator") {
        out.push(
            warning(
                "no_way",
                intentions,
                "no intention lets the gateway call the orchestrator: no client gets an answer",
            )
            .hint("add `{from: gateway, to: orchestrator}`"),
        );
    }
    let shut = |agent: &&str| !OWN.contains(agent) && !all_open && !reached.contains(agent);
    for agent in ids(file).filter(shut) {
        let message =
            format!("no intention lets the orchestrator reach {agent}: its steps are refused");
        out.push(
            warning("no_way", intentions, message)
                .hint(format!("add `{{from: orchestrator, to: {agent}}}`")),
        );
    }
}

pub(super) fn allows(intention: &Intention, from: &str, to: &str) -> bool {
    allowed(intention) && holds(&intention.from, from) && holds(&intention.to, to)
}

fn allowed(intention: &Intention) -> bool {
    let action = intention.action.as_ref().map(|action| action.value);
    action.unwrap_or_default() == Action::Allow
}

fn holds(services: &Option<At<Services>>, name: &str) -> bool {
    match services.as_ref().map(|s| &s.value) {
        Some(Services::Any) => true,
        Some(Services::Named(names)) => names.iter().any(|n| n.value.as_str() == name),
        None => false,
    }
}

fn headers(file: &File, out: &mut Vec<Finding>) {
    let Some(headers) = &file.identity_headers else {
        return;
    };
    for name in headers.value.keys() {
        let legal =
            http::HeaderName::try_from(name.as_str()).is_ok() && *name == name.to_ascii_lowercase();
        let reserved = mesh_protocol::assertion::reserved_alias(name.as_bytes()).is_some();
        if !legal || reserved {
            let message = format!("{}: `{name}` cannot be such a header", headers.path);
            out.push(
                error("invalid_name", headers, message)
                    .hint("in lower case, such as x-user-id, and none of x-mesh-…"),
            );
        }
    }
}

fn addresses(sidecar: &At<Sidecar>, out: &mut Vec<Finding>) {
    let raw = &sidecar.value;
    if let Some(outbound) = &raw.outbound
        && !outbound.value.ip().is_loopback()
    {
        let message = format!("{} is open to other machines", outbound.path);
        out.push(
            error("not_loopback", outbound, message)
                .hint("whoever reaches it is this service: listen on 127.0.0.1"),
        );
    }
    if let Some(listen) = &raw.listen
        && listen.value.ip().is_unspecified()
        && raw.advertise.is_none()
    {
        let message = format!("{} is no address that peers can connect to", listen.path);
        out.push(
            error("missing", listen, message)
                .hint("add `advertise: ADDRESS:PORT`, or listen on one address"),
        );
    }
}
