//! Many tasks in the queue of an agent that is not there, and the agent that comes back to them.

use crate::agent::{doubled, effects};
use crate::stage::{ABSENT, Stage};
use futures_util::StreamExt;
use futures_util::stream;
use mesh_bus::{Bus, Message};
use mesh_protocol::names::EXCHANGE_TASKS;
use serde::Serialize;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Publishes that wait for their confirms at the same time.
const IN_FLIGHT: usize = 256;

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// How many lay in the queue.
    pub queued: usize,
    /// How many of them the agent has carried out.
    pub carried_out: usize,
    /// How many it has carried out more than once.
    pub doubled: usize,
}

/// Sends the agent's sidecar away and queues `count` tasks, in the form that publishers of the plan write.
///
/// # Panics
/// When the broker takes one of them not.
pub async fn queue(stage: &Stage, bus: &dyn Bus, count: usize) {
    stage.mesh.lock().await.kill(&sidecar()).await;
    stream::iter(0..count)
        .for_each_concurrent(IN_FLIGHT, async |number| {
            let body = json!({
                "task_id": format!("task_backlog_{number}"),
                "agent": ABSENT,
                "action": "count",
                "timestamp": "2025-01-01T00:00:00",
            });
            let message = Message {
                exchange: EXCHANGE_TASKS.to_owned(),
                routing_key: format!("task.{ABSENT}.execute"),
                body: body.to_string().into(),
                mandatory: true,
                ..Message::default()
            };
            bus.publish(message).await.expect("queue a task");
        })
        .await;
}

/// Lets the sidecar come back.
pub async fn come_back(stage: &Stage) {
    stage.mesh.lock().await.launch(&sidecar());
}

/// Waits until all `count` are carried out, and no longer than until `until`.
///
/// # Errors
/// The agent's log cannot be read.
pub async fn carried_out(stage: &Stage, count: usize, until: Instant) -> std::io::Result<Backlog> {
    loop {
        let effects = effects(&stage.log(ABSENT))?;
        let tasks: HashSet<&str> = effects.iter().map(|e| e.task.as_str()).collect();
        let backlog = Backlog {
            queued: count,
            carried_out: tasks.len(),
            doubled: doubled(&effects),
        };
        if backlog.carried_out >= count || Instant::now() > until {
            return Ok(backlog);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn sidecar() -> String {
    format!("sidecar {ABSENT}")
}
