//! RabbitMQ's definitions: queues, exchanges, bindings and policies of one virtual host.
//!
//! A queue `agent.NAME.tasks` that `ai.tasks` leads to is an agent's: the mesh declares it, with its dead
//! letters. Every other queue, those of an agent's events and coordination among them, is written down.

use super::ImportError;
use super::cursor::Cursor;
use super::found::{Entity, Found};
use super::rabbitmq_own::{add_binding, add_exchange, add_queue, own};
use super::written::{Agent, Auth, Binding, Exchange, File, Messaging, Policy, Queue, Text};
use crate::schema::tree::Value;
use mesh_protocol::AgentId;
use mesh_protocol::names::{EXCHANGE_TASKS, ORCHESTRATOR};
use serde_json::Map;
use std::collections::BTreeMap;

/// What says which broker wrote the file.
const QUIET: [&str; 7] = [
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "explanation",
];
/// The first port that an agent gets here; where it really is stands in no definitions.
const FIRST_PORT: u16 = 11_000;

pub(super) fn read(root: &Cursor<'_>, found: &mut Found<'_>) -> Result<File, ImportError> {
    let Some(mut top) = Entity::of(root, found) else {
        let problem = "definitions are a mapping";
        return Err(ImportError::Form(problem.to_owned()));
    };
    for name in QUIET {
        top.take(name);
    }
    let hosts = top.take_list("vhosts", found);
    let lists = ["exchanges", "queues", "bindings", "policies"];
    let [exchanges, queues, bindings, policies] = lists.map(|name| top.take_list(name, found));
    let vhost = vhost(&hosts, &[&queues, &exchanges], found);
    let mut messaging = Messaging {
        backend: "rabbitmq",
        vhost: (vhost != "/").then(|| vhost.clone()),
        ..Messaging::default()
    };
    let all_bindings: Vec<(String, Binding, Cursor<'_>)> = within(bindings, &vhost, found)
        .into_iter()
        .filter_map(|entity| binding(entity, found))
        .collect();
    let mut agents: BTreeMap<String, (AgentId, &'static str)> = BTreeMap::new();
    let mut read_queues = Vec::new();
    for entity in within(queues, &vhost, found) {
        let at = entity.at.clone();
        if let Some(queue) = queue(entity, found) {
            if let Some(agent) = agent(&queue, &all_bindings) {
                agents.insert(queue.name.clone(), agent);
            }
            read_queues.push((queue, at));
        }
    }
    let own = own(agents.values().map(|(id, _)| id));
    for entity in within(exchanges, &vhost, found) {
        let at = entity.at.clone();
        if let Some(exchange) = exchange(entity, found) {
            add_exchange(exchange, &at, &own, &mut messaging, found);
        }
    }
    for (queue, at) in read_queues {
        add_queue(queue, &at, &own, &agents, &mut messaging, found);
    }
    for (queue, binding, at) in all_bindings {
        add_binding(queue, binding, &at, &own, &mut messaging, found);
    }
    for entity in within(policies, &vhost, found) {
        messaging.policies.extend(policy(entity, found));
    }
    top.finish(found, &|name| {
        Some(match name {
            "users" | "permissions" | "topic_permissions" => {
                "users and what they may do are made on the broker; the mesh's own stands in messaging.url"
            }
            "parameters" | "global_parameters" => "set them on the broker",
            _ => return None,
        })
    });
    let variable = "RABBITMQ_URL";
    found.refer(variable, "(where the broker is)");
    messaging.url = Some(Text::Variable {
        env: variable.to_owned(),
    });
    let mut file = File {
        version: 1,
        messaging: Some(messaging),
        ..File::default()
    };
    for (number, (id, kind)) in (0u16..).zip(agents.into_values()) {
        let port = FIRST_PORT.saturating_add(number);
        file.agents.push(Agent {
            id: id.to_string(),
            endpoint: format!("http://127.0.0.1:{port}"),
            queue_kind: (kind != "quorum").then_some(kind),
        });
    }
    if !file.agents.is_empty() {
        file.gateway.auth = Some(Auth { development: true });
        found.note("agents[].endpoint: definitions do not say where agents are; the ports here are made up");
        found.note("gateway.auth: tokens of `mesh token` are taken, on loopback alone; name issuers for others");
        found.note("the mesh declares agents' queues with dead letters: a queue that is there without them has to be deleted first");
    }
    Ok(file)
}

/// The virtual host that is carried over: `/` where it is one of several.
fn vhost(hosts: &[Cursor<'_>], lists: &[&Vec<Cursor<'_>>], found: &mut Found<'_>) -> String {
    let name = |at: &Cursor<'_>, key: &str, found: &Found<'_>| {
        at.get(key).and_then(|name| found.scalar(&name))
    };
    let mut names: Vec<String> = hosts
        .iter()
        .filter_map(|at| name(at, "name", found))
        .collect();
    for at in lists.iter().flat_map(|list| list.iter()) {
        names.extend(name(at, "vhost", found));
    }
    let chosen = if names.iter().any(|name| name == "/") {
        "/".to_owned()
    } else {
        names.into_iter().next().unwrap_or_else(|| "/".to_owned())
    };
    for at in hosts {
        if name(at, "name", found).is_some_and(|name| name != chosen) {
            found.lose(
                at,
                format!("a mesh has one virtual host, and this one is {chosen}"),
            );
        }
    }
    chosen
}

/// Those of a list that are in the virtual host.
fn within<'n>(list: Vec<Cursor<'n>>, vhost: &str, found: &mut Found<'_>) -> Vec<Entity<'n>> {
    let mut here = Vec::new();
    for at in list {
        let Some(mut entity) = Entity::of(&at, found) else {
            continue;
        };
        match entity.take("vhost").and_then(|at| found.scalar(&at)) {
            Some(other) if other != vhost => found.lose(&at, "it is in another virtual host"),
            _ => here.push(entity),
        }
    }
    here
}

fn flag(entity: &mut Entity<'_>, name: &str, usual: bool, found: &mut Found<'_>) -> bool {
    match entity.take(name) {
        None => usual,
        Some(at) => match at.node.value {
            Value::Bool(value) => value,
            _ => {
                found.lose(
                    &at,
                    format!("it is {}, where true or false is wanted", at.kind()),
                );
                usual
            }
        },
    }
}

fn object(
    entity: &mut Entity<'_>,
    name: &str,
    found: &mut Found<'_>,
) -> Map<String, serde_json::Value> {
    entity
        .take(name)
        .map(|at| found.object(&at))
        .unwrap_or_default()
}

fn exchange(mut entity: Entity<'_>, found: &mut Found<'_>) -> Option<Exchange> {
    let at = entity.at.clone();
    let (name, kind) = (
        entity.take_text("name", found),
        entity.take_text("type", found),
    );
    let (Some(name), Some(kind)) = (name, kind) else {
        found.lose(&at, "an exchange has a name and a type");
        return None;
    };
    let exchange = Exchange {
        name,
        kind,
        durable: flag(&mut entity, "durable", true, found),
        auto_delete: flag(&mut entity, "auto_delete", false, found),
        internal: flag(&mut entity, "internal", false, found),
        arguments: object(&mut entity, "arguments", found),
    };
    entity.finish(found, &|_| None);
    Some(exchange)
}

fn queue(mut entity: Entity<'_>, found: &mut Found<'_>) -> Option<Queue> {
    let at = entity.at.clone();
    let Some(name) = entity.take_text("name", found) else {
        found.lose(&at, "a queue has a name");
        return None;
    };
    let mut queue = Queue {
        name,
        durable: flag(&mut entity, "durable", true, found),
        auto_delete: flag(&mut entity, "auto_delete", false, found),
        arguments: object(&mut entity, "arguments", found),
        bindings: Vec::new(),
    };
    // Newer brokers say it beside the arguments.
    if let Some(kind) = entity.take_text("type", found)
        && kind != "classic"
        && !queue.arguments.contains_key("x-queue-type")
    {
        queue
            .arguments
            .insert("x-queue-type".to_owned(), kind.into());
    }
    entity.finish(found, &|_| None);
    Some(queue)
}

fn binding<'n>(
    mut entity: Entity<'n>,
    found: &mut Found<'_>,
) -> Option<(String, Binding, Cursor<'n>)> {
    let at = entity.at.clone();
    let kind = entity.take_text("destination_type", found);
    if kind.as_deref().is_some_and(|kind| kind != "queue") {
        found.lose(&at, "a binding between exchanges has no place in mesh.yaml");
        return None;
    }
    let source = entity.take_text("source", found);
    let queue = entity.take_text("destination", found);
    let (Some(exchange), Some(queue)) = (source, queue) else {
        found.lose(&at, "a binding leads from an exchange to a queue");
        return None;
    };
    let key = entity.take_text("routing_key", found).unwrap_or_default();
    // Made of key and arguments by the broker.
    entity.take("properties_key");
    let arguments = object(&mut entity, "arguments", found);
    entity.finish(found, &|_| None);
    // Every queue is bound to the exchange without a name by itself.
    (!exchange.is_empty()).then_some((
        queue,
        Binding {
            exchange,
            key,
            arguments,
        },
        at,
    ))
}

/// The agent whose steps a queue holds, and the kind of the queue.
fn agent(
    queue: &Queue,
    bindings: &[(String, Binding, Cursor<'_>)],
) -> Option<(AgentId, &'static str)> {
    let name = queue.name.strip_prefix("agent.")?.strip_suffix(".tasks")?;
    let id: AgentId = name.parse().ok()?;
    let led = bindings
        .iter()
        .any(|(to, binding, _)| *to == queue.name && binding.exchange == EXCHANGE_TASKS);
    let own = matches!(id.as_str(), ORCHESTRATOR | crate::mesh::GATEWAY);
    if !led || own || id.task_queue() != queue.name {
        return None;
    }
    let kind = queue
        .arguments
        .get("x-queue-type")
        .and_then(|kind| kind.as_str());
    match kind {
        Some("quorum") => Some((id, "quorum")),
        None | Some("classic") => Some((id, "classic")),
        Some(_) => None,
    }
}

fn policy(mut entity: Entity<'_>, found: &mut Found<'_>) -> Option<Policy> {
    let at = entity.at.clone();
    let (name, pattern) = (
        entity.take_text("name", found),
        entity.take_text("pattern", found),
    );
    let apply_to = entity.take_text("apply-to", found);
    let priority = entity.take("priority").and_then(|at| found.json(&at));
    let definition = object(&mut entity, "definition", found);
    entity.finish(found, &|_| None);
    let (Some(name), Some(pattern)) = (name, pattern) else {
        found.lose(&at, "a policy has a name and a pattern");
        return None;
    };
    Some(Policy {
        name,
        pattern,
        apply_to: apply_to.unwrap_or_else(|| "all".to_owned()),
        priority: priority.and_then(|p| p.as_i64()).unwrap_or_default(),
        definition,
    })
}
