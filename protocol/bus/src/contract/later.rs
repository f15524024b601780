//! Putting off, dead letters and their replay, and the count of deliveries that failed.

use super::*;
use crate::{BusError, Trail, delays};

const DELAY_MS: u32 = 250;

fn with_delays(kind: QueueKind) -> Topology {
    with_dead_letters(kind).with_delays("q", kind, &delays(DELAY_MS.into(), 2_000))
}

fn befallen(reason: &str) -> Trail {
    let mut trail = Trail {
        retries: 1,
        calls: 3,
        first_seen_ms: Some(7),
        ..Trail::default()
    };
    trail.note(8, reason);
    trail
}

pub async fn what_is_put_off_comes_back_later(connect: &Connect) {
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        // A broker of its own for each, so that the queue can be of another kind.
        let name = kind.as_str();
        let bus = connect().await;
        let topology = queue(name, kind).with_delays(name, kind, &[DELAY_MS]);
        bus.declare(&topology).await.unwrap();
        bus.declare(&topology).await.unwrap();
        let mut sent = message("", name, "later");
        sent.properties.correlation_id = Some("task".to_owned());
        sent.properties.idempotency_key = Some("task:step".to_owned());
        sent.properties.expiration_ms = Some(600_000);
        bus.publish(sent).await.unwrap();
        let mut deliveries = bus.consume(name, 1).await.unwrap();
        let begun = std::time::Instant::now();
        let trail = befallen("busy");
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message.properties.trail, None);
        delivery.put_off(DELAY_MS, trail.clone()).await.unwrap();
        let delivery = next(&mut deliveries).await;
        // Never sooner; how much later is the machine's business.
        assert!(begun.elapsed() >= Duration::from_millis(DELAY_MS.into()));
        assert_eq!(body(&delivery), "later");
        assert!(!delivery.redelivered);
        let properties = &delivery.message.properties;
        assert_eq!(properties.trail.as_deref(), Some(&trail));
        assert_eq!(properties.correlation_id.as_deref(), Some("task"));
        assert_eq!(properties.idempotency_key.as_deref(), Some("task:step"));
        // Again, by the same queue: a broker must not take it for a circle.
        delivery.put_off(DELAY_MS, trail.clone()).await.unwrap();
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        drop(deliveries);
        assert!(is_empty(&*bus, name).await);
    }
}

pub async fn what_waits_long_holds_up_nothing(connect: &Connect) {
    let bus = connect().await;
    let topology = with_delays(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    for name in ["long", "short", "none"] {
        put(&*bus, "q", name).await;
    }
    let mut deliveries = bus.consume("q", 3).await.unwrap();
    let long = next(&mut deliveries).await;
    let short = next(&mut deliveries).await;
    let none = next(&mut deliveries).await;
    long.put_off(2_000, Trail::default()).await.unwrap();
    short.put_off(DELAY_MS, Trail::default()).await.unwrap();
    none.ack().await.unwrap();
    for expected in ["short", "long"] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack().await.unwrap();
    }
}

pub async fn a_delay_has_to_be_declared(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "kept").await;
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let outcome = delivery.put_off(DELAY_MS, Trail::default()).await;
    assert!(
        matches!(outcome, Err(BusError::Unroutable { .. })),
        "{outcome:?}"
    );
    assert_eq!(body(&next(&mut deliveries).await), "kept");
}

/// Makes a dead letter of `body` in the queue `q`.
async fn bury(bus: &dyn Bus, text: &str, trail: Trail) {
    let mut sent = message("", "q", text);
    sent.properties.trail = Some(Box::new(trail));
    bus.publish(sent).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(body(&delivery), text);
    delivery.dead_letter("in the end").await.unwrap();
}

pub async fn a_dead_letter_tells_what_befell_it(connect: &Connect) {
    let bus = connect().await;
    let topology = with_delays(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    bury(&*bus, "dead", befallen("busy")).await;
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let delivery = next(&mut dead).await;
    let properties = &delivery.message.properties;
    assert_eq!(properties.reason.as_deref(), Some("in the end"));
    assert_eq!(delivery.message.routing_key, "q");
    let trail = properties.trail.as_ref().unwrap();
    assert_eq!((trail.retries, trail.calls), (1, 3));
    assert!(trail.dead_ms.is_some());
    let reasons: Vec<&str> = trail.history.iter().map(|m| m.reason.as_str()).collect();
    assert_eq!(reasons, ["busy", "in the end"]);
}

pub async fn a_dead_letter_is_replayed(connect: &Connect) {
    let bus = connect().await;
    let topology = with_delays(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    bury(&*bus, "again", befallen("busy")).await;
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let delivery = next(&mut dead).await;
    let gone = delivery.replay("nowhere").await;
    assert!(matches!(gone, Err(BusError::Unroutable { .. })), "{gone:?}");
    let delivery = next(&mut dead).await;
    delivery.replay("q").await.unwrap();
    drop(dead);
    assert!(is_empty(&*bus, "dead").await);
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(body(&delivery), "again");
    let properties = &delivery.message.properties;
    assert_eq!(properties.reason, None);
    let fresh = Trail {
        replays: 1,
        ..Trail::default()
    };
    assert_eq!(properties.trail.as_deref(), Some(&fresh));
    assert!(!delivery.redelivered);
}

pub async fn dead_letters_stay_however_often_they_are_looked_at(connect: &Connect) {
    let bus = connect().await;
    let topology = with_delays(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    for text in ["first", "second"] {
        bury(&*bus, text, Trail::default()).await;
    }
    for _ in 0..crate::DELIVERY_LIMIT + 5 {
        let mut dead = bus.consume("dead", 2).await.unwrap();
        let held = [next(&mut dead).await, next(&mut dead).await];
        assert_eq!(held.each_ref().map(body), ["first", "second"]);
        for delivery in held {
            delivery.give_back().await.unwrap();
        }
    }
}

pub async fn whoever_ends_is_counted(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("quorum", QueueKind::Quorum))
        .await
        .unwrap();
    bus.declare(&queue("classic", QueueKind::Classic))
        .await
        .unwrap();
    for (name, counted) in [("quorum", true), ("classic", false)] {
        put(&*bus, name, "poison").await;
        let mut deliveries = bus.consume(name, 1).await.unwrap();
        for crashes in 0..3 {
            let delivery = next(&mut deliveries).await;
            assert_eq!(delivery.crashes, if counted { crashes } else { 0 });
            drop(delivery);
        }
    }
}

pub async fn a_full_queue_refuses_and_drops_nothing(connect: &Connect) {
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        let bus = connect().await;
        let topology = exchange(mesh_protocol::names::EXCHANGE_DEAD, ExchangeKind::Direct);
        let mut topology = topology.bounded(Some(2));
        let name = kind.as_str().to_owned();
        topology.queues.push(Queue {
            name: name.clone(),
            kind,
            dead_letters: true,
        });
        bus.declare(&topology).await.unwrap();
        // A quorum queue may take some more before it says that it is full.
        let mut taken = Vec::new();
        let refused = loop {
            let text = taken.len().to_string();
            match bus.publish(message("", &name, &text)).await {
                Ok(()) if taken.len() < 1_000 => taken.push(text),
                other => break other,
            }
        };
        assert!(
            matches!(refused, Err(BusError::Unavailable { .. })),
            "{refused:?}"
        );
        assert!(taken.len() >= 2);
        let mut deliveries = bus.consume(&name, 1).await.unwrap();
        for text in taken {
            let delivery = next(&mut deliveries).await;
            assert_eq!(body(&delivery), text);
            delivery.ack().await.unwrap();
        }
    }
}
