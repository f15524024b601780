//! Steps in the plan's older forms: no orchestrator made them, and their senders hear what came of them.

use crate::lane::{Lane, Reply, ok, quick};
use crate::start;
use mesh_bus::{Binding, Deliveries, Message, Properties, Queue, QueueKind, Topology};
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::{EXCHANGE_EVENTS, EXCHANGE_TASKS};
use mesh_protocol::outcome::Outcome;
use mesh_tests::{wait_for, within};
use serde_json::json;

const ONE: &str = r#"{"task_id":"t","agent":"data_processor","action":"first","timestamp":"x"}"#;

/// What comes into a queue that hears all events, or none.
async fn queue(lane: &Lane, name: &str, events: bool) -> Deliveries {
    let mut topology = Topology::exchanges();
    topology.queues.push(Queue {
        name: name.to_owned(),
        kind: QueueKind::Classic,
        dead_letters: false,
    });
    topology.bindings.extend(events.then(|| Binding {
        exchange: EXCHANGE_EVENTS.to_owned(),
        queue: name.to_owned(),
        key: String::new(),
    }));
    lane.bus.declare(&topology).await.unwrap();
    lane.bus.consume(name, 10).await.unwrap()
}

async fn event(events: &mut Deliveries) -> (Event, Properties) {
    let delivery = within("an event", events.next()).await.unwrap();
    let event = serde_json::from_slice(&delivery.message.body).unwrap();
    let properties = delivery.message.properties.clone();
    delivery.ack().await.unwrap();
    (event, properties)
}

#[tokio::test]
async fn both_older_forms_are_carried_out() {
    let mut lane = start(vec![ok(json!({}))], quick()).await;
    let one = r#"{"task_id":"t","agent":"data_processor","action":"first","timestamp":"x"}"#;
    let two = r#"{"task_id":"t","task":{"type":"scan","depth":2},"timestamp":"x"}"#;
    // The second is published under the older spelling.
    lane.publish(one, Properties::default()).await;
    let message = Message {
        exchange: EXCHANGE_TASKS.into(),
        routing_key: "task.data_processor.scan".into(),
        body: two.into(),
        mandatory: true,
        ..Message::default()
    };
    lane.bus.publish(message).await.unwrap();
    for _ in 0..2 {
        let result = lane.result().await;
        assert_eq!(result.step_id.as_str(), "data-processor");
        assert!(matches!(result.outcome, Outcome::Completed { .. }));
    }
    let mut actions: Vec<_> = lane
        .agent
        .calls()
        .iter()
        .map(|c| c.body["action"].as_str().unwrap().to_owned())
        .collect();
    actions.sort();
    assert_eq!(actions, ["first", "scan"]);
    lane.stop().await;
}

#[tokio::test]
async fn what_came_of_them_is_an_event_and_an_answer() {
    let mut lane = start(vec![ok(json!({"rows": 3}))], quick()).await;
    let (mut events, mut answers) = (
        queue(&lane, "events", true).await,
        queue(&lane, "answers", false).await,
    );
    let asking = Properties {
        reply_to: Some("answers".to_owned()),
        correlation_id: Some("question".to_owned()),
        ..Properties::default()
    };
    lane.publish(ONE, asking).await;
    let answer = within("an answer", answers.next()).await.unwrap();
    let properties = &answer.message.properties;
    assert_eq!(properties.correlation_id.as_deref(), Some("question"));
    let (told, properties) = event(&mut events).await;
    assert_eq!(told.event_type, EventType::StepCompleted);
    assert_eq!(told.data["task_id"], "t");
    assert_eq!(told.data["result"], json!({"rows": 3}));
    assert_eq!(told.source, "data-processor");
    let first = properties.cloud_event.unwrap();
    assert_eq!(first.subject, "t");
    // Once more, it is the same event once more.
    lane.publish(ONE, Properties::default()).await;
    let (_, properties) = event(&mut events).await;
    assert_eq!(properties.cloud_event.unwrap().id, first.id);
    lane.result().await;
    lane.stop().await;
}

#[tokio::test]
async fn a_failure_is_one_and_a_large_result_is_left_out() {
    let large = json!("x".repeat(70_000));
    let script = vec![Reply::Answer(422, "", b"no".to_vec()), ok(large)];
    let lane = start(script, quick()).await;
    let mut events = queue(&lane, "events", true).await;
    lane.publish(ONE, Properties::default()).await;
    let (told, _) = event(&mut events).await;
    assert_eq!(told.event_type, EventType::StepFailed);
    assert_eq!(told.data["error"]["code"], "agent_status");
    lane.publish(ONE.replace("first", "second"), Properties::default())
        .await;
    let (told, _) = event(&mut events).await;
    assert_eq!(told.data["result_bytes"], 70_002);
    assert!(told.data.get("result").is_none());
    lane.stop().await;
}

#[tokio::test]
async fn nobody_to_answer_makes_no_dead_letter() {
    let lane = start(vec![ok(json!(1))], quick()).await;
    let gone = Properties {
        reply_to: Some("nowhere".to_owned()),
        ..Properties::default()
    };
    lane.publish(ONE, gone).await;
    let done = r#"agent_tasks_processed_total{agent="data-processor",outcome="completed"} 1"#;
    wait_for("the step to be done", async || {
        lane.admin("/metrics").await.1.contains(done)
    })
    .await;
    assert_eq!(lane.dead_letters().await, 0);
    lane.stop().await;
}
