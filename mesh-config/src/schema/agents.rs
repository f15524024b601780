//! `agents:` as it is written.

use super::container::{Container, container};
use super::delivery::{Delivery, QUEUE_KINDS, delivery};
use super::gateway::filled;
use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::resources::{Amount, resources};
use super::services::{Sidecar, Traffic, Ways, health, sidecar, traffic};
use super::values;
use crate::finding::Finding;
use crate::mesh::Builtin;
use mesh_bus::QueueKind;
use mesh_protocol::AgentId;
use mesh_sidecar::config::Health;
use std::time::Duration;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Agent {
    pub id: Option<At<AgentId>>,
    pub capabilities: Vec<At<String>>,
    pub description: Option<At<String>>,
    pub endpoint: Option<At<Url>>,
    pub run: Option<At<Run>>,
    pub concurrency: Option<At<u16>>,
    pub timeout: Option<At<Duration>>,
    pub attempts: Option<At<u32>>,
    pub pause: Option<At<Duration>>,
    pub queue_kind: Option<At<QueueKind>>,
    pub delivery: Option<At<Delivery>>,
    pub sidecar: Option<At<Sidecar>>,
    pub health: Option<At<Health>>,
    pub traffic: Option<At<Traffic>>,
    pub resources: Option<At<Vec<At<Amount>>>>,
    pub container: Option<At<Container>>,
}

#[derive(Debug, Default)]
pub(crate) struct Run {
    pub builtin: Option<At<Builtin>>,
    pub command: Option<At<Vec<At<String>>>>,
    pub dir: Option<At<String>>,
}

pub(super) fn agent(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Agent> {
    let mut f = reader.fields(spot)?;
    let calls = Duration::from_millis(1)..=DAY;
    let mut agent = Agent {
        id: f.required(reader, "id", "my-agent", values::agent_id),
        capabilities: f
            .optional(reader, "capabilities", |r, s| r.list(s, values::text))
            .map(|c| c.value)
            .unwrap_or_default(),
        description: f.optional(reader, "description", values::text),
        endpoint: f.optional(reader, "endpoint", endpoint),
        run: f.optional(reader, "run", run),
        concurrency: f.optional(reader, "concurrency", values::integer(1..=1000)),
        timeout: f.optional(reader, "timeout", values::duration(calls)),
        queue_kind: f.optional(reader, "queue_kind", values::choice(QUEUE_KINDS)),
        delivery: f.optional(reader, "delivery", delivery),
        sidecar: f.optional(reader, "sidecar", sidecar(Ways::Both)),
        health: f.optional(reader, "health", health),
        traffic: f.optional(reader, "traffic", traffic),
        resources: f.optional(reader, "resources", resources),
        container: f.optional(reader, "container", container),
        ..Agent::default()
    };
    f.optional(reader, "retries", |reader, spot| {
        let mut f = reader.fields(spot)?;
        agent.attempts = f.optional(reader, "attempts", values::integer(1..=20));
        let pauses = Duration::from_millis(1)..=Duration::from_secs(60);
        agent.pause = f.optional(reader, "pause", values::duration(pauses));
        f.finish(reader);
        Some(())
    });
    f.finish(reader);
    Some(agent)
}

/// Where the agent's sidecar finds it: beside itself, by address, since it resolves no name.
fn endpoint(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Url> {
    const EXAMPLE: &str = "http://127.0.0.1:8080";
    let url = values::open_url(&["http"], EXAMPLE)(reader, spot)?;
    if let Some(url::Host::Domain(name)) = url.host()
        && name != "localhost"
    {
        let message = format!("{}: the name {name} is not resolved", spot.path);
        let finding = Finding::error("invalid_url", spot.node.place, spot.path, message);
        reader.push(finding.hint(format!("write the address in figures, such as {EXAMPLE}")));
        return None;
    }
    Some(url)
}

fn run(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Run> {
    let mut f = reader.fields(spot)?;
    let run = Run {
        builtin: f.optional(reader, "builtin", values::choice(&Builtin::ALL)),
        command: f.optional(reader, "command", |r, s| filled(r, s, values::text)),
        dir: f.optional(reader, "dir", values::text),
    };
    // A builtin that is misspelt was reported; reporting it as absent too would only confuse.
    let named = f
        .names()
        .any(|k| matches!(k.text.as_str(), "builtin" | "command"));
    f.finish(reader);
    if !named {
        let message = format!("{} names neither builtin nor command", spot.path);
        reader.error("missing", spot, message);
        return None;
    }
    Some(run)
}
