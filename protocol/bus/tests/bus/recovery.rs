//! Connections that break, brokers that go and come back, queues that vanish.

use mesh_bus::{Bus, BusConfig, Deliveries, Delivery, Message, Queue, QueueKind, Topology};
use mesh_tests::rabbitmq::{shared, start};
use mesh_tests::{wait_for, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub async fn connect(url: &str) -> Arc<dyn Bus> {
    let config = BusConfig::Rabbitmq {
        url: url.to_owned().try_into().unwrap(),
    };
    mesh_bus::connect(&config).await.unwrap()
}

pub fn queue(name: &str) -> Topology {
    Topology {
        queues: vec![Queue {
            name: name.to_owned(),
            kind: QueueKind::Quorum,
            dead_letters: false,
        }],
        ..Topology::default()
    }
}

pub fn message(queue: &str, body: &str) -> Message {
    Message {
        routing_key: queue.to_owned(),
        body: body.to_owned().into(),
        mandatory: true,
        ..Message::default()
    }
}

pub async fn next(deliveries: &mut Deliveries) -> Delivery {
    within("a delivery", deliveries.next()).await.unwrap()
}

async fn becomes(bus: &dyn Bus, connected: bool) {
    let mut state = bus.connected();
    let change = state.wait_for(|now| *now == connected);
    within("the connection to change", change).await.unwrap();
}

/// Publishes until it is taken: what an outage outlasts is the caller's to try again.
async fn insist(bus: &dyn Bus, queue: &str, body: &str) {
    while bus.publish(message(queue, body)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Acknowledges what comes until all `expected` bodies came at least once.
async fn collect(deliveries: &mut Deliveries, expected: &[String]) {
    let mut missing: Vec<&String> = expected.iter().collect();
    while !missing.is_empty() {
        let delivery = next(deliveries).await;
        missing.retain(|body| body.as_bytes() != delivery.message.body);
        // An acknowledgement that is lost with its connection brings the message again.
        let _ = delivery.ack().await;
    }
}

#[tokio::test]
async fn a_closed_connection_is_replaced() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    for round in 0..5 {
        bus.publish(message("q", "m")).await.unwrap();
        let held = next(&mut deliveries).await;
        broker.close_connections(&url).await;
        // What was unsettled comes again, over the new connection.
        let again = next(&mut deliveries).await;
        assert!(again.redelivered, "round {round}");
        assert!(held.ack().await.is_err());
        again.ack().await.unwrap();
    }
    becomes(&*bus, true).await;
}

#[tokio::test]
async fn publishing_goes_on_over_closed_connections() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let bodies: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let published = Arc::new(AtomicUsize::new(0));
    let publisher = {
        let (bus, bodies, published) = (bus.clone(), bodies.clone(), published.clone());
        tokio::spawn(async move {
            for body in bodies {
                bus.publish(message("q", &body)).await.unwrap();
                published.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for round in 1..10 {
        wait_for("publishing to go on", async || {
            published.load(Ordering::Relaxed) >= round * 30
        })
        .await;
        broker.close_connections(&url).await;
    }
    within("the publisher", publisher).await.unwrap();
    let mut deliveries = bus.consume("q", 10).await.unwrap();
    collect(&mut deliveries, &bodies).await;
}

/// Whatever it is that breaks every connection, it gets no hundred of them in a second.
#[tokio::test]
async fn connections_that_break_at_once_come_slower() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    let mut state = bus.connected();
    let begun = Instant::now();
    for _ in 0..6 {
        within("a connection", state.wait_for(|up| *up))
            .await
            .unwrap();
        broker.close_connections(&url).await;
        within("its loss", state.wait_for(|up| !*up)).await.unwrap();
    }
    within("a connection", state.wait_for(|up| *up))
        .await
        .unwrap();
    // 50 ms, and twice as much each time.
    assert!(begun.elapsed() >= Duration::from_millis(3150));
}

#[tokio::test]
async fn a_deleted_queue_is_declared_and_consumed_again() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    broker.delete_queue(&url, "q").await;
    let waiting = tokio::spawn(async move { next(&mut deliveries).await.ack().await });
    insist(&*bus, "q", "after").await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_broker_goes_and_comes_back() {
    let mut broker = start().await;
    let url = broker.url();
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let mut deliveries = bus.consume("q", 4).await.unwrap();

    // Stopped in the middle of consumption.
    let before: Vec<String> = (0..20).map(|number| format!("before {number}")).collect();
    for body in &before {
        bus.publish(message("q", body)).await.unwrap();
    }
    let held = next(&mut deliveries).await;
    broker.stop().await;
    becomes(&*bus, false).await;
    assert!(held.ack().await.is_err());

    // A part that starts while there is no broker waits for it.
    let late = connect(&url).await;
    assert!(!*late.connected().borrow());
    let publisher = {
        let bus = bus.clone();
        tokio::spawn(async move { insist(&*bus, "q", "during").await })
    };
    broker.start_again().await;
    becomes(&*late, true).await;
    let mut expected = before;
    expected.push("during".to_owned());
    within("the messages", collect(&mut deliveries, &expected)).await;
    publisher.await.unwrap();

    // Killed, and it comes back empty.
    broker.kill().await;
    becomes(&*bus, false).await;
    broker.forget();
    broker.start_again().await;
    becomes(&*bus, true).await;
    bus.publish(message("q", "anew")).await.unwrap();
    within(
        "the messages",
        collect(&mut deliveries, &["anew".to_owned()]),
    )
    .await;
    late.publish(message("q", "late")).await.unwrap();
    within(
        "the messages",
        collect(&mut deliveries, &["late".to_owned()]),
    )
    .await;
}
