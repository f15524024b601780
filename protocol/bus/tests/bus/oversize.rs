//! Messages that are as large as a broker lets through, and then have something added.

use crate::rabbitmq::foreign;
use crate::recovery::{connect, message, next};
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use mesh_bus::{Binding, BusError, Exchange, ExchangeKind, Message, Queue, QueueKind, Topology};
use mesh_protocol::names::EXCHANGE_DEAD;
use mesh_tests::rabbitmq::{Broker, shared, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

/// A queue `q` of `kind`; its dead letters go to `dead`.
pub fn with_dead_letters(kind: QueueKind) -> Topology {
    let queue = |name: &str, kind, dead_letters| Queue {
        name: name.to_owned(),
        kind,
        dead_letters,
    };
    Topology {
        exchanges: vec![Exchange {
            name: EXCHANGE_DEAD.to_owned(),
            kind: ExchangeKind::Direct,
        }],
        queues: vec![
            queue("q", kind, true),
            queue("dead", QueueKind::Classic, false),
        ],
        bindings: vec![Binding {
            exchange: EXCHANGE_DEAD.to_owned(),
            queue: "dead".to_owned(),
            key: "q".to_owned(),
        }],
        ..Topology::default()
    }
}

/// One header of `bytes` bytes and a short one.
pub fn filled(bytes: usize) -> BasicProperties {
    let mut headers = FieldTable::default();
    let long = LongString::from("v".repeat(bytes));
    headers.insert("h".into(), AMQPValue::LongString(long));
    headers.insert("tenant".into(), AMQPValue::LongString("a".into()));
    BasicProperties::default().with_headers(headers)
}

/// The reason does not fit beside them any more, and a frame that is too large costs the connection.
#[tokio::test]
async fn headers_that_fill_a_frame_cost_no_connection() {
    // In frames as large as the publisher's they make room for the reason; in our own, smaller ones
    // they do not arrive.
    for (kind, frames) in [
        (QueueKind::Quorum, "?frame_max=131072"),
        (QueueKind::Classic, "?frame_max=131072"),
        (QueueKind::Quorum, ""),
        (QueueKind::Classic, ""),
    ] {
        let url = shared().await.vhost().await;
        let bus = connect(&format!("{url}{frames}")).await;
        bus.declare(&with_dead_letters(kind)).await.unwrap();
        let (_connection, channel) = foreign(&url).await;
        for bytes in [130_000, 130_980, 131_000] {
            let options = BasicPublishOptions::default();
            channel
                .basic_publish("".into(), "q".into(), options, b"zzz", filled(bytes))
                .await
                .unwrap();
        }
        let mut state = bus.connected();
        state.mark_unchanged();
        let mut deliveries = bus.consume("q", 10).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(next(&mut deliveries).await);
        }
        for delivery in held {
            delivery.dead_letter("message is no JSON").await.unwrap();
        }
        let mut dead = bus.consume("dead", 1).await.unwrap();
        for _ in 0..3 {
            let delivery = next(&mut dead).await;
            assert_eq!(delivery.message.body, "zzz");
            let reason = delivery.message.properties.reason.clone().unwrap();
            assert!(reason.starts_with("message is no JSON"), "{reason}");
            assert_eq!(
                reason.contains("did not fit: 1"),
                !frames.is_empty(),
                "{reason}"
            );
            delivery.ack().await.unwrap();
        }
        assert!(!state.has_changed().unwrap(), "the connection was lost");
    }
}

/// A broker with small frames.
async fn strict() -> &'static Broker {
    static STRICT: OnceCell<Broker> = OnceCell::const_new();
    STRICT
        .get_or_init(async || {
            let broker = start().await;
            let small = "application:set_env(rabbit, frame_max, 8192).";
            broker.eval(small.to_owned()).await;
            broker
        })
        .await
}

fn with_long_headers() -> Message {
    let mut sent = message("q", "m");
    let long = Some("v".repeat(4000));
    sent.properties.idempotency_key.clone_from(&long);
    sent.properties.traceparent.clone_from(&long);
    sent.properties.tracestate = long;
    sent
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_too_large() {
    let broker = strict().await;
    let url = broker.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&with_dead_letters(QueueKind::Quorum))
        .await
        .unwrap();
    let mut state = bus.connected();
    state.mark_unchanged();
    let outcome = bus.publish(with_long_headers()).await;
    assert!(
        matches!(outcome, Err(BusError::TooLarge { .. })),
        "{outcome:?}"
    );
    assert!(!state.has_changed().unwrap(), "the connection was lost");

    let body = "b".repeat(20_000);
    bus.publish(message("q", &body)).await.unwrap();
    let small = "application:set_env(rabbit, max_message_size, 10000).";
    broker.eval(small.to_owned()).await;
    let bus = connect(&url).await;
    bus.declare(&with_dead_letters(QueueKind::Quorum))
        .await
        .unwrap();
    let outcome = bus.publish(message("q", &body)).await;
    assert!(
        matches!(outcome, Err(BusError::TooLarge { .. })),
        "{outcome:?}"
    );
    // Nor is a copy of what it took before; the broker moves that one itself.
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    delivery.dead_letter("message is no JSON").await.unwrap();
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let delivery = next(&mut dead).await;
    assert_eq!(delivery.message.body, body);
    let reason = delivery.message.properties.reason.as_deref();
    assert_eq!(reason, Some("rejected"));
}

/// Passes on what comes; the number that follows `method` is `value` from then on.
async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    method: [u8; 4],
    value: u32,
) -> std::io::Result<()> {
    let mut read = vec![0; 65_536];
    loop {
        let length = from.read(&mut read).await?;
        let read = &mut read[..length];
        let found = read.windows(4).position(|bytes| bytes == method);
        if let Some(frame_max) = found.and_then(|at| read.get_mut(at + 6..at + 10)) {
            frame_max.copy_from_slice(&value.to_be_bytes());
        }
        to.write_all(read).await?;
        if read.is_empty() {
            return Ok(());
        }
    }
}

/// A way to `broker` on which clients believe in large frames.
async fn overstated(broker: &Broker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (url, there) = (broker.vhost().await, broker.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let broker = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_broker, to_broker) = broker.into_split();
            tokio::spawn(relay(from_broker, to_client, [0, 10, 0, 30], 131_072));
            tokio::spawn(relay(from_client, to_broker, [0, 10, 0, 31], 8192));
        }
    });
    url.replace(&there.to_string(), &port.to_string())
}

/// Should it come to that after all.
#[tokio::test]
async fn one_that_breaks_the_connection_is_found_out() {
    let url = overstated(strict().await).await;
    let bus = connect(&url).await;
    bus.declare(&crate::recovery::queue("q")).await.unwrap();
    let publishes = (0..50).map(|n| {
        let bus = &bus;
        async move {
            if n == 25 {
                let outcome = bus.publish(with_long_headers()).await;
                assert!(
                    matches!(outcome, Err(BusError::Refused { .. })),
                    "{outcome:?}"
                );
            } else {
                bus.publish(message("q", "m")).await.unwrap();
            }
        }
    });
    join_all(publishes).await;
}
