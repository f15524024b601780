//! What becomes of steps that fail, over memory and over a real RabbitMQ: tried later, kept, replayed, taken for poison,
//! given back in time, answered from what was kept.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod lane;

use lane::{
    Lane, Reply, TestAgent, agent_id, config, deps, ok, over, put_off, quick, sidecar, step,
};
use mesh_bus::memory::MemoryBus;
use mesh_bus::{Bus, Properties, QueueKind, Topology};
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::Outcome;
use mesh_sidecar::config::{Delivery, Worker};
use mesh_tests::{rabbitmq, wait_for, within};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

async fn memory() -> Arc<dyn Bus> {
    Arc::new(MemoryBus::new())
}

async fn broker() -> Arc<dyn Bus> {
    let url = rabbitmq::shared().await.vhost().await;
    over(&url).await
}

macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test] async fn $case() { super::$case(super::memory().await).await })*
        }
        mod on_rabbitmq {
            $(#[tokio::test] async fn $case() { super::$case(super::broker().await).await })*
        }
    };
}

on_both!(
    what_fails_for_a_while_is_tried_later,
    classic_queues_do_too,
    what_fails_to_the_end_is_kept_and_replayed,
    what_cannot_get_better_is_not_tried_again,
    no_retry_outlasts_the_deadline,
    poison_reaches_the_agent_no_more,
    a_long_step_goes_back_before_the_broker_takes_it,
    a_refusal_is_kept_where_that_is_wanted_and_asked_anew,
);

fn busy() -> Reply {
    Reply::Answer(503, "", b"busy".to_vec())
}

async fn shows(lane: &Lane, line: &str) -> bool {
    lane.admin("/metrics").await.1.contains(line)
}

async fn what_fails_for_a_while_is_tried_later(bus: Arc<dyn Bus>) {
    let script = vec![busy(), busy(), ok(json!(1))];
    let mut lane = Lane::start(bus, script, put_off(2)).await;
    lane.step(&step("s")).await;
    let result = lane.result().await;
    assert_eq!(result.outcome, Outcome::Completed { result: json!(1) });
    assert_eq!((result.attempts, lane.agent.calls().len()), (3, 3));
    let keys = lane.agent.calls();
    assert!(
        keys.iter()
            .all(|call| call.headers["idempotency-key"] == "t:s")
    );
    // What came of the first two calls is no end of the step.
    let line = r#"agent_tasks_processed_total{agent="data-processor",outcome="completed"} 1"#;
    assert!(shows(&lane, line).await);
    assert!(!shows(&lane, "agent_status").await);
    lane.stop().await;
}

