//! Consuming and settling.

use super::*;
use crate::{BusError, Depth, Properties};
use mesh_protocol::names::{QUEUE_PRIORITY_DEAD, QUEUE_PRIORITY_TASKS};

pub async fn a_missing_queue_is_named(connect: &Connect) {
    let bus = connect().await;
    match bus.consume("nowhere", 1).await {
        Err(BusError::NoQueue { queue }) => assert_eq!(queue, "nowhere"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("consumes from a queue that is not there"),
    }
}

pub async fn prefetch_bounds_what_is_unsettled(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    for number in 0..5 {
        put(&*bus, "q", &number.to_string()).await;
    }
    let mut first = bus.consume("q", 2).await.unwrap();
    let held = [next(&mut first).await, next(&mut first).await];
    // The others are free for another consumer, so the first one holds no more than its two.
    assert_eq!(drain(&*bus, "q", 3).await, ["2", "3", "4"]);
    for delivery in held {
        delivery.ack().await.unwrap();
    }
    put(&*bus, "q", "5").await;
    assert_eq!(body(&next(&mut first).await), "5");
}

pub async fn an_acknowledged_message_is_gone(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "done").await;
    assert_eq!(drain(&*bus, "q", 1).await, ["done"]);
    bus.close().await;
    assert!(is_empty(&*connect().await, "q").await);
}

pub async fn what_is_given_back_comes_again(connect: &Connect) {
    let bus = connect().await;
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        let name = kind.as_str();
        bus.declare(&queue(name, kind)).await.unwrap();
        put(&*bus, name, "again").await;
        let mut deliveries = bus.consume(name, 1).await.unwrap();
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.redelivered);
        delivery.give_back().await.unwrap();
        let delivery = next(&mut deliveries).await;
        assert_eq!((body(&delivery), delivery.redelivered), ("again", true));
        delivery.ack().await.unwrap();
    }
}

pub async fn what_is_dropped_comes_again(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "again").await;
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    drop(next(&mut deliveries).await);
    let delivery = next(&mut deliveries).await;
    assert_eq!((body(&delivery), delivery.redelivered), ("again", true));
}

