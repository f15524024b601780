//! `GET /events` and `ai.events`: everything that happened, from any place, once the store has it.

use crate::mesh::{Ground, Mesh, PATIENCE, answer_well, assertion, config};
use async_trait::async_trait;
use mesh_bus::memory::MemoryBus;
use mesh_bus::{Bus, BusError, Deliveries, Depth, Message, Topology};
use mesh_orchestrator::store::MemoryStore;
use mesh_protocol::event::Event;
use mesh_protocol::names::EXCHANGE_EVENTS;
use mesh_tests::wait_for;
use reqwest::{Response, StatusCode};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Server-sent events as they come.
struct Stream {
    response: Response,
    text: String,
}

/// An event: its id, its name, what it says.
#[derive(Debug, Default, Clone)]
struct Sent {
    id: String,
    name: String,
    data: String,
}

impl Stream {
    async fn open(mesh: &Mesh, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = mesh.client.get(mesh.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next block, be it one without data.
    async fn block(&mut self) -> Sent {
        let whole = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let mut sent = Sent::default();
                    for line in block.lines() {
                        match line.split_once(": ").or_else(|| line.split_once(':')) {
                            Some(("id", text)) => sent.id = text.to_owned(),
                            Some(("event", text)) => sent.name = text.to_owned(),
                            Some(("data", text)) => sent.data = text.to_owned(),
                            _ => {}
                        }
                    }
                    self.text = rest.to_owned();
                    return sent;
                }
                let chunk = self
                    .response
                    .chunk()
                    .await
                    .unwrap()
                    .expect("the stream goes on");
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        });
        whole.await.expect("nothing came")
    }

    /// The next event.
    async fn next(&mut self) -> Sent {
        loop {
            let sent = self.block().await;
            if !sent.data.is_empty() {
                return sent;
            }
        }
    }

    /// Events until one of `name`.
    async fn until(&mut self, name: &str) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            let sent = self.next().await;
            let last = sent.name == name;
            all.push(sent);
            if last {
                return all;
            }
        }
    }
}

fn names(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(|s| s.name.as_str()).collect()
}

const WHOLE: [&str; 4] = [
    "task.accepted",
    "step.dispatched",
    "step.completed",
    "task.completed",
];

#[tokio::test]
async fn what_happens_is_told_in_order_and_again_from_any_place() {
    let mesh = Mesh::start(config()).await;
    let mut live = Stream::open(&mesh, "/events", &[]).await;
    // The place of a client before anything happened.
    let begin = live.block().await.id;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let all = live.until("task.completed").await;
    assert_eq!(names(&all), WHOLE);
    for sent in &all {
        let event: Event = serde_json::from_str(&sent.data).unwrap();
        assert_eq!(event.data["task_id"], *id);
        assert_eq!(event.source, "orchestrator");
    }
    // Every place leads to what comes behind it, in the middle of a change, too.
    let mut places = vec![begin];
    places.extend(all.iter().map(|s| s.id.clone()));
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), 5);
    for (seen, place) in places.iter().take(4).enumerate() {
        let mut again = Stream::open(&mesh, "/events", &[("last-event-id", place)]).await;
        assert_eq!(names(&again.until("task.completed").await), WHOLE[seen..]);
    }
    // After a restart on the same store as well, as far as the store still is.
    let mesh = Mesh::without_agents(config(), mesh.stop().await).await;
    let path = format!("/events?after={}", places[2]);
    let mut again = Stream::open(&mesh, &path, &[]).await;
    assert_eq!(names(&again.until("task.completed").await), WHOLE[2..]);
    let mut start = Stream::open(&mesh, "/events?after=start&type=task.completed", &[]).await;
    assert_eq!(names(&[start.next().await]), ["task.completed"]);
}

#[tokio::test]
async fn a_place_that_is_no_longer_known_is_said_to_be() {
    let mesh = Mesh::start(config()).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    mesh.ended(&id).await;
    for place in ["rubbish", "12345-1-0-1", "memory-99999999999999-0-7"] {
        let mut stream = Stream::open(&mesh, "/events", &[("last-event-id", place)]).await;
        let gap = stream.next().await;
        assert_eq!((gap.name.as_str(), gap.id.as_str()), ("gap", ""), "{place}");
        // What is kept follows.
        assert_eq!(names(&stream.until("task.completed").await), WHOLE);
    }
}

