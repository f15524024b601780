//! Tasks over the broker: taken as over HTTP, answered, put aside, or left in the queue.

use crate::mesh::{Ground, Mesh, PATIENCE, answer_badly, answer_well, assertion, config, silence};
use mesh_bus::memory::MemoryBus;
use mesh_bus::{Bus, Deliveries, Delivery, Message, Properties, Queue, QueueKind, Topology};
use mesh_orchestrator::config::{Config, Limits};
use mesh_protocol::names::{QUEUE_PRIORITY_DEAD, QUEUE_PRIORITY_TASKS};
use mesh_tests::wait_for;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// A queue `answers`, and what comes into it.
async fn answers(bus: &MemoryBus) -> Deliveries {
    let queue = Queue {
        name: "answers".to_owned(),
        kind: QueueKind::Classic,
        dead_letters: false,
    };
    let topology = Topology {
        queues: vec![queue],
        ..Topology::default()
    };
    bus.declare(&topology).await.unwrap();
    bus.consume("answers", 100).await.unwrap()
}

fn letter(body: &Value, properties: Properties) -> Message {
    Message {
        routing_key: QUEUE_PRIORITY_TASKS.to_owned(),
        body: body.to_string().into(),
        mandatory: true,
        properties,
        ..Message::default()
    }
}

fn asking() -> Properties {
    Properties {
        reply_to: Some("answers".to_owned()),
        correlation_id: Some("mine".to_owned()),
        ..Properties::default()
    }
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = tokio::time::timeout(PATIENCE, deliveries.next());
    next.await.expect("nothing came").expect("the queue ended")
}

async fn answer(deliveries: &mut Deliveries) -> (Value, Properties) {
    let delivery = next(deliveries).await;
    let properties = delivery.message.properties.clone();
    let body = serde_json::from_slice(&delivery.message.body).unwrap();
    delivery.ack().await.unwrap();
    (body, properties)
}

/// The two answers to a task that goes well, the last one as it ended.
async fn both(deliveries: &mut Deliveries) -> [Value; 2] {
    let mut two = [answer(deliveries).await.0, answer(deliveries).await.0];
    two.sort_by_key(|answer| answer["event_type"] != "task.accepted");
    assert_eq!(two[0]["event_type"], "task.accepted", "{two:?}");
    assert_eq!(two[0]["task_id"], two[1]["task_id"], "{two:?}");
    two
}

async fn depth(bus: &MemoryBus) -> u32 {
    bus.depth(QUEUE_PRIORITY_TASKS).await.unwrap().messages
}

/// A mesh whose intake stands.
async fn start(config: Config) -> (Mesh, Arc<MemoryBus>) {
    let mesh = Mesh::without_agents(config, Ground::new()).await;
    let bus = mesh.ground.bus.clone();
    wait_for("the intake", async || {
        bus.depth(QUEUE_PRIORITY_TASKS).await.is_ok()
    })
    .await;
    (mesh, bus)
}

#[tokio::test]
async fn a_task_is_carried_out_and_answered_twice() {
    let (mesh, bus) = start(config()).await;
    mesh.agent("data-processor", answer_well).await;
    let mut heard = answers(&bus).await;
    let body = json!({"task": "data_processing", "payload": {"n": 1}, "priority": 3});
    bus.publish(letter(&body, asking())).await.unwrap();
    let first = answer(&mut heard).await;
    let last = answer(&mut heard).await;
    for (_, properties) in [&first, &last] {
        assert_eq!(properties.correlation_id.as_deref(), Some("mine"));
        assert_eq!(properties.content_type, None);
    }
    let mut bodies = [first.0, last.0];
    bodies.sort_by_key(|answer| answer["event_type"] != "task.accepted");
    let [first, last] = bodies;
    assert_eq!(first["execution"]["steps"][0]["agent"], "data-processor");
    assert_eq!(last["event_type"], "task.completed");
    assert_eq!(last["results"]["data-processor"]["by"], "data-processor");
    let id = last["task_id"].as_str().unwrap();
    let shown = mesh.get_json(&format!("/task/{id}")).await;
    assert_eq!(
        (&shown["status"], &shown["priority"]),
        (&json!("completed"), &json!(3))
    );
    mesh.metric("orchestrator_intake_total{outcome=\"accepted\"} 1")
        .await;
    mesh.metric("orchestrator_replies_total{outcome=\"sent\"} 2")
        .await;
}

#[tokio::test]
async fn a_failure_is_answered_as_one() {
    let (mesh, bus) = start(config()).await;
    mesh.agent("data-processor", answer_badly).await;
    let mut heard = answers(&bus).await;
    bus.publish(letter(&json!({"task": "data_processing"}), asking()))
        .await
        .unwrap();
    let [_, last] = both(&mut heard).await;
    assert_eq!(last["event_type"], "task.failed");
    assert_eq!(last["error"]["code"], "agent_status");
}