async fn classic_queues_do_too(bus: Arc<dyn Bus>) {
    let kind = QueueKind::Classic;
    let topology = Topology::exchanges()
        .with_orchestrator(QueueKind::Quorum)
        .with_agent(&agent_id(), kind);
    bus.declare(&topology).await.unwrap();
    let agent = TestAgent::start(vec![busy(), ok(json!(1))]).await;
    let worker = Worker {
        queue_kind: kind,
        ..put_off(1)
    };
    let mut config = config(agent.address, worker);
    config.drain_ms = 100;
    let mut results = bus
        .consume("agent.orchestrator.coordination", 1)
        .await
        .unwrap();
    let given = mesh_sidecar::Deps {
        bus: Some(Arc::clone(&bus)),
        ..deps()
    };
    let bound = mesh_sidecar::build(config, given).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(bound.run(shutdown.clone()));
    let message = mesh_bus::Message {
        routing_key: agent_id().task_queue(),
        body: serde_json::to_vec(&step("s")).unwrap().into(),
        mandatory: true,
        ..mesh_bus::Message::default()
    };
    bus.publish(message).await.unwrap();
    let delivery = within("a result", results.next()).await.unwrap();
    let body = String::from_utf8_lossy(&delivery.message.body).into_owned();
    assert!(body.contains(r#""status":"completed""#), "{body}");
    delivery.ack().await.unwrap();
    shutdown.cancel();
    within("the drain", running).await.unwrap();
}

async fn what_fails_to_the_end_is_kept_and_replayed(bus: Arc<dyn Bus>) {
    let script = vec![busy(), busy(), ok(json!(1))];
    let mut lane = Lane::start(bus, script, put_off(1)).await;
    let mut sent = step("s");
    sent.deadline_ms = Some(Timestamp::now().plus(Duration::from_secs(600)).millis());
    let properties = Properties {
        correlation_id: Some("t".to_owned()),
        idempotency_key: Some("t:s".to_owned()),
        ..Properties::default()
    };
    let body = serde_json::to_vec(&sent).unwrap();
    lane.publish(body.clone(), properties).await;
    let (code, detail, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("agent_status", 2), "{detail}");
    let dead = lane.dead().await;
    let trail = dead.message.properties.trail.clone().unwrap();
    assert_eq!((trail.retries, trail.calls, trail.history.len()), (1, 2, 2));
    assert!(
        trail.history.iter().all(|m| m.reason.contains("503")),
        "{trail:?}"
    );
    assert!(trail.first_seen_ms <= trail.dead_ms);
    assert_eq!(dead.message.body, body);
    assert_eq!(dead.message.routing_key, agent_id().task_queue());
    assert!(shows(&lane, r#"reason="exhausted"} 1"#).await);
    dead.replay(&agent_id().task_queue()).await.unwrap();
    let result = lane.result().await;
    assert_eq!(result.outcome, Outcome::Completed { result: json!(1) });
    assert_eq!(result.attempts, 1);
    lane.stop().await;
}

async fn what_cannot_get_better_is_not_tried_again(bus: Arc<dyn Bus>) {
    let mut worker = put_off(3);
    worker.max_attempts = 3;
    worker.delivery.unrecoverable = vec![503];
    let mut lane = Lane::start(bus, vec![busy()], worker).await;
    lane.step(&step("s")).await;
    assert_eq!(lane.failure().await.2, 1);
    assert_eq!(lane.dead_letters().await, 0);
    lane.stop().await;
}

async fn no_retry_outlasts_the_deadline(bus: Arc<dyn Bus>) {
    let mut worker = put_off(3);
    worker.delivery.first_delay_ms = 60_000;
    worker.delivery.longest_delay_ms = 60_000;
    let mut lane = Lane::start(bus, vec![busy()], worker).await;
    let mut sent = step("s");
    sent.deadline_ms = Some(Timestamp::now().plus(Duration::from_secs(20)).millis());
    lane.step(&sent).await;
    assert_eq!(lane.failure().await.2, 1);
    let (reason, _) = lane.dead_letter().await;
    assert!(reason.contains("busy"), "{reason}");
    lane.stop().await;
}

async fn poison_reaches_the_agent_no_more(bus: Arc<dyn Bus>) {
    let topology = Topology::exchanges().with_agent(&agent_id(), QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let queue = agent_id().task_queue();
    let message = mesh_bus::Message {
        routing_key: queue.clone(),
        body: serde_json::to_vec(&step("s")).unwrap().into(),
        mandatory: true,
        ..mesh_bus::Message::default()
    };
    bus.publish(message).await.unwrap();
    let mut deliveries = bus.consume(&queue, 1).await.unwrap();
    for _ in 0..Delivery::default().max_crashes {
        drop(within("the step", deliveries.next()).await.unwrap());
    }
    // Given back by whoever is the last, for the lane.
    deliveries.stopper().cancel();
    while let Some(delivery) = deliveries.next().await {
        delivery.give_back().await.unwrap();
    }
    drop(deliveries);
    let mut lane = Lane::start(bus, vec![ok(json!(1))], quick()).await;
    let (code, detail, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("poison", 0), "{detail}");
    let (reason, _) = lane.dead_letter().await;
    assert!(reason.starts_with("poison: "), "{reason}");
    assert!(lane.agent.calls().is_empty());
    lane.stop().await;
}

async fn a_long_step_goes_back_before_the_broker_takes_it(bus: Arc<dyn Bus>) {
    let worker = Worker {
        ack_deadline_ms: 200,
        concurrency: 1,
        ..quick()
    };
    let mut lane = Lane::start(bus, vec![Reply::Held], worker).await;
    lane.step(&step("s")).await;
    lane.agent.was_called(1).await;
    // More often than there are places: what waits here twice takes one.
    for times in 1..=4 {
        let line =
            format!("sidecar_ack_deadline_returns_total{{agent=\"data-processor\"}} {times}");
        wait_for("the step to go back", async || shows(&lane, &line).await).await;
    }
    lane.agent.release();
    let result = lane.result().await;
    assert!(matches!(result.outcome, Outcome::Completed { .. }));
    assert_eq!(lane.agent.calls().len(), 1);
    lane.stop().await;
}

async fn a_refusal_is_kept_where_that_is_wanted_and_asked_anew(bus: Arc<dyn Bus>) {
    let mut worker = quick();
    worker.delivery.keep_refused = true;
    let script = vec![
        Reply::Answer(422, "", b"no such column".to_vec()),
        ok(json!(1)),
    ];
    let mut lane = Lane::start(bus, script, worker).await;
    lane.step(&step("s")).await;
    assert_eq!(lane.failure().await.0, "agent_status");
    let dead = lane.dead().await;
    let reason = dead.message.properties.reason.clone().unwrap();
    assert!(reason.contains("no such column"), "{reason}");
    // The agent was mended.
    dead.replay(&agent_id().task_queue()).await.unwrap();
    let result = lane.result().await;
    assert!(matches!(result.outcome, Outcome::Completed { .. }));
    lane.stop().await;
}

/// The acknowledgement is what is lost when a sidecar is killed after its result: the broker hands the step out once
/// more, as is done here.
#[tokio::test]
async fn what_was_answered_before_a_kill_is_answered_without_the_agent() {
    let url = rabbitmq::shared().await.vhost().await;
    let bus = over(&url).await;
    let agent = TestAgent::start(vec![ok(json!({"effect": 1})), ok(json!({"effect": 2}))]).await;
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker {
        state_dir: Some(directory.path().join("state")),
        ..quick()
    };
    let mut file = serde_json::to_value(config(agent.address, worker)).unwrap();
    file["worker"]["bus"] = json!({"backend": "rabbitmq", "url": url});
    let path = directory.path().join("sidecar.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let topology = Topology::exchanges()
        .with_orchestrator(QueueKind::Quorum)
        .with_agent(&agent_id(), QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let mut results = bus
        .consume("agent.orchestrator.coordination", 1)
        .await
        .unwrap();
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let message = mesh_bus::Message {
            routing_key: agent_id().task_queue(),
            body: serde_json::to_vec(&step("s")).unwrap().into(),
            mandatory: true,
            ..mesh_bus::Message::default()
        };
        let mut running = sidecar(&path);
        bus.publish(message).await.unwrap();
        let delivery = within("a result", results.next()).await.unwrap();
        bodies.push(delivery.message.body.clone());
        delivery.ack().await.unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(agent.calls().len(), 1);
}