#[tokio::test]
async fn a_caller_hears_of_what_it_may_see() {
    let mesh = Mesh::start(config()).await;
    let (alice, bob) = (assertion("alice", ""), assertion("bob", ""));
    let all = assertion("root", "tasks:read-all");
    let by = |who: &String| [("x-mesh-assertion".to_owned(), who.clone())];
    let task = json!({"task": "data_processing"});
    let mut streams = Vec::new();
    for who in [&alice, &bob, &all] {
        let headers = by(who);
        let headers = [(headers[0].0.as_str(), headers[0].1.as_str())];
        streams.push(Stream::open(&mesh, "/events", &headers).await);
    }
    for who in [&alice, &bob] {
        let headers = [("x-mesh-assertion", who.as_str())];
        mesh.post_with(&task, &headers)
            .await
            .error_for_status()
            .unwrap();
    }
    let mut seen = Vec::new();
    for stream in &mut streams {
        seen.push(stream.until("task.completed").await);
    }
    let task_of = |sent: &Sent| {
        let event: Event = serde_json::from_str(&sent.data).unwrap();
        event.data["task_id"].as_str().unwrap().to_owned()
    };
    let tasks = |sent: &[Sent]| sent.iter().map(task_of).collect::<HashSet<_>>();
    assert_eq!((tasks(&seen[0]).len(), tasks(&seen[1]).len()), (1, 1));
    assert_ne!(tasks(&seen[0]), tasks(&seen[1]));
    seen[2].extend(streams[2].until("task.completed").await);
    assert_eq!(tasks(&seen[2]).len(), 2);
    // One of both tasks, for who sees both.
    let one = tasks(&seen[0]).into_iter().next().unwrap();
    let path = format!("/events?after=start&task={one}");
    let mut stream = Stream::open(&mesh, &path, &[]).await;
    let only = stream.until("task.completed").await;
    assert_eq!((names(&only), tasks(&only).len()), (WHOLE.to_vec(), 1));
    let bad = mesh.get("/events?type=odd").await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn another_replica_tells_of_it_too() {
    let one = Mesh::start(config()).await;
    let ground = Ground {
        bus: one.ground.bus.clone(),
        store: Arc::clone(&one.ground.store),
        quota: Arc::clone(&one.ground.quota),
        hub: Arc::clone(&one.ground.hub),
    };
    let two = Mesh::without_agents(config(), ground).await;
    let mut there = Stream::open(&two, "/events", &[]).await;
    let id = one.submit(&json!({"task": "data_processing"})).await;
    let all = there.until("task.completed").await;
    assert_eq!(names(&all), WHOLE);
    assert!(all.iter().all(|s| s.data.contains(&id)));
    // A place of one is a place of the other.
    let place = all[1].id.as_str();
    let mut here = Stream::open(&one, "/events", &[("last-event-id", place)]).await;
    assert_eq!(names(&here.until("task.completed").await), WHOLE[2..]);
}

/// A broker that takes no events while it is `mute`.
struct Mute {
    bus: Arc<MemoryBus>,
    mute: AtomicBool,
}

#[async_trait]
impl Bus for Mute {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        self.bus.declare(topology).await
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        if message.exchange == EXCHANGE_EVENTS && self.mute.load(Ordering::Relaxed) {
            let detail = "it is mute".to_owned();
            return Err(BusError::Unavailable { detail });
        }
        self.bus.publish(message).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        self.bus.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BusError> {
        self.bus.depth(queue).await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.bus.connected()
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}

/// A queue that hears everything on `ai.events`.
pub async fn listener(bus: &dyn Bus) -> Deliveries {
    let mut topology = Topology::exchanges();
    topology.queues.push(mesh_bus::Queue {
        name: "listener".into(),
        kind: mesh_bus::QueueKind::Classic,
        dead_letters: false,
    });
    topology.bindings.push(mesh_bus::Binding {
        exchange: EXCHANGE_EVENTS.into(),
        queue: "listener".into(),
        key: String::new(),
    });
    bus.declare(&topology).await.unwrap();
    bus.consume("listener", 100).await.unwrap()
}

#[tokio::test]
async fn what_the_broker_did_not_take_it_gets_later_from_whoever_is_there() {
    let ground = Ground::new();
    let mute = Arc::new(Mute {
        bus: ground.bus.clone(),
        mute: AtomicBool::new(true),
    });
    let mut heard = listener(&*ground.bus).await;
    let mesh = Mesh::on_bus(config(), Arc::clone(&mute) as Arc<dyn Bus>, ground).await;
    mesh.agent("data-processor", answer_well).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(mesh.submit(&json!({"task": "data_processing"})).await);
    }
    for id in &ids {
        mesh.ended(id).await;
    }
    // That process never told anybody; the tasks are over, and nobody will take them up.
    let ground = mesh.stop().await;
    let mesh = Mesh::without_agents(config(), ground).await;
    let mut told = Vec::new();
    while told.len() < 4 * ids.len() {
        let delivery = tokio::time::timeout(PATIENCE, heard.next())
            .await
            .unwrap()
            .unwrap();
        let event: Event = serde_json::from_slice(&delivery.message.body).unwrap();
        let properties = &delivery.message.properties;
        let attributes = properties.cloud_event.clone().unwrap();
        assert_eq!(attributes.id, event.id());
        assert_eq!(attributes.kind, event.event_type.as_str());
        assert_eq!(attributes.source, event.source);
        assert_eq!(attributes.time, event.timestamp.to_string());
        assert_eq!(Some(attributes.subject.as_str()), event.task_id());
        assert_eq!(properties.message_id.as_deref(), Some(event.id().as_str()));
        told.push(event.id());
        delivery.ack().await.unwrap();
    }
    // In the order in which they happened, once each.
    let firsts: Vec<_> = ids.iter().map(|id| format!("{id}:task.accepted")).collect();
    let accepted = told.iter().filter(|id| id.ends_with("task.accepted"));
    assert_eq!(accepted.cloned().collect::<Vec<_>>(), firsts);
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), told.len());
    mesh.metric("orchestrator_events_published_total 80").await;
    mesh.metric("orchestrator_events_dropped_total 0").await;
    wait_for("nothing to wait", async || {
        let text = mesh.get("/metrics").await.text().await.unwrap();
        text.contains("orchestrator_events_waiting 0")
    })
    .await;
}

