//! `orchestrator:`, `messaging:` and `store:` as they are written.

use super::broker::{Broker, broker};
use super::delivery::{Delivery, Overflow, QUEUE_KINDS, delivery};
use super::gateway::filled;
use super::ollama::{Ollama, ollama};
use super::reader::{At, Reader, Spot};
use super::resources::{Amount, resources};
use super::services::{Sidecar, Ways, sidecar};
use super::tree::{Node, Value};
use super::values;
use crate::finding::Finding;
use crate::secret::Source;
use mesh_bus::QueueKind;
use mesh_orchestrator::config::OnFailure;
use mesh_protocol::AgentId;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Default)]
pub(crate) struct Orchestrator {
    pub listen: Option<At<SocketAddr>>,
    pub sidecar: Option<At<Sidecar>>,
    pub resources: Option<At<Vec<At<Amount>>>>,
    pub planner: Planner,
    pub max_body: Option<At<usize>>,
    pub max_wait: Option<At<Duration>>,
    pub max_runs: Option<At<usize>>,
    pub step_timeout: Option<At<Duration>>,
    pub on_failure: Option<At<OnFailure>>,
}

#[derive(Debug, Default)]
pub(crate) struct Planner {
    pub rules: Option<Vec<At<Rule>>>,
    pub general_agent: Option<At<AgentId>>,
    pub ollama: Option<At<Ollama>>,
    pub max_steps: Option<At<usize>>,
    pub max_width: Option<At<usize>>,
}

/// A task type and the names of its agents.
#[derive(Debug)]
pub(crate) struct Rule {
    pub task_type: String,
    pub agents: Vec<At<AgentId>>,
}

#[derive(Debug, Default)]
pub(crate) struct Messaging {
    pub rabbitmq: Option<At<bool>>,
    pub url: Option<At<Source>>,
    pub queue_kind: Option<At<QueueKind>>,
    pub max_length: Option<At<u32>>,
    pub overflow: Option<At<Overflow>>,
    pub consumer_timeout: Option<At<Duration>>,
    pub state_dir: Option<At<String>>,
    pub delivery: Option<At<Delivery>>,
    pub broker: Broker,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub redis: Option<At<bool>>,
    pub url: Option<At<Source>>,
    pub retention: Option<At<Duration>>,
}

pub(super) fn orchestrator(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Orchestrator> {
    let mut f = reader.fields(spot)?;
    let mut out = Orchestrator {
        listen: f.optional(reader, "listen", values::listen),
        sidecar: f.optional(reader, "sidecar", sidecar(Ways::In)),
        resources: f.optional(reader, "resources", resources),
        ..Orchestrator::default()
    };
    if let Some(planner) = f.optional(reader, "planner", planner) {
        out.planner = planner.value;
    }
    f.optional(reader, "limits", |reader, spot| {
        let mut f = reader.fields(spot)?;
        // Steps carry the payload, and RabbitMQ refuses messages above 16 MiB (its default in 4.x).
        let bodies = 1024..=8 * 1024 * 1024;
        out.max_body = f.optional(reader, "max_body", values::size(bodies));
        let waits = Duration::from_secs(1)..=Duration::from_secs(3600);
        out.max_wait = f.optional(reader, "max_wait", values::duration(waits));
        out.max_runs = f.optional(reader, "max_runs", values::integer(1..=1_000_000));
        f.finish(reader);
        Some(())
    });
    f.optional(reader, "steps", |reader, spot| {
        const ON_FAILURE: &[(&str, OnFailure)] = &[
            ("fail_task", OnFailure::FailTask),
            ("continue", OnFailure::Continue),
        ];
        let mut f = reader.fields(spot)?;
        let bounds = Duration::from_millis(1)..=DAY;
        out.step_timeout = f.optional(reader, "timeout", values::duration(bounds));
        out.on_failure = f.optional(reader, "on_failure", values::choice(ON_FAILURE));
        f.finish(reader);
        Some(())
    });
    f.finish(reader);
    Some(out)
}

fn planner(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Planner> {
    let mut f = reader.fields(spot)?;
    let planner = Planner {
        rules: f.optional(reader, "rules", rules).map(|r| r.value),
        general_agent: f.optional(reader, "general_agent", values::agent_id),
        ollama: f.optional(reader, "ollama", ollama),
        max_steps: f.optional(reader, "max_steps", values::integer(1..=1000)),
        max_width: f.optional(reader, "max_width", values::integer(1..=1000)),
    };
    f.finish(reader);
    Some(planner)
}

fn rules(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<Rule>>> {
    reader.entries(spot, "^[A-Za-z0-9._-]+$", |reader, key, spot| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        reader.open_at(key.place);
        let agents = filled(reader, spot, values::agent_id);
        if key.text.is_empty() || !key.text.bytes().all(legal) {
            let message = format!("`{}` cannot be a task type", key.text);
            let finding = Finding::error("invalid_name", key.place, spot.path, message);
            reader.push(finding.hint("letters, digits, '.', '_' and '-'"));
            return None;
        }
        let rule = Rule {
            task_type: key.text.clone(),
            agents: agents.unwrap_or_default(),
        };
        Some(At {
            value: rule,
            place: key.place,
            path: spot.path.to_owned(),
        })
    })
}

pub(super) fn messaging(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Messaging> {
    const BACKENDS: &[(&str, bool)] = &[("memory", false), ("rabbitmq", true)];
    // RabbitMQ looks once a minute: less would mean no less.
    let timeouts = Duration::from_secs(60)..=DAY;
    let mut f = reader.fields(spot)?;
    let messaging = Messaging {
        rabbitmq: f.required(reader, "backend", "memory", values::choice(BACKENDS)),
        url: f.optional(reader, "url", |r, s| {
            inline_url(r, s, &["amqp", "amqps"], "amqp://127.0.0.1:5672")
        }),
        queue_kind: f.optional(reader, "queue_kind", values::choice(QUEUE_KINDS)),
        max_length: f.optional(reader, "max_length", values::integer(1..=1_000_000_000)),
        overflow: f.optional(reader, "overflow", values::choice(Overflow::ALL)),
        consumer_timeout: f.optional(reader, "consumer_timeout", values::duration(timeouts)),
        state_dir: f.optional(reader, "state_dir", values::text),
        delivery: f.optional(reader, "delivery", delivery),
        broker: broker(reader, &mut f),
    };
    f.finish(reader);
    Some(messaging)
}

pub(super) fn store(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Store> {
    const BACKENDS: &[(&str, bool)] = &[("memory", false), ("redis", true)];
    let mut f = reader.fields(spot)?;
    let retentions = Duration::from_secs(1)..=DAY * 366;
    let store = Store {
        redis: f.required(reader, "backend", "memory", values::choice(BACKENDS)),
        url: f.optional(reader, "url", |r, s| {
            inline_url(r, s, &["redis", "rediss"], "redis://127.0.0.1:6379")
        }),
        retention: f.optional(reader, "retention", values::duration(retentions)),
    };
    f.finish(reader);
    Some(store)
}

/// A source whose value, where it stands in the file, must be a URL.
fn inline_url(
    reader: &mut Reader<'_>,
    spot: Spot<'_>,
    schemes: &'static [&'static str],
    example: &'static str,
) -> Option<Source> {
    if let Node {
        value: Value::Text(_),
        variables: None,
        ..
    } = spot.node
    {
        values::url(schemes, example)(reader, spot)?;
    }
    values::source(reader, spot)
}
