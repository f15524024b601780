//! What should not be said, said all the same: results a second time, and results of tasks that nobody knows.

use mesh_bus::{Binding, Bus, Delivery, Message, Queue, QueueKind, Topology};
use mesh_protocol::names::{EXCHANGE_COORDINATION, ORCHESTRATOR};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Where the copies of results come by.
const QUEUE: &str = "chaos.copies";
/// One result of so many is said twice.
const ONE_IN: u64 = 10;

/// How often it was said.
#[derive(Debug, Default)]
pub struct Said {
    /// Results that were said a second time.
    pub twice: AtomicU64,
    /// Results of tasks that there are none of.
    pub of_nothing: AtomicU64,
}

/// Says it until `stop`.
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
        exchange: EXCHANGE_COORDINATION.to_owned(),
        queue: QUEUE.to_owned(),
        key: ORCHESTRATOR.to_owned(),
    });
    bus.declare(&topology).await.expect("declare a queue");
    let mut copies = bus.consume(QUEUE, 16).await.expect("consume the copies");
    let mut seen = 0_u64;
    loop {
        let copy = tokio::select! {
            () = stop.cancelled() => return,
            copy = copies.next() => copy,
        };
        let Some(copy) = copy else { return };
        seen += 1;
        // What is said here comes back as a copy as well, and is not said a third time.
        if seen.is_multiple_of(ONE_IN)
            && copy.message.properties.message_id.as_deref() != Some(MARK)
        {
            again(&*bus, &copy, &said).await;
        }
        // Lost with the connection, it comes again.
        let _later = copy.ack().await;
    }
}

/// Marks what was said here.
const MARK: &str = "chaos";

async fn again(bus: &dyn Bus, copy: &Delivery, said: &Said) {
    let mut message = Message {
        exchange: EXCHANGE_COORDINATION.to_owned(),
        routing_key: ORCHESTRATOR.to_owned(),
        ..copy.message.clone()
    };
    message.properties.message_id = Some(MARK.to_owned());
    if bus.publish(message.clone()).await.is_ok() {
        said.twice.fetch_add(1, Ordering::Relaxed);
    }
    if let Ok(mut result) = serde_json::from_slice::<Value>(&message.body) {
        result["task_id"] = Value::from("task_of_nobody");
        message.body = result.to_string().into();
        if bus.publish(message).await.is_ok() {
            said.of_nothing.fetch_add(1, Ordering::Relaxed);
        }
    }
}
