//! What was declared and is deleted while the connection stands, and a broker's word of it that is lost.

use crate::recovery::{connect, message, next, queue};
use mesh_bus::{Binding, Exchange, ExchangeKind, Message, Topology};
use mesh_tests::rabbitmq::{shared, shared_four};
use mesh_tests::within;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn exchange_and_queue() -> Topology {
    Topology {
        exchanges: vec![Exchange {
            name: "x".to_owned(),
            kind: ExchangeKind::Topic,
        }],
        bindings: vec![Binding {
            exchange: "x".to_owned(),
            queue: "q".to_owned(),
            key: "k.*".to_owned(),
        }],
        ..queue("q")
    }
}

fn to_exchange(body: &str) -> Message {
    Message {
        exchange: "x".to_owned(),
        routing_key: "k.a".to_owned(),
        ..message("q", body)
    }
}

#[tokio::test]
async fn a_deleted_exchange_is_declared_anew_by_who_publishes() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&exchange_and_queue()).await.unwrap();
    let mut deliveries = bus.consume("q", 10).await.unwrap();
    broker.delete_exchange(&url, "x").await;
    // Many miss it at the same time.
    let sent = (0..50).map(|number| bus.publish(to_exchange(&number.to_string())));
    let sent = sent.collect::<Vec<_>>();
    for sent in futures_util::future::join_all(sent).await {
        sent.unwrap();
    }
    for _ in 0..50 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    // What nothing was declared for stays unroutable.
    let nobody = Message {
        routing_key: "nobody".to_owned(),
        ..to_exchange("")
    };
    assert!(bus.publish(nobody).await.is_err());
}

#[tokio::test]
async fn a_deleted_queue_is_declared_anew_by_who_publishes() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&exchange_and_queue()).await.unwrap();
    for publish in [to_exchange("a"), message("q", "b")] {
        broker.delete_queue(&url, "q").await;
        bus.publish(publish).await.unwrap();
    }
}

/// Each of them hears of it, though the first that does declares the queue anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_consumers_of_a_deleted_queue_consume_again() {
    for broker in [shared().await, shared_four().await] {
        let url = broker.vhost().await;
        let mut consumers = Vec::new();
        for _ in 0..6 {
            let bus = connect(&url).await;
            bus.declare(&exchange_and_queue()).await.unwrap();
            let deliveries = bus.consume("q", 1).await.unwrap();
            consumers.push((bus, deliveries));
        }
        let publishes = connect(&url).await;
        publishes.declare(&exchange_and_queue()).await.unwrap();
        for _ in 0..3 {
            broker.delete_queue(&url, "q").await;
            for number in 0..consumers.len() {
                let sent = publishes.publish(to_exchange(&number.to_string()));
                within("a publish", sent).await.unwrap();
            }
            // One for each, since none acknowledges before all have one.
            let mut held = Vec::new();
            for (_, deliveries) in &mut consumers {
                held.push(next(deliveries).await);
            }
            for delivery in held {
                delivery.ack().await.unwrap();
            }
        }
    }
}

/// A way to the broker on `port` that loses each word of it that a consumer is over; the port where it begins, and how
/// many were lost.
async fn losing_way(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let begins = listener.local_addr().unwrap().port();
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_broker, mut to_broker) = broker.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
            });
            let lost = Arc::clone(&counted);
            tokio::spawn(async move {
                loop {
                    // A frame: type, channel, size; that many bytes, and one at the end.
                    let mut head = [0; 7];
                    if from_broker.read_exact(&mut head).await.is_err() {
                        return;
                    }
                    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
                    let mut rest = vec![0; size + 1];
                    if from_broker.read_exact(&mut rest).await.is_err() {
                        return;
                    }
                    // basic.cancel
                    if head[0] == 1 && rest.starts_with(&[0, 60, 0, 30]) {
                        lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let passed = [&head[..], &rest].concat();
                    if to_client.write_all(&passed).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (begins, lost)
}

#[tokio::test]
async fn a_consumer_that_did_not_hear_of_its_end_consumes_again() {
    let broker = shared().await;
    let url = broker.vhost().await;
    let (port, lost) = losing_way(broker.port()).await;
    let here = format!(":{}/", broker.port());
    let consumes = connect(&url.replace(&here, &format!(":{port}/"))).await;
    consumes.declare(&exchange_and_queue()).await.unwrap();
    let mut deliveries = consumes.consume("q", 1).await.unwrap();
    broker.delete_queue(&url, "q").await;
    mesh_tests::wait_for("the word to be lost", async || {
        lost.load(Ordering::Relaxed) == 1
    })
    .await;
    // Another part of the mesh declares the queue: messages come into it, and nobody takes them.
    let publishes = connect(&url).await;
    publishes.declare(&exchange_and_queue()).await.unwrap();
    publishes.publish(to_exchange("after")).await.unwrap();
    let held = within("the consumer to hear", next(&mut deliveries)).await;
    assert_eq!(&held.message.body[..], b"after");
    held.ack().await.unwrap();
}