#[tokio::test]
async fn the_plans_forms_are_understood() {
    let (mesh, bus) = start(config()).await;
    let given = mesh.agent("hardware-optimizer", answer_well).await;
    mesh.agent("data-processor", answer_well).await;
    let mut heard = answers(&bus).await;
    let plain = Properties {
        correlation_id: None,
        ..asking()
    };
    let wrapped = json!({"task_id": "task_1.5", "task": {"type": "data_processing", "x": 1},
        "timestamp": "2025-01-01T00:00:00.000001"});
    bus.publish(letter(&wrapped, plain.clone())).await.unwrap();
    let delivery = answer(&mut heard).await;
    assert_eq!(delivery.1.correlation_id.as_deref(), Some("task_1.5"));
    let second = answer(&mut heard).await;
    assert!(
        [&delivery.0, &second.0]
            .iter()
            .any(|a| a["event_type"] == "task.completed")
    );

    let step = json!({"task_id": "task_2.5", "agent": "hardware_optimizer", "action": "Process x",
        "timestamp": "2025-01-01T00:00:00.000001"});
    bus.publish(letter(&step, plain)).await.unwrap();
    let [first, last] = both(&mut heard).await;
    assert_eq!(first["client_task_id"], "task_2.5");
    assert_eq!(last["event_type"], "task.completed");
    let given = given.lock().unwrap();
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].0.action, "Process x");
}

