//! kill -9 of the orchestrator in the middle of tasks that came over the broker: each is one task, each submitter is
//! answered, and everything that happened is told, on `ai.events` and by `GET /events`.

use crate::feed::listener;
use crate::killed::{Alone, alone, ready, start};
use mesh_bus::{Bus, Deliveries, Message, Properties, Queue, QueueKind, Topology};
use mesh_protocol::event::Event;
use mesh_protocol::names::QUEUE_PRIORITY_TASKS;
use mesh_tests::wait_for;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

const TASKS: usize = 150;
/// Of a task of two steps: accepted, dispatched and completed twice, completed.
const EVENTS: usize = 6;

/// What comes, by a name, and how often.
type Heard = Arc<Mutex<HashMap<String, u32>>>;

fn hear(mut deliveries: Deliveries, name: impl Fn(&Message) -> String + Send + 'static) -> Heard {
    let heard = Heard::default();
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.next().await {
            *all.lock()
                .unwrap()
                .entry(name(&delivery.message))
                .or_default() += 1;
            delivery.ack().await.unwrap();
        }
    });
    heard
}

async fn submit(bus: &dyn Bus, number: usize) {
    let message = Message {
        routing_key: QUEUE_PRIORITY_TASKS.to_owned(),
        body: json!({"task": "system_optimization", "payload": {"n": number}})
            .to_string()
            .into(),
        mandatory: true,
        properties: Properties {
            message_id: Some(format!("message {number}")),
            correlation_id: Some(number.to_string()),
            reply_to: Some("answers".to_owned()),
            ..Properties::default()
        },
        ..Message::default()
    };
    bus.publish(message).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_submitter_is_answered_and_everything_is_told() {
    let Alone {
        file,
        base,
        agents: bus,
        seen,
        _directory,
    } = alone().await;
    let mut topology = Topology::exchanges().with_intake(QueueKind::Quorum);
    topology.queues.push(Queue {
        name: "answers".to_owned(),
        kind: QueueKind::Quorum,
        dead_letters: false,
    });
    bus.declare(&topology).await.unwrap();
    let told = hear(listener(&*bus).await, |message| {
        let event: Event = serde_json::from_slice(&message.body).unwrap();
        event.id()
    });
    let answers = hear(bus.consume("answers", 100).await.unwrap(), |message| {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        let number = message.properties.correlation_id.as_deref().unwrap();
        let (kind, task) = (&body["event_type"], &body["task_id"]);
        format!(
            "{number} {} {}",
            kind.as_str().unwrap(),
            task.as_str().unwrap()
        )
    });

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut process = start(&file);
    ready(&client, &base).await;
    let ended = |heard: &Heard| {
        let heard = heard.lock().unwrap();
        heard
            .keys()
            .filter(|name| name.contains("task.completed"))
            .count()
    };
    // Once while tasks are taken, once when the last are at the agents.
    for round in 0..3 {
        for number in (round * TASKS / 3)..((round + 1) * TASKS / 3) {
            submit(&*bus, number).await;
        }
        if round < 2 {
            wait_for("some tasks to end", async || {
                ended(&told) > round * TASKS / 3 + 5
            })
            .await;
            process.kill().await.unwrap();
            process = start(&file);
        }
    }
    wait_for("every submitter to be answered", async || {
        ended(&answers) == TASKS
    })
    .await;
    wait_for("everything to be told", async || {
        told.lock().unwrap().len() == EVENTS * TASKS
    })
    .await;

    // One task for each message, though some came again, and under one name in all answers.
    let answers = answers.lock().unwrap().clone();
    let tasks: HashSet<_> = answers
        .keys()
        .map(|name| name.split(' ').nth(2).unwrap())
        .collect();
    assert_eq!(tasks.len(), TASKS);
    assert_eq!(seen.lock().unwrap().len(), 2 * TASKS);
    assert!(answers.keys().all(|name| !name.contains("task.failed")));

    // The same in the log, from its beginning, without an end missing.
    let url = format!("{base}/events?after=start");
    let mut stream = client.get(url).send().await.unwrap();
    let (mut text, mut ids) = (String::new(), HashSet::new());
    while ids.len() < EVENTS * TASKS {
        let chunk = mesh_tests::within("the log", stream.chunk()).await.unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data {
                let event: Event = serde_json::from_str(data).unwrap();
                assert!(ids.insert(event.id()), "{} is in the log twice", event.id());
            }
            text = rest.to_owned();
        }
    }
    let told: HashSet<_> = told.lock().unwrap().keys().cloned().collect();
    assert_eq!(told, ids);
    bus.close().await;
}
