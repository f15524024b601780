//! What should not be said, said all the same: answers a second time, and answers for tasks that nobody knows.

use mesh_bus::{Binding, Bus, Message, Properties, Queue, QueueKind, Topology};
use mesh_protocol::Timestamp;
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::{EXCHANGE_COORDINATION, EXCHANGE_EVENTS, ORCHESTRATOR};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Where events come by.
const QUEUE: &str = "chaos.events";
/// One answer of so many is given twice.
const ONE_IN: u64 = 10;

/// How often it was said.
#[derive(Debug, Default)]
pub struct Said {
    /// Answers that were given a second time.
    pub twice: AtomicU64,
    /// Answers for tasks that there are none of.
    pub of_nothing: AtomicU64,
}

/// Says it until `stop`: whenever a step is completed, its agent may answer once more, and otherwise than before.
///
/// # Panics
/// When the broker cannot be reached at the beginning.
pub async fn say(bus: Arc<dyn Bus>, said: Arc<Said>, stop: CancellationToken) {
    let mut topology = Topology::exchanges();
    topology.queues.push(Queue {
        name: QUEUE.to_owned(),
        kind: QueueKind::Quorum,
        dead_letters: false,
    });
    topology.bindings.push(Binding {
        exchange: EXCHANGE_EVENTS.to_owned(),
        queue: QUEUE.to_owned(),
        key: String::new(),
    });
    bus.declare(&topology).await.expect("declare a queue");
    let mut events = bus.consume(QUEUE, 16).await.expect("consume events");
    let mut completed = 0_u64;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let Some(event) = event else { return };
        let about = serde_json::from_slice::<Event>(&event.message.body)
            .ok()
            .filter(|event| event.event_type == EventType::StepCompleted)
            .map(|event| event.data);
        if let Some(step) = about {
            completed += 1;
            if completed.is_multiple_of(ONE_IN) {
                again(&*bus, step, &said).await;
            }
        }
        // Lost with the connection, it comes again.
        let _later = event.ack().await;
    }
}

async fn again(bus: &dyn Bus, step: Value, said: &Said) {
    let now = Timestamp::now();
    let mut answer = json!({
        "task_id": step["task_id"],
        "step_id": step["step_id"],
        "agent": step["agent"],
        "status": "completed",
        "result": {"done": "another time"},
        "attempts": 1,
        "started_at": now,
        "finished_at": now,
    });
    if bus.publish(message(&answer)).await.is_ok() {
        said.twice.fetch_add(1, Ordering::Relaxed);
    }
    answer["task_id"] = Value::from("task_of_nobody");
    if bus.publish(message(&answer)).await.is_ok() {
        said.of_nothing.fetch_add(1, Ordering::Relaxed);
    }
}

fn message(answer: &Value) -> Message {
    Message {
        exchange: EXCHANGE_COORDINATION.to_owned(),
        routing_key: ORCHESTRATOR.to_owned(),
        body: answer.to_string().into(),
        mandatory: true,
        properties: Properties::default(),
    }
}