#[tokio::test]
async fn a_message_that_comes_again_is_the_same_task() {
    let (mesh, bus) = start(config()).await;
    let given = mesh.agent("data-processor", answer_well).await;
    let named = Properties {
        message_id: Some("the-same".to_owned()),
        ..Properties::default()
    };
    let body = json!({"task": "data_processing"});
    for _ in 0..3 {
        bus.publish(letter(&body, named.clone())).await.unwrap();
    }
    mesh.metric("orchestrator_intake_total{outcome=\"accepted\"} 1")
        .await;
    mesh.metric("orchestrator_intake_total{outcome=\"repeated\"} 2")
        .await;
    mesh.metric("orchestrator_tasks_total{outcome=\"completed\"} 1")
        .await;
    assert_eq!(given.lock().unwrap().len(), 1);
    // Another body under the same name is another task, which needs a name of its own.
    bus.publish(letter(
        &json!({"task": "data_processing", "priority": 1}),
        named,
    ))
    .await
    .unwrap();
    let mut dead = bus.consume(QUEUE_PRIORITY_DEAD, 1).await.unwrap();
    let reason = next(&mut dead).await.message.properties.reason.unwrap();
    assert!(reason.contains("used for another task"), "{reason}");
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_put_aside() {
    let limits = Limits {
        max_body_bytes: 2000,
        ..Limits::default()
    };
    let config = Config {
        limits,
        planner: serde_json::from_value(json!({})).unwrap(),
        ..config()
    };
    let (_mesh, bus) = start(config).await;
    let mut heard = answers(&bus).await;
    let mut dead = bus.consume(QUEUE_PRIORITY_DEAD, 1).await.unwrap();
    let large = format!(
        r#"{{"task":"data_processing","payload":{{"x":"{}"}}}}"#,
        "x".repeat(2000)
    );
    for (body, status, kind, why) in [
        ("{", 400, "not-json", "not JSON"),
        (
            r#"{"task":7,"priority":11}"#,
            422,
            "wrong-fields",
            "priority must be",
        ),
        (
            r#"{"task":"unheard_of"}"#,
            422,
            "unknown-task-type",
            "no agent takes unheard_of",
        ),
        (large.as_str(), 413, "body-too-large", "at most 2000 bytes"),
        (
            r#"{"task_id":"t","agent":"nobody","action":"a"}"#,
            422,
            "no-plan",
            "nobody",
        ),
    ] {
        let mut message = letter(&json!(null), asking());
        message.body = body.to_owned().into();
        bus.publish(message).await.unwrap();
        let (problem, properties) = answer(&mut heard).await;
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:agent-mesh:problem:{kind}"));
        assert_eq!(
            properties.content_type.as_deref(),
            Some("application/problem+json")
        );
        assert_eq!(properties.correlation_id.as_deref(), Some("mine"));
        let delivery = next(&mut dead).await;
        let reason = delivery.message.properties.reason.clone().unwrap();
        assert!(reason.contains(why), "{reason}");
        assert_eq!(delivery.message.body, body);
        delivery.ack().await.unwrap();
    }
    assert_eq!(depth(&bus).await, 0);
}

#[tokio::test]
async fn an_assertion_says_whose_the_task_is() {
    let (mesh, bus) = start(config()).await;
    mesh.agent("data-processor", answer_well).await;
    let mut heard = answers(&bus).await;
    let by = |assertion: String| Properties {
        assertion: Some(assertion),
        ..asking()
    };
    let body = json!({"task": "data_processing"});
    bus.publish(letter(&body, by(assertion("alice", ""))))
        .await
        .unwrap();
    let [_, last] = both(&mut heard).await;
    let path = format!("/task/{}", last["task_id"].as_str().unwrap());
    for (sub, expected) in [("alice", StatusCode::OK), ("bob", StatusCode::NOT_FOUND)] {
        let request = mesh.client.get(mesh.url(&path));
        let request = request.header("x-mesh-assertion", assertion(sub, ""));
        assert_eq!(request.send().await.unwrap().status(), expected, "{sub}");
    }
    // One that proves nothing is nobody's, not everybody's.
    let mut forged = assertion("alice", "");
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    for bad in [forged, String::new()] {
        bus.publish(letter(&body, by(bad))).await.unwrap();
        assert_eq!(answer(&mut heard).await.0["status"], 401);
    }
}

#[tokio::test]
async fn what_finds_no_room_stays_in_the_queue_by_priority() {
    let limits = Limits {
        max_runs: 1,
        ..Limits::default()
    };
    let (mesh, bus) = start(Config { limits, ..config() }).await;
    let busy = mesh
        .submit(&json!({"task": "data_processing", "timeout": 600}))
        .await;
    for priority in [2, 9, 5] {
        let urgent = Properties {
            priority: Some(priority),
            ..Properties::default()
        };
        let body = json!({"task": "system_optimization"});
        bus.publish(letter(&body, urgent)).await.unwrap();
    }
    wait_for("the tasks to wait", async || depth(&bus).await == 3).await;
    let given = mesh.agent("hardware-optimizer", answer_well).await;
    mesh.agent("resource-arbitrator", answer_well).await;
    let cancel = mesh.client.delete(mesh.url(&format!("/task/{busy}")));
    assert_eq!(cancel.send().await.unwrap().status(), StatusCode::OK);
    mesh.metric("orchestrator_tasks_total{outcome=\"completed\"} 3")
        .await;
    let order: Vec<_> = given
        .lock()
        .unwrap()
        .iter()
        .map(|(_, p)| p.priority.unwrap())
        .collect();
    assert_eq!(order, [9, 5, 2]);
    assert_eq!(depth(&bus).await, 0);
}

#[tokio::test]
async fn a_queue_that_is_gone_holds_up_nothing() {
    let (mesh, bus) = start(config()).await;
    mesh.agent("data-processor", answer_well).await;
    let gone = Properties {
        reply_to: Some("nowhere".to_owned()),
        ..Properties::default()
    };
    let mut heard = answers(&bus).await;
    let body = json!({"task": "data_processing"});
    bus.publish(letter(&body, gone)).await.unwrap();
    mesh.metric("orchestrator_replies_total{outcome=\"nobody\"} 2")
        .await;
    bus.publish(letter(&body, asking())).await.unwrap();
    both(&mut heard).await;
}

#[tokio::test]
async fn an_answer_that_is_wanted_among_the_tasks_becomes_none() {
    let (mesh, bus) = start(config()).await;
    mesh.agent("data-processor", answer_well).await;
    for queue in [QUEUE_PRIORITY_TASKS, "agent.data_processor.tasks"] {
        let among_tasks = Properties {
            reply_to: Some(queue.to_owned()),
            ..Properties::default()
        };
        let body = json!({"task": "data_processing"});
        bus.publish(letter(&body, among_tasks)).await.unwrap();
    }
    mesh.metric("orchestrator_tasks_total{outcome=\"completed\"} 2")
        .await;
    // One that comes after them has its turn after whatever they would have brought.
    let mut heard = answers(&bus).await;
    bus.publish(letter(&json!({"task": "data_processing"}), asking()))
        .await
        .unwrap();
    both(&mut heard).await;
    mesh.metric("orchestrator_intake_total{outcome=\"accepted\"} 3")
        .await;
    assert_eq!(bus.depth(QUEUE_PRIORITY_DEAD).await.unwrap().messages, 0);
    let dead = "agent.data_processor.dead";
    assert_eq!(bus.depth(dead).await.unwrap().messages, 0);
}

#[tokio::test]
async fn the_last_answer_comes_from_whoever_is_there() {
    let (mesh, bus) = start(config()).await;
    let given = mesh.agent("data-processor", silence).await;
    let mut heard = answers(&bus).await;
    bus.publish(letter(&json!({"task": "data_processing"}), asking()))
        .await
        .unwrap();
    let accepted = answer(&mut heard).await.0;
    wait_for("the step", async || given.lock().unwrap().len() == 1).await;
    let ground = mesh.stop().await;
    // Its life went; its submitter waits on.
    let mesh = Mesh::without_agents(config(), ground).await;
    let step = given.lock().unwrap()[0].0.clone();
    let result = crate::mesh::result_of(&step, answer_well(&step).unwrap());
    mesh.publish_result(&result).await;
    let (last, properties) = answer(&mut heard).await;
    assert_eq!(last["task_id"], accepted["task_id"]);
    assert_eq!(last["event_type"], "task.completed");
    assert_eq!(properties.correlation_id.as_deref(), Some("mine"));
}
