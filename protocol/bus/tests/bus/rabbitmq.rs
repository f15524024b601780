//! What other clients and operators of a broker do.

use crate::recovery::{connect, message, next, queue};
use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use mesh_bus::{BusConfig, BusError, Properties, Queue, QueueKind, Topology};
use mesh_protocol::AgentId;
use mesh_protocol::names::QUEUE_PRIORITY_TASKS;
use mesh_tests::rabbitmq::shared;

pub async fn foreign(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test]
async fn queues_that_the_plan_declared_are_told_apart() {
    let url = shared().await.vhost().await;
    let (_connection, channel) = foreign(&url).await;
    let exchange = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "ai.tasks".into(),
            ExchangeKind::Topic,
            exchange,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let agent: AgentId = "hardware-optimizer".parse().unwrap();
    channel
        .queue_declare(agent.task_queue().into(), durable, FieldTable::default())
        .await
        .unwrap();
    let mut priorities = FieldTable::default();
    priorities.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    channel
        .queue_declare(QUEUE_PRIORITY_TASKS.into(), durable, priorities)
        .await
        .unwrap();

    let bus = connect(&url).await;
    // The broker names one argument of several; which one comes first is its choice.
    let differing = ["x-queue-type", "x-max-priority", "x-dead-letter-exchange"];
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        let topology = Topology::exchanges().with_agent(&agent, kind);
        match bus.declare(&topology).await {
            Err(BusError::Mismatch {
                object,
                argument,
                found,
                mend,
                ..
            }) => {
                assert_eq!(object, "queue agent.hardware_optimizer.tasks");
                assert!(differing.contains(&argument.as_str()), "{argument}");
                assert!(["none", "classic"].contains(&found.as_str()), "{found}");
                assert!(mend.contains("rabbitmqctl delete_queue"), "{mend}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The plan's intake is the same queue as ours.
    let intake = Topology {
        queues: vec![Queue {
            name: QUEUE_PRIORITY_TASKS.to_owned(),
            kind: QueueKind::Classic,
            dead_letters: false,
        }],
        ..Topology::default()
    };
    bus.declare(&intake).await.unwrap();
}

#[tokio::test]
async fn odd_messages_of_other_publishers_are_delivered() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let mut headers = FieldTable::default();
    let bytes = LongString::from(vec![0xff, 0x00, 0xfe]);
    headers.insert("Idempotency-Key".into(), AMQPValue::LongString(bytes));
    headers.insert(
        "traceparent".into(),
        AMQPValue::FieldTable(FieldTable::default()),
    );
    headers.insert("x-mesh-reason".into(), AMQPValue::Void);
    let odd = BasicProperties::default()
        .with_headers(headers)
        .with_priority(255)
        .with_expiration("60000".into());
    let (_connection, channel) = foreign(&url).await;
    for properties in [BasicProperties::default(), odd] {
        let options = BasicPublishOptions::default();
        let body = [0xff, 0xfe];
        channel
            .basic_publish("".into(), "q".into(), options, &body, properties)
            .await
            .unwrap();
    }
    let mut deliveries = bus.consume("q", 2).await.unwrap();
    let bare = next(&mut deliveries).await;
    assert_eq!(bare.message.properties, Properties::default());
    let odd = next(&mut deliveries).await;
    assert_eq!(odd.message.body, Bytes::from_static(&[0xff, 0xfe]));
    assert_eq!(odd.message.properties.priority, Some(255));
    assert_eq!(odd.message.properties.idempotency_key, None);
    bare.ack().await.unwrap();
    odd.ack().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_refused_without_showing_them() {
    let url = shared().await.vhost().await;
    for bad in [
        url.replace("guest:guest", "guest:s3cret"),
        format!("{url}-that-is-not-there").replace("guest:guest", "guest:guest"),
    ] {
        let config = BusConfig::Rabbitmq {
            url: bad.try_into().unwrap(),
        };
        match mesh_bus::connect(&config).await {
            Err(error @ BusError::Refused { .. }) => {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("was let in"),
        }
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn many_publishes_wait_for_their_confirms_together() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let publishes = (0..1000).map(|_| bus.publish(message("q", "m")));
    for outcome in futures_util::future::join_all(publishes).await {
        outcome.unwrap();
    }
    let mut deliveries = bus.consume("q", 100).await.unwrap();
    for _ in 0..1000 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
}

/// What comes back is told apart from what does not, however many are under way.
#[tokio::test]
async fn among_many_publishes_each_hears_its_own_outcome() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let publishes = (0..2000).map(|n| {
        let bus = &bus;
        async move {
            let queue = if n % 3 == 0 { "nowhere" } else { "q" };
            let outcome = bus.publish(message(queue, "m")).await;
            match (n % 3, outcome) {
                (0, Err(BusError::Unroutable { routing_key, .. })) => {
                    assert_eq!(routing_key, "nowhere");
                }
                (1 | 2, Ok(())) => {}
                (_, outcome) => panic!("message {n}: {outcome:?}"),
            }
        }
    });
    futures_util::future::join_all(publishes).await;
}

/// An exchange that does not exist closes the channel on which all publish.
#[tokio::test]
async fn one_that_breaks_the_channel_breaks_no_other() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    let publishes = (0..300).map(|n| {
        let bus = &bus;
        async move {
            let mut sent = message("q", "m");
            if n % 100 == 50 {
                sent.exchange = "no.such.exchange".to_owned();
            }
            let outcome = bus.publish(sent).await;
            match (n % 100, outcome) {
                (50, Err(BusError::Unroutable { exchange, .. })) => {
                    assert_eq!(exchange, "no.such.exchange");
                }
                (_, Ok(())) => {}
                (_, outcome) => panic!("message {n}: {outcome:?}"),
            }
        }
    });
    futures_util::future::join_all(publishes).await;
}
