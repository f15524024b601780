//! What only this backend does; the rest is in the contract suite.

use super::*;
use crate::{Queue, QueueKind, Topology};
use bytes::Bytes;

fn queue(name: &str) -> Topology {
    Topology {
        queues: vec![Queue {
            name: name.to_owned(),
            kind: QueueKind::Quorum,
            dead_letters: false,
        }],
        ..Topology::default()
    }
}

fn to(queue: &str, body: Bytes) -> Message {
    Message {
        routing_key: queue.to_owned(),
        mandatory: true,
        body,
        ..Message::default()
    }
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q")).await.unwrap();
    for _ in 0..MAX_QUEUED {
        bus.publish(to("q", Bytes::new())).await.unwrap();
    }
    let refused = bus.publish(to("q", Bytes::new())).await;
    assert!(matches!(refused, Err(BusError::Unavailable { .. })));
}

#[tokio::test]
async fn large_messages_fill_a_queue_too() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q")).await.unwrap();
    let body = Bytes::from(vec![0; crate::MAX_BODY_BYTES]);
    for _ in 0..MAX_QUEUED_BYTES / crate::MAX_BODY_BYTES {
        bus.publish(to("q", body.clone())).await.unwrap();
    }
    let refused = bus.publish(to("q", body)).await;
    assert!(matches!(refused, Err(BusError::Unavailable { .. })));
}

#[tokio::test]
async fn a_clone_closes_by_itself() {
    let first = MemoryBus::new();
    let second = first.clone();
    first.declare(&queue("q")).await.unwrap();
    let mut held = first.consume("q", 1).await.unwrap();
    second.publish(to("q", "x".into())).await.unwrap();
    let delivery = held.next().await.unwrap();
    first.close().await;
    assert!(held.next().await.is_none());
    assert!(delivery.ack().await.is_err());
    let mut other = second.consume("q", 1).await.unwrap();
    assert!(other.next().await.unwrap().redelivered);
}

#[tokio::test]
async fn what_expired_is_not_delivered() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q")).await.unwrap();
    let mut short = to("q", "short".into());
    short.properties.expiration_ms = Some(0);
    bus.publish(short).await.unwrap();
    bus.publish(to("q", "long".into())).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    assert_eq!(deliveries.next().await.unwrap().message.body, "long");
}
