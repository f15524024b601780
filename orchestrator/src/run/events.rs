//! Changes of state on `ai.events`: best effort. A run never waits for them.

use crate::metrics::Metrics;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_bus::{Bus, Message, Properties};
use mesh_protocol::event::Event;
use mesh_protocol::names::EXCHANGE_EVENTS;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be published: a burst of some hundred tasks. What comes on top is dropped and
/// counted, since listeners can ask the API for what they missed.
const QUEUE: usize = 4096;
/// Publishes that wait for the broker's confirm at the same time; leaves the broker to the steps.
const IN_FLIGHT: usize = 16;

/// Where runs put their events.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Arc<Event>>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// A queue, and its end for [`publish`].
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Arc<Event>>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, metrics }, receiver)
    }

    /// Hands over `events`, dropping what has no room.
    pub fn send(&self, events: impl IntoIterator<Item = Arc<Event>>) {
        for event in events {
            if self.queue.try_send(event).is_err() {
                self.metrics.events_dropped.inc();
            }
        }
    }
}

/// Publishes what comes until `stop`.
pub async fn publish(
    bus: Arc<dyn Bus>,
    mut queue: mpsc::Receiver<Arc<Event>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut going = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(published) = going.next(), if !going.is_empty() => {
                if published {
                    metrics.events_published.inc();
                } else {
                    metrics.events_dropped.inc();
                }
            }
            event = queue.recv(), if going.len() < IN_FLIGHT => {
                let Some(event) = event else { return };
                let bus = Arc::clone(&bus);
                going.push(async move {
                    match message(&event) {
                        Some(message) => bus.publish(message).await.is_ok(),
                        None => false,
                    }
                });
            }
        }
    }
}

fn message(event: &Event) -> Option<Message> {
    let task = event
        .data
        .get("task_id")
        .and_then(serde_json::Value::as_str);
    Some(Message {
        exchange: EXCHANGE_EVENTS.to_owned(),
        routing_key: event.event_type.as_str().to_owned(),
        body: Bytes::from(serde_json::to_vec(event).ok()?),
        mandatory: false,
        properties: Properties {
            correlation_id: task.map(str::to_owned),
            ..Properties::default()
        },
    })
}
