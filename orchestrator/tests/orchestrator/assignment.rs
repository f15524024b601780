//! Which of two agents with one capability gets the work, on RabbitMQ: one is slow, has a backlog, fails, is away, and is
//! well again.

use crate::mesh::{Ground, Mesh, config, publish_result, result_of};
use futures_util::future::join_all;
use mesh_bus::{Bus, BusConfig, Message, QueueKind, Topology};
use mesh_orchestrator::config::{Agent, Config};
use mesh_protocol::AgentId;
use mesh_protocol::message::StepTask;
use mesh_protocol::names::EXCHANGE_TASKS;
use mesh_protocol::outcome::{Outcome, StepError};
use mesh_tests::{rabbitmq, wait_for};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How an agent behaves.
#[derive(Default)]
struct Manner {
    takes_ms: AtomicU64,
    fails: AtomicBool,
}

struct Bench {
    mesh: Mesh,
    bus: Arc<dyn Bus>,
    manners: [Arc<Manner>; 2],
    loops: Mutex<Vec<JoinHandle<()>>>,
}

const NAMES: [&str; 2] = ["worker-a", "worker-b"];

fn two_workers() -> Config {
    let agent = |name: &str| Agent {
        id: name.parse().unwrap(),
        capabilities: vec!["crunch".to_owned()],
        queue_kind: None,
        description: String::new(),
        concurrency: 1,
        resources: Default::default(),
        originators: None,
    };
    Config {
        agents: NAMES.map(agent).to_vec(),
        planner: mesh_orchestrator::config::Planner {
            general_agent: None,
            ..config().planner
        },
        ..config()
    }
}

/// Does one step after the other, as its manner says.
async fn agent(bus: Arc<dyn Bus>, name: &str, manner: Arc<Manner>) -> JoinHandle<()> {
    let id: AgentId = name.parse().unwrap();
    let topology = Topology::exchanges().with_agent(&id, QueueKind::default());
    bus.declare(&topology).await.unwrap();
    let mut deliveries = bus.consume(&id.task_queue(), 1).await.unwrap();
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.next().await {
            let Ok(step) = StepTask::from_json(&delivery.message.body, &id) else {
                delivery.ack().await.unwrap();
                continue;
            };
            let begun = mesh_protocol::Timestamp::now();
            let takes = manner.takes_ms.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(takes)).await;
            let outcome = if manner.fails.load(Ordering::Relaxed) {
                let detail = "agent answered 503 Service Unavailable";
                Outcome::Failed {
                    error: StepError::new("agent_status", detail),
                }
            } else {
                Outcome::Completed { result: json!(1) }
            };
            let mut result = result_of(&step, outcome);
            result.started_at = begun;
            publish_result(&*bus, serde_json::to_vec(&result).unwrap()).await;
            delivery.ack().await.unwrap();
        }
    })
}

impl Bench {
    async fn start() -> Self {
        let broker = rabbitmq::shared().await;
        let connect: BusConfig =
            serde_json::from_value(json!({"backend": "rabbitmq", "url": broker.vhost().await}))
                .unwrap();
        let own = mesh_bus::connect(&connect).await.unwrap();
        let mesh = Mesh::on_bus(two_workers(), own, Ground::new()).await;
        wait_for("the queues to be declared", async || {
            mesh.get("/ready").await.status() == 200
        })
        .await;
        let bus = mesh_bus::connect(&connect).await.unwrap();
        let bench = Self {
            mesh,
            bus,
            manners: Default::default(),
            loops: Mutex::default(),
        };
        for place in [0, 1] {
            bench.begin(place).await;
        }
        bench
    }

    async fn begin(&self, place: usize) {
        let manner = Arc::clone(&self.manners[place]);
        manner.takes_ms.store(5, Ordering::Relaxed);
        let running = agent(Arc::clone(&self.bus), NAMES[place], manner).await;
        self.loops.lock().unwrap().push(running);
    }

    /// Submits one task and waits for its end: the assignment of its step.
    async fn one(&self, payload: Value) -> Value {
        let id = self
            .mesh
            .submit(&json!({"task": "crunch", "payload": payload}))
            .await;
        let task = self.mesh.ended(&id).await;
        task["plan"]["execution_plan"][0]["assignment"].clone()
    }

    /// Returns when what the broker said before is asked for anew.
    async fn figures_are_old(&self) {
        tokio::time::sleep(Duration::from_millis(3_100)).await;
    }

    /// How many of `count` tasks went to each.
    async fn many(&self, count: usize) -> [usize; 2] {
        let mut times = [0; 2];
        for _ in 0..count {
            let assignment = self.one(json!({})).await;
            times[NAMES
                .iter()
                .position(|n| assignment["chosen"] == *n)
                .unwrap()] += 1;
        }
        times
    }

