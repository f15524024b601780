//! Declaring and publishing.

use super::*;
use crate::{BusError, CloudEvent, Properties};
use futures_util::future::join_all;
use mesh_protocol::AgentId;

pub async fn topics_route_by_pattern(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Topic), "one", "task.a.*");
    let topology = bound(topology, "many", "task.#");
    bus.declare(&topology).await.unwrap();
    for key in ["task.a.execute", "task.a.b.c", "task", "task.b.execute"] {
        bus.publish(message("x", key, key)).await.unwrap();
    }
    assert_eq!(drain(&*bus, "one", 1).await, ["task.a.execute"]);
    assert_eq!(
        drain(&*bus, "many", 4).await,
        ["task", "task.a.b.c", "task.a.execute", "task.b.execute"]
    );
    assert!(is_empty(&*bus, "one").await);
}

pub async fn fanout_reaches_every_queue(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Fanout), "one", "");
    let topology = bound(topology, "two", "ignored");
    bus.declare(&topology).await.unwrap();
    bus.publish(message("x", "any", "event")).await.unwrap();
    assert_eq!(drain(&*bus, "one", 1).await, ["event"]);
    assert_eq!(drain(&*bus, "two", 1).await, ["event"]);
}

pub async fn direct_routes_by_equal_key(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Direct), "one", "a");
    let topology = bound(topology, "two", "b");
    bus.declare(&topology).await.unwrap();
    bus.publish(message("x", "b", "for b")).await.unwrap();
    assert_eq!(drain(&*bus, "two", 1).await, ["for b"]);
    assert!(is_empty(&*bus, "one").await);
}

pub async fn the_default_exchange_routes_by_queue(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    put(&*bus, "q", "straight").await;
    assert_eq!(drain(&*bus, "q", 1).await, ["straight"]);
}

pub async fn both_spellings_of_an_agent_arrive(connect: &Connect) {
    let bus = connect().await;
    let agent: AgentId = "hardware-optimizer".parse().unwrap();
    let topology = Topology::exchanges().with_agent(&agent, QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    for name in ["hardware-optimizer", "hardware_optimizer"] {
        let key = format!("task.{name}.execute");
        bus.publish(message("ai.tasks", &key, name)).await.unwrap();
    }
    assert_eq!(
        drain(&*bus, &agent.task_queue(), 2).await,
        ["hardware-optimizer", "hardware_optimizer"]
    );
}

pub async fn a_message_arrives_once_however_many_bindings_match(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Topic), "q", "#");
    let topology = bound(topology, "q", "a.*");
    bus.declare(&topology).await.unwrap();
    bus.publish(message("x", "a.b", "once")).await.unwrap();
    assert_eq!(drain(&*bus, "q", 1).await, ["once"]);
    assert!(is_empty(&*bus, "q").await);
}

pub async fn declaring_again_changes_nothing(connect: &Connect) {
    let bus = connect().await;
    let agent: AgentId = "planner".parse().unwrap();
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        let topology = Topology::exchanges()
            .with_agent(&format!("{agent}-{}", kind.as_str()).parse().unwrap(), kind)
            .with_orchestrator(QueueKind::Quorum);
        bus.declare(&topology).await.unwrap();
        bus.declare(&topology).await.unwrap();
        connect().await.declare(&topology).await.unwrap();
    }
    let key = "task.planner-quorum.execute";
    bus.publish(message("ai.tasks", key, "one")).await.unwrap();
    assert_eq!(drain(&*bus, "agent.planner_quorum.tasks", 1).await, ["one"]);
    assert!(is_empty(&*bus, "agent.planner_quorum.tasks").await);
}