pub async fn a_dead_letter_carries_its_reason(connect: &Connect) {
    let bus = connect().await;
    let topology = with_dead_letters(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let mut sent = message("", "q", "no task");
    sent.properties.correlation_id = Some("task".to_owned());
    sent.properties.idempotency_key = Some("task:step".to_owned());
    sent.properties.expiration_ms = Some(600_000);
    bus.publish(sent).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    delivery.dead_letter("message is no task: ü").await.unwrap();
    drop(deliveries);

    let mut dead = bus.consume("dead", 1).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(body(&delivery), "no task");
    let properties = &delivery.message.properties;
    assert_eq!(properties.reason.as_deref(), Some("message is no task: ü"));
    assert_eq!(properties.correlation_id.as_deref(), Some("task"));
    assert_eq!(properties.idempotency_key.as_deref(), Some("task:step"));
    assert_eq!(properties.expiration_ms, None);
    assert!(is_empty(&*bus, "q").await);
}

pub async fn the_longest_headers_stay_beside_a_dead_letter(connect: &Connect) {
    let bus = connect().await;
    let topology = with_dead_letters(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let longest = || Some("v".repeat(crate::outgoing::MAX_HEADER_BYTES));
    let mut sent = message("", "q", "no task");
    sent.properties = Properties {
        idempotency_key: longest(),
        traceparent: longest(),
        tracestate: longest(),
        reason: longest(),
        ..Properties::default()
    };
    bus.publish(sent).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    delivery.dead_letter(&"r".repeat(2000)).await.unwrap();
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let properties = next(&mut dead).await.message.properties.clone();
    assert_eq!(properties.reason, Some("r".repeat(1024)));
    assert_eq!(properties.idempotency_key, longest());
    assert_eq!(properties.traceparent, longest());
    assert_eq!(properties.tracestate, longest());
}

pub async fn a_dead_letter_needs_a_place(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "kept").await;
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let outcome = delivery.dead_letter("why").await;
    assert!(
        matches!(outcome, Err(BusError::Unroutable { .. })),
        "{outcome:?}"
    );
    // Not lost for that.
    assert_eq!(body(&next(&mut deliveries).await), "kept");
}

pub async fn a_stopped_consumer_returns_what_it_did_not_hand_out(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    for number in 0..5 {
        put(&*bus, "q", &number.to_string()).await;
    }
    let mut deliveries = bus.consume("q", 5).await.unwrap();
    let held = next(&mut deliveries).await;
    deliveries.stopper().cancel();
    assert!(deliveries.next().await.is_none());
    assert_eq!(drain(&*bus, "q", 4).await, ["1", "2", "3", "4"]);
    held.ack().await.unwrap();
    drop(deliveries);
    assert!(is_empty(&*bus, "q").await);
}

pub async fn a_dropped_consumer_returns_everything(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    for number in 0..3 {
        put(&*bus, "q", &number.to_string()).await;
    }
    let mut deliveries = bus.consume("q", 3).await.unwrap();
    let held = next(&mut deliveries).await;
    drop(deliveries);
    drop(held);
    assert_eq!(drain(&*bus, "q", 3).await, ["0", "1", "2"]);
}

pub async fn consumers_share_a_queue(connect: &Connect) {
    let (here, there) = (connect().await, connect().await);
    here.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    let mut first = here.consume("q", 1).await.unwrap();
    let mut second = there.consume("q", 1).await.unwrap();
    for number in ["0", "1"] {
        put(&*here, "q", number).await;
    }
    let held = [next(&mut first).await, next(&mut second).await];
    let mut bodies = held.each_ref().map(body);
    bodies.sort_unstable();
    assert_eq!(bodies, ["0", "1"]);
}

pub async fn urgent_messages_come_first(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    for (priority, name) in [
        (Some(0), "low"),
        (Some(5), "first of five"),
        (Some(10), "high"),
        (Some(5), "second of five"),
        (None, "none"),
    ] {
        let mut sent = message("", "q", name);
        sent.properties.priority = priority;
        bus.publish(sent).await.unwrap();
    }
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    for expected in ["high", "first of five", "second of five", "low", "none"] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack().await.unwrap();
    }
}

pub async fn tasks_come_from_the_intake_by_priority(connect: &Connect) {
    let bus = connect().await;
    let topology = Topology::exchanges().with_intake(QueueKind::Quorum);
    for _ in 0..2 {
        bus.declare(&topology).await.unwrap();
    }
    for (priority, name) in [
        (1, "later"),
        (9, "soon"),
        (5, "then"),
        (9, "soon, too"),
        (0, "last"),
    ] {
        let mut sent = message("", QUEUE_PRIORITY_TASKS, name);
        sent.properties.priority = Some(priority);
        bus.publish(sent).await.unwrap();
    }
    let mut deliveries = bus.consume(QUEUE_PRIORITY_TASKS, 2).await.unwrap();
    let first = next(&mut deliveries).await;
    assert_eq!(body(&first), "soon");
    // What goes back keeps its place before what is less urgent.
    first.give_back().await.unwrap();
    drop(deliveries);
    let mut deliveries = bus.consume(QUEUE_PRIORITY_TASKS, 1).await.unwrap();
    for expected in ["soon", "soon, too", "then", "later"] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(body(&delivery), expected);
        delivery.ack().await.unwrap();
    }
    let bad = next(&mut deliveries).await;
    bad.dead_letter("no task").await.unwrap();
    let mut dead = bus.consume(QUEUE_PRIORITY_DEAD, 1).await.unwrap();
    let dead = next(&mut dead).await;
    assert_eq!(body(&dead), "last");
    assert_eq!(dead.message.properties.reason.as_deref(), Some("no task"));
    dead.ack().await.unwrap();
}