    /// The same of tasks that are submitted together, so that queues grow.
    async fn together(&self, count: usize) -> [usize; 2] {
        let all = (0..count).map(|_| self.one(json!({})));
        let mut times = [0; 2];
        for assignment in join_all(all).await {
            times[NAMES
                .iter()
                .position(|n| assignment["chosen"] == *n)
                .unwrap()] += 1;
        }
        times
    }

    /// Submits until that one gets some again.
    async fn until(&self, place: usize, count: usize) {
        let begun = Instant::now();
        let mut times = 0;
        while times < count {
            assert!(
                begun.elapsed() < mesh_tests::GENEROUS,
                "it got {times} only"
            );
            times += self.together(6).await[place];
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quick_one_gets_the_work_and_the_slow_one_when_it_is_quick_again() {
    let bench = Bench::start().await;
    // Nothing is known: both take part.
    let first = bench.together(8).await;
    assert!(first.iter().all(|&n| n >= 2), "{first:?}");
    bench.manners[0].takes_ms.store(200, Ordering::Relaxed);
    // Learns it within some steps.
    for _ in 0..4 {
        bench.together(6).await;
    }
    let times = bench.many(10).await;
    assert!(times[1] >= 9, "{times:?}");
    let assignment = bench.one(json!({})).await;
    assert_eq!(assignment["capability"], "crunch");
    assert_eq!(assignment["why"], "soonest", "{assignment}");
    assert_eq!(assignment["candidates"][0]["agent"], "worker-b");
    let expected = |place: usize| {
        assignment["candidates"][place]["expected_ms"]
            .as_u64()
            .unwrap()
    };
    assert!(expected(0) < expected(1), "{assignment}");
    // Now it is the other way round.
    bench.manners[0].takes_ms.store(5, Ordering::Relaxed);
    bench.manners[1].takes_ms.store(400, Ordering::Relaxed);
    bench.until(0, 10).await;
    let metrics = bench.mesh.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("orchestrator_assignments_total{agent=\"worker-b\",reason=\"soonest\"}")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_others_made_counts_until_it_is_gone() {
    let bench = Bench::start().await;
    bench.many(8).await;
    // Others' steps, which this orchestrator did not send, wait behind one that takes for ever.
    let a: AgentId = NAMES[0].parse().unwrap();
    let queue = a.task_queue();
    bench.loops.lock().unwrap()[0].abort();
    let stalled = bench.bus.consume(&queue, 1).await.unwrap();
    for n in 0..200 {
        let message = Message {
            exchange: EXCHANGE_TASKS.to_owned(),
            routing_key: a.execute_key(),
            body: json!({"backlog": n}).to_string().into(),
            mandatory: true,
            ..Message::default()
        };
        bench.bus.publish(message).await.unwrap();
    }
    wait_for("the backlog to be there", async || {
        let depth = bench.bus.depth(&queue).await.unwrap();
        depth.messages >= 199 && depth.consumers == 1
    })
    .await;
    bench.figures_are_old().await;
    let times = bench.many(15).await;
    assert_eq!(times, [0, 15]);
    let assignment = bench.one(json!({})).await;
    let other = &assignment["candidates"][1];
    assert_eq!(other["agent"], NAMES[0]);
    assert!(other["queue"].as_u64().unwrap() >= 199, "{assignment}");
    drop(stalled);
    bench.begin(0).await;
    bench.until(0, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_is_passed_over_and_tried_again() {
    let bench = Bench::start().await;
    bench.many(4).await;
    bench.manners[0].fails.store(true, Ordering::Relaxed);
    bench.together(12).await;
    let times = bench.many(12).await;
    assert!(times[1] >= 10, "{times:?}");
    bench.manners[0].fails.store(false, Ordering::Relaxed);
    bench.until(0, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_with_its_agent_until_that_is_away() {
    let bench = Bench::start().await;
    let mut homes = HashSet::new();
    for key in 0..12 {
        let first = bench.one(json!({"sticky": format!("user-{key}")})).await;
        let again = bench.one(json!({"sticky": format!("user-{key}")})).await;
        assert_eq!(first["chosen"], again["chosen"]);
        assert_eq!(again["why"], "sticky");
        homes.insert(first["chosen"].to_string());
    }
    assert_eq!(homes.len(), 2);
    let key = json!({"sticky": "me"});
    let home = bench.one(key.clone()).await["chosen"].clone();
    let place = NAMES.iter().position(|n| home == *n).unwrap();
    bench.loops.lock().unwrap()[place].abort();
    let queue = NAMES[place].parse::<AgentId>().unwrap().task_queue();
    wait_for("it to be gone", async || {
        bench.bus.depth(&queue).await.unwrap().consumers == 0
    })
    .await;
    bench.figures_are_old().await;
    let away = bench.one(key.clone()).await;
    assert_eq!(away["why"], "sticky_fallback", "{away}");
    assert_ne!(away["chosen"], home);
    bench.begin(place).await;
    bench.figures_are_old().await;
    let back = bench.one(key).await;
    assert_eq!((&back["chosen"], &back["why"]), (&home, &json!("sticky")));
}
