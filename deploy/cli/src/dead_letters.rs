//! Dead letters of one queue, taken for a while: what is not settled otherwise goes back, in its order.
//!
//! A broker shows nobody what lies in a queue; it hands it out. So everything is taken at once, with nothing
//! acknowledged, and given back first come first: on a quorum queue what is given back keeps that order, on a classic
//! one it goes to its old place. A command that is killed meanwhile loses nothing, the broker takes all of it back.

use crate::screen::plain;
use anyhow::Context;
use mesh_bus::{Bus, BusError, Delivery, Trail};
use mesh_protocol::{AgentId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Most entries that are taken at once; what lies behind them is named by its number.
const MOST: u32 = 10_000;
/// Most bytes that are taken at once, since all of it is held in memory.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// How long the next entry may take to come; later somebody else has it.
const NEXT: Duration = Duration::from_secs(2);

/// Where dead letters of one service lie, and where they came from.
pub struct Place {
    pub service: String,
    pub dead: String,
    pub origin: String,
}

impl Place {
    pub fn of_agent(id: &AgentId) -> Self {
        Self {
            service: id.to_string(),
            dead: id.dead_queue(),
            origin: id.task_queue(),
        }
    }

    /// Where the orchestrator puts what came into the intake and is no task.
    pub fn of_intake() -> Self {
        Self {
            service: "intake".to_owned(),
            dead: mesh_protocol::names::QUEUE_PRIORITY_DEAD.to_owned(),
            origin: mesh_protocol::names::QUEUE_PRIORITY_TASKS.to_owned(),
        }
    }

    /// Where the orchestrator puts what is no result.
    pub fn of_orchestrator() -> Self {
        let name = mesh_protocol::names::ORCHESTRATOR;
        Self {
            service: name.to_owned(),
            dead: format!("agent.{name}.dead"),
            origin: format!("agent.{name}.coordination"),
        }
    }
}

/// What is told of a dead letter.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub agent: String,
    pub queue: String,
    pub task_id: Option<String>,
    pub step_id: Option<String>,
    pub reason: Option<String>,
    pub died: Option<Timestamp>,
    pub first_seen: Option<Timestamp>,
    pub retries: u32,
    pub calls: u32,
    pub replays: u32,
    pub history: Vec<Past>,
    pub idempotency_key: Option<String>,
    pub message_id: Option<String>,
    pub bytes: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct Past {
    pub at: Timestamp,
    pub reason: String,
}

/// A dead letter that is held.
pub struct Held {
    pub entry: Entry,
    delivery: Delivery,
}

/// The dead letters of a place that are held, the oldest first, and how many more there are.
pub struct Taken {
    pub held: Vec<Held>,
    pub more: u32,
}

/// Takes what lies at `place`; a queue that is not there is an empty one.
pub async fn take(bus: &dyn Bus, place: &Place) -> anyhow::Result<Taken> {
    let nothing = Taken {
        held: Vec::new(),
        more: 0,
    };
    let depth = match bus.depth(&place.dead).await {
        Ok(depth) => depth.messages,
        Err(BusError::NoQueue { .. }) => 0,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look into {}", place.dead));
        }
    };
    if depth == 0 {
        return Ok(nothing);
    }
    let wanted = depth.min(MOST);
    let prefetch = u16::try_from(wanted).unwrap_or(u16::MAX);
    let mut deliveries = bus.consume(&place.dead, prefetch).await?;
    let mut held = Vec::new();
    let mut bytes = 0;
    while held.len() < usize::from(prefetch) && bytes < MOST_BYTES {
        let Ok(Some(delivery)) = tokio::time::timeout(NEXT, deliveries.next()).await else {
            break;
        };
        bytes += delivery.message.body.len();
        held.push(Held {
            entry: Entry::of(place, &delivery),
            delivery,
        });
    }
    deliveries.stopper().cancel();
    // What was given back before may have come to us once more on its way, and lies behind the others then.
    held.sort_by_key(|one| one.entry.died);
    let taken = u32::try_from(held.len()).unwrap_or(u32::MAX);
    Ok(Taken {
        held,
        more: depth.saturating_sub(taken),
    })
}

/// Gives back what nobody wants to change, in its order.
pub async fn give_back(held: Vec<Held>) -> Result<(), BusError> {
    for one in held {
        one.delivery.give_back().await?;
    }
    Ok(())
}

impl Held {
    /// What the message says, without the bearer's token that it may hold.
    pub fn message(&self) -> Value {
        match serde_json::from_slice(&self.delivery.message.body) {
            Ok(Value::Object(mut message)) => {
                if let Some(assertion) = message.get_mut("assertion") {
                    *assertion = "***".into();
                }
                Value::Object(message)
            }
            Ok(other) => other,
            Err(_) => plain(&String::from_utf8_lossy(&self.delivery.message.body)).into(),
        }
    }

    /// Puts it back into the queue that it came from, as if nothing had befallen it.
    pub async fn replay(self) -> Result<(), BusError> {
        self.delivery.replay(&self.entry.queue).await
    }

    /// Takes it off for good.
    pub async fn discard(self) -> Result<(), BusError> {
        self.delivery.ack().await
    }
}

impl Entry {
    /// Whether the step's time was up before anybody took it: the broker's own word.
    pub fn is_expired(&self) -> bool {
        self.reason.as_deref() == Some("expired")
    }

    fn of(place: &Place, delivery: &Delivery) -> Self {
        let properties = &delivery.message.properties;
        let trail: Trail = properties.trail.as_deref().cloned().unwrap_or_default();
        let body: Value = serde_json::from_slice(&delivery.message.body).unwrap_or_default();
        let said = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            agent: place.service.clone(),
            queue: place.origin.clone(),
            task_id: said("task_id").or_else(|| properties.correlation_id.clone()),
            step_id: said("step_id"),
            reason: properties.reason.clone(),
            died: trail.dead_ms.map(Timestamp::from_millis),
            first_seen: trail.first_seen_ms.map(Timestamp::from_millis),
            retries: trail.retries,
            calls: trail.calls,
            replays: trail.replays,
            history: trail
                .history
                .into_iter()
                .map(|past| Past {
                    at: Timestamp::from_millis(past.at_ms),
                    reason: past.reason,
                })
                .collect(),
            idempotency_key: properties.idempotency_key.clone(),
            message_id: properties.message_id.clone(),
            bytes: delivery.message.body.len(),
        }
    }
}