/// A broker names one of the `arguments` that differ; which one is its choice.
async fn expect_mismatch(bus: &dyn Bus, topology: &Topology, object: &str, arguments: &[&str]) {
    match bus.declare(topology).await {
        Err(BusError::Mismatch {
            object: o,
            argument: a,
            found,
            wanted,
            mend,
        }) => {
            assert_eq!(o, object);
            assert!(arguments.contains(&a.as_str()), "{a}");
            assert!(
                found != wanted && !mend.is_empty(),
                "{found} {wanted} {mend}"
            );
        }
        other => panic!("{other:?}"),
    }
}

pub async fn another_exchange_kind_is_a_mismatch(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&exchange("x", ExchangeKind::Topic))
        .await
        .unwrap();
    let other = exchange("x", ExchangeKind::Direct);
    expect_mismatch(&*bus, &other, "exchange x", &["type"]).await;
}

pub async fn another_queue_kind_is_a_mismatch(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    let other = queue("q", QueueKind::Quorum);
    expect_mismatch(
        &*bus,
        &other,
        "queue q",
        &["x-queue-type", "x-max-priority"],
    )
    .await;
    // Nothing is broken by it.
    put(&*bus, "q", "still").await;
    assert_eq!(drain(&*bus, "q", 1).await, ["still"]);
}

pub async fn other_dead_letters_are_a_mismatch(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    let other = with_dead_letters(QueueKind::Classic);
    expect_mismatch(&*bus, &other, "queue q", &["x-dead-letter-exchange"]).await;
}

pub async fn a_binding_needs_both_ends(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    let mut topology = bound(exchange("x", ExchangeKind::Direct), "q", "k");
    topology.exchanges.clear();
    let refused = bus.declare(&topology).await;
    assert!(
        matches!(refused, Err(BusError::Refused { .. })),
        "{refused:?}"
    );
}

fn is_unroutable(outcome: &Result<(), BusError>, exchange: &str, key: &str) -> bool {
    matches!(outcome, Err(BusError::Unroutable { exchange: e, routing_key: k })
        if e == exchange && k == key)
}

pub async fn an_unroutable_message_is_reported(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&exchange("x", ExchangeKind::Topic))
        .await
        .unwrap();
    let mut lost = message("x", "nobody", "lost");
    let outcome = bus.publish(lost.clone()).await;
    assert!(is_unroutable(&outcome, "x", "nobody"), "{outcome:?}");
    lost.mandatory = false;
    bus.publish(lost).await.unwrap();
}

pub async fn an_unknown_exchange_is_unroutable(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    let mut lost = message("nowhere", "k", "lost");
    for mandatory in [true, false] {
        lost.mandatory = mandatory;
        let outcome = bus.publish(lost.clone()).await;
        assert!(is_unroutable(&outcome, "nowhere", "k"), "{outcome:?}");
    }
    put(&*bus, "q", "still").await;
    assert_eq!(drain(&*bus, "q", 1).await, ["still"]);
}

pub async fn a_reply_address_that_leads_nowhere_holds_nothing_up(connect: &Connect) {
    // The last two have the form of one, of a broker that is not there.
    const ADDRESSES: [&str; 6] = [
        "amq.rabbitmq.reply-to",
        "amq.rabbitmq.reply-to.garbage",
        "amq.rabbitmq.reply-to.g1h2AAx!!.xx",
        "amq.rabbitmq.reply-to.AAAA.AAAA",
        "amq.rabbitmq.reply-to.g1h3AW4AAAAAAAAAAAAAAAA=.AAAA",
        "amq.rabbitmq.reply-to.g1h3B25vZGVAaDEAAAABAAAAAgAAAAM=.AAAA",
    ];
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    for address in ADDRESSES {
        for mandatory in [true, false] {
            let mut answer = message("", address, "answer");
            answer.mandatory = mandatory;
            // There is nobody, said or not.
            let said = bus.publish(answer).await;
            assert!(
                matches!(said, Ok(()) | Err(BusError::Unroutable { .. })),
                "{address}: {said:?}"
            );
        }
        put(&*bus, "q", address).await;
    }
    let mut all = ADDRESSES.map(str::to_owned);
    all.sort_unstable();
    assert_eq!(drain(&*bus, "q", ADDRESSES.len()).await, all);
}

