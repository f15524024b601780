//! What results, restarts and a broken bus do to runs.

use crate::mesh::{
    Ground, Mesh, PATIENCE, answer_well, config, publish_result, result_message, result_of, silence,
};
use mesh_bus::{Bus, Topology};
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::outcome::Outcome;
use serde_json::json;

#[tokio::test]
async fn a_restart_takes_up_what_was_begun() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let first = mesh.agent("hardware-optimizer", silence).await;
    mesh.agent("resource-arbitrator", answer_well).await;
    let id = mesh.submit(&json!({"task": "system_optimization"})).await;
    mesh.until(&format!("/task/{id}"), |task| task["progress"] == 50.0)
        .await;
    mesh.metric("orchestrator_results_total{kind=\"taken\"} 1")
        .await;
    let ground = mesh.stop().await;

    let mesh = Mesh::without_agents(config(), ground).await;
    mesh.until(&format!("/task/{id}"), |task| {
        task["status"] == "in_progress"
    })
    .await;
    let (step, _) = first.lock().unwrap()[0].clone();
    let result = json!("late but whole");
    mesh.publish_result(&result_of(&step, Outcome::Completed { result }))
        .await;
    let task = mesh.ended(&id).await;
    assert_eq!(task["status"], "completed");
    // The step that had its result was not run again.
    assert_eq!(task["steps"]["resource-arbitrator"]["status"], "completed");
    mesh.until("/ready", |r| r["ready"] == true).await;
    // Nor was the step that the broker had handed out before.
    assert_eq!(first.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn results_that_are_none_are_put_aside() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let given = mesh.agent("data-processor", silence).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    mesh.metric("orchestrator_tasks_in_flight 1").await;
    let waited = tokio::time::timeout(PATIENCE, async {
        while given.lock().unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
    let step = given.lock().unwrap()[0].0.clone();
    let bus = mesh.ground.bus.clone();
    publish_result(&*bus, b"rubbish".to_vec()).await;
    let good = || Outcome::Completed { result: json!(1) };
    let mut stranger = result_of(&step, good());
    stranger.agent = "general-agent".parse().unwrap();
    mesh.publish_result(&stranger).await;
    let mut nowhere = result_of(&step, good());
    nowhere.step_id = "no-such-step".parse().unwrap();
    mesh.publish_result(&nowhere).await;
    let mut unknown = result_of(&step, good());
    unknown.task_id = "task_unknown".parse().unwrap();
    // An older publisher's: no orchestrator gave its step a key, and nobody misses it.
    mesh.publish_result(&unknown).await;
    let mut message = result_message(serde_json::to_vec(&unknown).unwrap());
    message.properties.idempotency_key = Some("task_unknown:data-processor".to_owned());
    bus.publish(message).await.unwrap();
    for _ in 0..2 {
        mesh.publish_result(&result_of(&step, good())).await;
    }
    assert_eq!(mesh.ended(&id).await["status"], "completed");
    mesh.metric("orchestrator_results_total{kind=\"garbage\"} 3")
        .await;
    mesh.metric("orchestrator_results_total{kind=\"taken\"} 1")
        .await;
    let mut dead = bus.consume("agent.orchestrator.dead", 10).await.unwrap();
    let mut reasons = Vec::new();
    for _ in 0..4 {
        let delivery = dead.next().await.unwrap();
        reasons.push(delivery.message.properties.reason.clone().unwrap());
        delivery.ack().await.unwrap();
    }
    reasons.sort();
    assert!(reasons[0].contains("is no result"), "{reasons:?}");
    assert!(reasons[1].contains("is not for agent"), "{reasons:?}");
    assert!(reasons[2].contains("has no step"), "{reasons:?}");
    assert!(reasons[3].contains("is not in the store"), "{reasons:?}");
    mesh.metric("orchestrator_results_total{kind=\"unknown\"} 1")
        .await;
    mesh.metric("orchestrator_results_total{kind=\"foreign\"} 1")
        .await;
}

#[tokio::test]
async fn changes_of_state_are_events() {
    let ground = Ground::new();
    let bus = ground.bus.clone();
    let mut topology = Topology::exchanges();
    topology.queues.push(mesh_bus::Queue {
        name: "listener".into(),
        kind: mesh_bus::QueueKind::Classic,
        dead_letters: false,
    });
    topology.bindings.push(mesh_bus::Binding {
        exchange: mesh_protocol::names::EXCHANGE_EVENTS.into(),
        queue: "listener".into(),
        key: String::new(),
    });
    bus.declare(&topology).await.unwrap();
    let mut heard = bus.consume("listener", 10).await.unwrap();
    let mesh = Mesh::without_agents(config(), ground).await;
    mesh.agent("data-processor", answer_well).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        let delivery = heard.next().await.unwrap();
        let event: Event = serde_json::from_slice(&delivery.message.body).unwrap();
        assert_eq!(event.data["task_id"], *id);
        kinds.push(event.event_type);
        delivery.ack().await.unwrap();
    }
    for kind in [
        EventType::TaskAccepted,
        EventType::StepDispatched,
        EventType::StepCompleted,
        EventType::TaskCompleted,
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}