pub async fn what_comes_back_too_often_is_dead_lettered(connect: &Connect) {
    let bus = connect().await;
    let topology = with_dead_letters(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    put(&*bus, "q", "poison").await;
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let mut times = 0;
    let delivery = loop {
        tokio::select! {
            delivery = next(&mut deliveries) => {
                times += 1;
                // Given back in order it would come for ever, on RabbitMQ from 4.3 on.
                drop(delivery);
            }
            delivery = next(&mut dead) => break delivery,
        }
    };
    assert_eq!(body(&delivery), "poison");
    assert_eq!(times, crate::topology::DELIVERY_LIMIT + 1);
    let reason = delivery.message.properties.reason.as_deref();
    assert_eq!(reason, Some("delivery_limit"));
}

pub async fn a_closed_bus_returns_everything(connect: &Connect) {
    let (bus, other) = (connect().await, connect().await);
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "kept").await;
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let held = next(&mut deliveries).await;
    let connected = bus.connected();
    assert!(*connected.borrow());
    bus.close().await;
    assert!(!*connected.borrow());
    assert!(deliveries.next().await.is_none());
    assert!(matches!(
        held.ack().await,
        Err(BusError::Unavailable { .. })
    ));
    for outcome in [
        bus.publish(message("", "q", "late")).await,
        bus.declare(&queue("q", QueueKind::Quorum)).await,
    ] {
        assert!(
            matches!(outcome, Err(BusError::Unavailable { .. })),
            "{outcome:?}"
        );
    }
    let mut elsewhere = other.consume("q", 1).await.unwrap();
    let delivery = next(&mut elsewhere).await;
    assert_eq!((body(&delivery), delivery.redelivered), ("kept", true));
}

/// Waits until a look at `queue` finds that much.
async fn finds(bus: &dyn Bus, queue: &str, messages: u32, consumers: u32) {
    let wanted = Depth {
        messages,
        consumers,
    };
    let looks = async {
        loop {
            let found = bus.depth(queue).await.unwrap();
            if found == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GENEROUS, looks)
        .await
        .unwrap_or_else(|_| panic!("{queue} never had {wanted:?}"));
}

pub async fn a_look_at_a_queue_says_how_busy_it_is(connect: &Connect) {
    let (bus, other) = (connect().await, connect().await);
    for (name, kind) in [
        ("quorum", QueueKind::Quorum),
        ("classic", QueueKind::Classic),
    ] {
        bus.declare(&queue(name, kind)).await.unwrap();
        finds(&*bus, name, 0, 0).await;
        put(&*bus, name, "one").await;
        put(&*bus, name, "two").await;
        finds(&*bus, name, 2, 0).await;
        let mut first = bus.consume(name, 1).await.unwrap();
        let held = next(&mut first).await;
        // What was handed out waits no longer.
        finds(&*other, name, 1, 1).await;
        let mut second = other.consume(name, 1).await.unwrap();
        let held_too = next(&mut second).await;
        finds(&*bus, name, 0, 2).await;
        drop((second, held_too));
        finds(&*bus, name, 1, 1).await;
        first.stopper().cancel();
        held.ack().await.unwrap();
        finds(&*bus, name, 1, 0).await;
    }
    bus.close().await;
    let late = bus.depth("quorum").await;
    assert!(
        matches!(late, Err(BusError::Unavailable { .. })),
        "{late:?}"
    );
}

pub async fn a_look_at_no_queue_says_so(connect: &Connect) {
    let bus = connect().await;
    match bus.depth("nowhere").await {
        Err(BusError::NoQueue { queue }) => assert_eq!(queue, "nowhere"),
        other => panic!("{other:?}"),
    }
    // What was refused costs nobody anything.
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "all the same").await;
    assert_eq!(drain(&*bus, "q", 1).await, ["all the same"]);
}
