//! What `messaging:` says of the broker: where it is managed, and what it holds beyond the agents' own queues.

use super::filters::{Setting, setting};
use super::reader::{At, Fields, Reader, Spot};
use super::tree::Value;
use super::values;
use crate::broker::{ApplyTo, ExchangeKind};
use crate::finding::Finding;
use crate::secret::Source;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub vhost: Option<At<String>>,
    pub management: Option<At<Management>>,
    pub exchanges: Vec<At<Exchange>>,
    pub queues: Vec<At<Queue>>,
    pub policies: Vec<At<Policy>>,
}

#[derive(Debug)]
pub(crate) struct Management {
    pub url: Option<At<Url>>,
    pub credentials: Option<At<Source>>,
    pub ca: Option<At<String>>,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub name: Option<At<String>>,
    pub kind: Option<At<ExchangeKind>>,
    pub durable: Option<At<bool>>,
    pub auto_delete: Option<At<bool>>,
    pub internal: Option<At<bool>>,
    pub arguments: Option<At<Setting>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub name: Option<At<String>>,
    pub durable: Option<At<bool>>,
    pub auto_delete: Option<At<bool>>,
    pub arguments: Option<At<Setting>>,
    pub bindings: Vec<At<Binding>>,
}

#[derive(Debug)]
pub(crate) struct Binding {
    pub exchange: Option<At<String>>,
    pub key: Option<At<String>>,
    pub arguments: Option<At<Setting>>,
}

#[derive(Debug)]
pub(crate) struct Policy {
    pub name: Option<At<String>>,
    pub pattern: Option<At<String>>,
    pub apply_to: Option<At<ApplyTo>>,
    pub priority: Option<At<i32>>,
    pub definition: Option<At<Setting>>,
}

/// The fields of `messaging:` that are the broker's.
pub(super) fn broker(reader: &mut Reader<'_>, f: &mut Fields<'_>) -> Broker {
    Broker {
        vhost: f.optional(reader, "vhost", name),
        management: f.optional(reader, "management", management),
        exchanges: listed(f.optional(reader, "exchanges", |r, s| r.list(s, exchange))),
        queues: listed(f.optional(reader, "queues", |r, s| r.list(s, queue))),
        policies: listed(f.optional(reader, "policies", |r, s| r.list(s, policy))),
    }
}

fn listed<T>(at: Option<At<Vec<At<T>>>>) -> Vec<At<T>> {
    at.map(|at| at.value).unwrap_or_default()
}

fn management(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Management> {
    const EXAMPLE: &str = "http://127.0.0.1:15672";
    let mut f = reader.fields(spot)?;
    let url = values::open_url(&["http", "https"], EXAMPLE);
    let management = Management {
        url: f.required(reader, "url", EXAMPLE, url),
        credentials: f.optional(reader, "credentials", values::source),
        ca: f.optional(reader, "ca", values::text),
    };
    f.finish(reader);
    Some(management)
}

fn exchange(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Exchange> {
    let mut f = reader.fields(spot)?;
    let kinds = values::choice(ExchangeKind::ALL);
    let exchange = Exchange {
        name: f.required(reader, "name", "my.exchange", own_name),
        kind: f.required(reader, "type", "topic", kinds),
        durable: f.optional(reader, "durable", values::boolean),
        auto_delete: f.optional(reader, "auto_delete", values::boolean),
        internal: f.optional(reader, "internal", values::boolean),
        arguments: f.optional(reader, "arguments", object),
    };
    f.finish(reader);
    Some(exchange)
}

fn queue(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Queue> {
    let mut f = reader.fields(spot)?;
    let queue = Queue {
        name: f.required(reader, "name", "my.queue", own_name),
        durable: f.optional(reader, "durable", values::boolean),
        auto_delete: f.optional(reader, "auto_delete", values::boolean),
        arguments: f.optional(reader, "arguments", object),
        bindings: listed(f.optional(reader, "bindings", |r, s| r.list(s, binding))),
    };
    f.finish(reader);
    Some(queue)
}

fn binding(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Binding> {
    let mut f = reader.fields(spot)?;
    let binding = Binding {
        exchange: f.required(reader, "exchange", "ai.events", name),
        key: f.optional(reader, "key", name),
        arguments: f.optional(reader, "arguments", object),
    };
    f.finish(reader);
    Some(binding)
}

fn policy(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Policy> {
    let mut f = reader.fields(spot)?;
    let priorities = values::integer(-1_000_000..=1_000_000);
    let policy = Policy {
        name: f.required(reader, "name", "my-policy", name),
        pattern: f.required(reader, "pattern", "\"^agent[.]\"", values::text),
        apply_to: f.optional(reader, "apply_to", values::choice(ApplyTo::ALL)),
        priority: f.optional(reader, "priority", priorities),
        definition: f.required(reader, "definition", "{max-length: 1000}", filled_object),
    };
    f.finish(reader);
    Some(policy)
}

/// A name on the broker: AMQP's short string.
fn name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if text.len() <= 255 && !text.contains(char::is_control) {
        return Some(text);
    }
    let message = format!("{} cannot be a name on a broker", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 255 bytes, without control characters"));
    None
}

/// A name that somebody other than the broker may give.
fn own_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = name(reader, spot)?;
    if !text.starts_with("amq.") {
        return Some(text);
    }
    let message = format!(
        "{}: names that begin with `amq.` are the broker's",
        spot.path
    );
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("choose another name"));
    None
}

fn object(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Setting> {
    if !matches!(spot.node.value, Value::Map(_)) {
        reader.wrong_type(spot, "a mapping");
        return None;
    }
    setting(reader, spot)
}

fn filled_object(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Setting> {
    let setting = object(reader, spot)?;
    if setting.config.as_ref().is_some_and(|map| map.is_empty()) {
        let message = format!("{} is empty", spot.path);
        reader.push(Finding::error("empty", spot.node.place, spot.path, message));
        return None;
    }
    Some(setting)
}