pub async fn unroutable_messages_are_told_apart(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Direct), "q", "known");
    bus.declare(&topology).await.unwrap();
    let publishes = (0..200).map(|number| {
        let key = if number % 3 == 0 { "unknown" } else { "known" };
        bus.publish(message("x", key, "m"))
    });
    for (number, outcome) in join_all(publishes).await.into_iter().enumerate() {
        assert_eq!(
            is_unroutable(&outcome, "x", "unknown"),
            number % 3 == 0,
            "{number}: {outcome:?}"
        );
    }
}

pub async fn a_confirmed_message_stays(connect: &Connect) {
    let bus = connect().await;
    for kind in [QueueKind::Quorum, QueueKind::Classic] {
        bus.declare(&queue(kind.as_str(), kind)).await.unwrap();
        put(&*bus, kind.as_str(), "kept").await;
    }
    bus.close().await;
    let other = connect().await;
    assert_eq!(drain(&*other, "quorum", 1).await, ["kept"]);
    assert_eq!(drain(&*other, "classic", 1).await, ["kept"]);
}

pub async fn a_message_that_is_too_large_is_refused(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Classic)).await.unwrap();
    let mut large = message("", "q", "");
    large.body = vec![0; crate::MAX_BODY_BYTES + 1].into();
    let refused = bus.publish(large).await;
    assert!(
        matches!(refused, Err(BusError::TooLarge { .. })),
        "{refused:?}"
    );
    let long = message("", &"k".repeat(256), "");
    let refused = bus.publish(long).await;
    assert!(
        matches!(refused, Err(BusError::TooLarge { .. })),
        "{refused:?}"
    );
}

pub async fn bodies_arrive_whole(connect: &Connect) {
    let bus = connect().await;
    bus.declare(&queue("q", QueueKind::Quorum)).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    for length in [0, 1, 131_072, 1_048_576] {
        let mut sent = message("", "q", "");
        sent.body = (0..length)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        bus.publish(sent.clone()).await.unwrap();
        let delivery = next(&mut deliveries).await;
        assert!(delivery.message.body == sent.body, "{length} bytes");
        delivery.ack().await.unwrap();
    }
}

pub async fn properties_arrive_as_sent(connect: &Connect) {
    let bus = connect().await;
    let topology = bound(exchange("x", ExchangeKind::Direct), "q", "k");
    bus.declare(&topology).await.unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let mut sent = message("x", "k", "{}");
    sent.properties = Properties {
        priority: Some(7),
        message_id: Some("message".into()),
        correlation_id: Some("task".into()),
        reply_to: Some("answers".into()),
        expiration_ms: Some(600_000),
        idempotency_key: Some("task:step".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        tracestate: Some("vendor=ü".into()),
        reason: Some("tried before".into()),
        trail: Some(Box::default()),
        content_type: Some("application/problem+json".into()),
        assertion: Some("a.b.c".into()),
        cloud_event: Some(Box::new(CloudEvent {
            id: "task:step:step.completed".into(),
            kind: "step.completed".into(),
            source: "orchestrator".into(),
            time: "2026-01-01T00:00:00.000Z".into(),
            subject: "task".into(),
        })),
    };
    bus.publish(sent.clone()).await.unwrap();
    let delivery = next(&mut deliveries).await;
    sent.mandatory = delivery.message.mandatory;
    assert_eq!(delivery.message, sent);
    assert_eq!(
        (delivery.queue.as_str(), delivery.redelivered),
        ("q", false)
    );
    delivery.ack().await.unwrap();

    bus.publish(message("x", "k", "bare")).await.unwrap();
    let mut found = next(&mut deliveries).await.message.properties;
    assert!(found.message_id.take().is_some(), "an id is made");
    assert_eq!(found, Properties::default());
}
