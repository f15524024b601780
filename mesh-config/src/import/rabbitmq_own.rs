//! What of a broker's definitions is the mesh's own: it declares that itself, and names what was otherwise.

use super::cursor::Cursor;
use super::found::Found;
use super::written::{Binding, Exchange, Messaging, Queue};
use mesh_bus::Topology;
use mesh_protocol::AgentId;
use std::collections::BTreeMap;

/// What the mesh declares itself.
pub(super) fn own<'a>(agents: impl Iterator<Item = &'a AgentId>) -> Topology {
    let mut agents = agents.peekable();
    if agents.peek().is_none() {
        return Topology::default();
    }
    crate::compile::topology(agents)
}

pub(super) fn add_exchange(
    exchange: Exchange,
    at: &Cursor<'_>,
    own: &Topology,
    messaging: &mut Messaging,
    found: &mut Found<'_>,
) {
    if exchange.name.is_empty() || exchange.name.starts_with("amq.") {
        // The broker's own, which are there anyhow.
        return;
    }
    let Some(mine) = own.exchanges.iter().find(|own| own.name == exchange.name) else {
        messaging.exchanges.push(exchange);
        return;
    };
    let same = exchange.kind == mine.kind.as_str()
        && exchange.durable
        && !exchange.auto_delete
        && !exchange.internal
        && exchange.arguments.is_empty();
    if !same {
        let kind = mine.kind.as_str();
        found.lose(
            at,
            format!("the mesh declares it itself, durable, of type {kind}, and no more"),
        );
    }
}

pub(super) fn add_queue(
    queue: Queue,
    at: &Cursor<'_>,
    own: &Topology,
    agents: &BTreeMap<String, (AgentId, &'static str)>,
    messaging: &mut Messaging,
    found: &mut Found<'_>,
) {
    if agents.contains_key(&queue.name) {
        let mut further = queue.arguments.keys().filter(|key| *key != "x-queue-type");
        if further.next().is_some() || !queue.durable || queue.auto_delete {
            found.lose(at, "an agent's queue has the mesh's own arguments");
        }
        return;
    }
    let delay = |name: &str| {
        let rest = queue.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(".delay."))
    };
    let mine = own.declared().find(|(name, _)| *name == queue.name);
    if let Some((_, arguments)) = mine {
        let kind = |key: &str| key == "x-queue-type";
        let mut theirs: Vec<&String> = queue.arguments.keys().filter(|k| !kind(k)).collect();
        let mut ours: Vec<&str> = arguments
            .into_iter()
            .map(|(k, _)| k)
            .filter(|k| !kind(k))
            .collect();
        theirs.sort();
        ours.sort_unstable();
        if theirs != ours || !queue.durable {
            found.lose(at, "the mesh declares it itself, with arguments of its own");
        }
        return;
    }
    if own.declared().any(|(name, _)| delay(name)) {
        // What follows from agents' delivery settings.
        return;
    }
    messaging.queues.push(queue);
}

pub(super) fn add_binding(
    queue: String,
    binding: Binding,
    at: &Cursor<'_>,
    own: &Topology,
    messaging: &mut Messaging,
    found: &mut Found<'_>,
) {
    let mine = |b: &mesh_bus::Binding| {
        b.queue == queue && b.exchange == binding.exchange && b.key == binding.key
    };
    if own.bindings.iter().any(mine) && binding.arguments.is_empty() {
        return;
    }
    match messaging.queues.iter_mut().find(|q| q.name == queue) {
        Some(queue) => queue.bindings.push(binding),
        None => found.lose(
            at,
            "the mesh binds this queue itself, and not so; or it is not in the file",
        ),
    }
}