#[tokio::test]
async fn what_fell_out_of_the_log_is_said_to_be_missing() {
    let ground = Ground {
        store: Arc::new(MemoryStore::new(Duration::from_secs(3600)).keeping(10)),
        ..Ground::new()
    };
    let mute = Arc::new(Mute {
        bus: ground.bus.clone(),
        mute: AtomicBool::new(true),
    });
    let mut heard = listener(&*ground.bus).await;
    let mesh = Mesh::on_bus(config(), Arc::clone(&mute) as Arc<dyn Bus>, ground).await;
    mesh.agent("data-processor", answer_well).await;
    let first = Stream::open(&mesh, "/events", &[]).await.block().await.id;
    for _ in 0..20 {
        let id = mesh.submit(&json!({"task": "data_processing"})).await;
        mesh.ended(&id).await;
    }
    // Two changes a task: thirty of forty are gone.
    let mut late = Stream::open(&mesh, "/events", &[("last-event-id", &first)]).await;
    let gap = late.next().await;
    assert_eq!(gap.name, "gap");
    let event: Event = serde_json::from_str(&gap.data).unwrap();
    assert_eq!(event.data["changes"], 30);
    assert_eq!(late.next().await.name, "task.accepted");

    let mesh = Mesh::without_agents(config(), mesh.stop().await).await;
    let mut told = Vec::new();
    while told.len() < 1 + 2 * 10 {
        let next = tokio::time::timeout(PATIENCE, heard.next()).await;
        let delivery = next.unwrap().unwrap();
        let event: Event = serde_json::from_slice(&delivery.message.body).unwrap();
        told.push(event.event_type.as_str());
        delivery.ack().await.unwrap();
    }
    assert_eq!(told.iter().filter(|kind| **kind == "gap").count(), 1);
    assert_eq!(told[0], "gap");
    mesh.metric("orchestrator_events_dropped_total 30").await;
}
