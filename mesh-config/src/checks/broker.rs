//! Queues, exchanges and policies beyond the mesh's own.

use super::{error, warning};
use crate::compile::topology;
use crate::finding::{Finding, Place, nearest};
use crate::schema::{At, BrokerQueue, File};
use crate::secret::Source;
use mesh_bus::Topology;
use std::collections::BTreeMap;

pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let broker = &file.messaging.broker;
    names(
        "exchange",
        broker.exchanges.iter().map(|e| &e.value.name),
        out,
    );
    names("queue", broker.queues.iter().map(|q| &q.value.name), out);
    names("policy", broker.policies.iter().map(|p| &p.value.name), out);
    let agents = file.agents.iter();
    let own = if file.fronts_only {
        Topology::default()
    } else {
        topology(agents.filter_map(|a| Some(&a.value.id.as_ref()?.value)))
    };
    let own_exchanges: Vec<&str> = own.exchanges.iter().map(|e| e.name.as_str()).collect();
    for exchange in &broker.exchanges {
        if let Some(name) = &exchange.value.name
            && own_exchanges.contains(&name.value.as_str())
        {
            out.push(taken("exchange", name));
        }
    }
    for queue in &broker.queues {
        let Some(name) = &queue.value.name else {
            continue;
        };
        // Delay queues follow from an agent's delivery settings, and carry its queue's name.
        let delay = |own: &str| {
            let rest = name.value.strip_prefix(own);
            rest.is_some_and(|rest| rest.starts_with(".delay."))
        };
        if own
            .queues
            .iter()
            .any(|own| own.name == name.value || delay(&own.name))
        {
            out.push(taken("queue", name));
        }
        kept(queue, out);
    }
    let further = broker.exchanges.iter();
    let further = further.filter_map(|e| Some(e.value.name.as_ref()?.value.as_str()));
    let known: Vec<&str> = own_exchanges.iter().copied().chain(further).collect();
    for binding in broker.queues.iter().flat_map(|q| &q.value.bindings) {
        if let Some(exchange) = &binding.value.exchange
            && !known.contains(&exchange.value.as_str())
            && !exchange.value.starts_with("amq.")
        {
            let message = format!("{}: there is no exchange {}", exchange.path, exchange.value);
            let hint = match nearest(&exchange.value, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!(
                    "list it in messaging.exchanges; known: {}",
                    known.join(", ")
                ),
            };
            out.push(error("unknown_exchange", exchange, message).hint(hint));
        }
    }
    vhost(file, out);
    without_broker(file, out);
}

fn taken(what: &str, name: &At<String>) -> Finding {
    let message = format!("{}: {what} {} is the mesh's own", name.path, name.value);
    error("duplicate_name", name, message).hint("leave it out: it is declared anyhow")
}

fn names<'a>(
    what: &str,
    all: impl Iterator<Item = &'a Option<At<String>>>,
    out: &mut Vec<Finding>,
) {
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for name in all.flatten() {
        if let Some(first) = seen.insert(&name.value, name.place) {
            let message = format!(
                "{what} {} stands twice, first in line {}",
                name.value, first.line
            );
            out.push(error("duplicate_name", name, message).hint("keep one of them"));
        }
    }
}

/// What becomes of a queue when the broker restarts.
fn kept(queue: &At<BrokerQueue>, out: &mut Vec<Finding>) {
    let Some(durable) = queue.value.durable.as_ref().filter(|d| !d.value) else {
        return;
    };
    let arguments = queue.value.arguments.as_ref();
    let kind = arguments
        .and_then(|at| at.value.config.as_ref()?.get("x-queue-type")?.as_str())
        .unwrap_or("classic");
    out.push(if kind == "classic" {
        let message = format!("{}: the queue ends with the broker", durable.path);
        warning("transient_queue", durable, message)
            .hint("leave `durable` out; RabbitMQ 4 still makes such queues, and says that it will not for long")
    } else {
        let message = format!("{}: a {kind} queue is always durable", durable.path);
        error("conflict", durable, message).hint("leave `durable` out")
    });
}

/// Two places that name the virtual host.
fn vhost(file: &File, out: &mut Vec<Finding>) {
    let messaging = &file.messaging;
    if let (Some(vhost), Some(url)) = (&messaging.broker.vhost, &messaging.url)
        && let Source::Inline(text) = &url.value
        && let Some(place) = crate::broker_url::Place::of(text)
        && place.vhost != vhost.value
    {
        let message = format!("{} is not the virtual host of {}", vhost.path, url.path);
        out.push(error("conflict", vhost, message).hint("leave it out: the URL says it"));
    }
}

fn without_broker(file: &File, out: &mut Vec<Finding>) {
    let messaging = &file.messaging;
    if messaging
        .rabbitmq
        .as_ref()
        .is_none_or(|rabbit| rabbit.value)
    {
        return;
    }
    let broker = &messaging.broker;
    let first = broker.management.as_ref().map(|at| (at.place, &at.path));
    let first = first.or(broker.queues.first().map(|at| (at.place, &at.path)));
    let first = first.or(broker.exchanges.first().map(|at| (at.place, &at.path)));
    let first = first.or(broker.policies.first().map(|at| (at.place, &at.path)));
    if let Some((place, path)) = first {
        let message = format!("{path} has no effect with the memory backend");
        let finding = Finding::warning("no_effect", place, path.clone(), message);
        out.push(finding.hint("write `backend: rabbitmq`, or set RABBITMQ_URL"));
    }
}
