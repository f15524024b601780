//! Two orchestrators, one GPU, on RabbitMQ and Redis: never two steps at once, whoever is killed.

use crate::killed::{ready, start};
use crate::mesh::{config, publish_result, result_of};
use futures_util::future::join_all;
use mesh_bus::{Bus, BusConfig, Topology};
use mesh_orchestrator::config::{Config, Store};
use mesh_orchestrator::resources::contract::amounts;
use mesh_protocol::AgentId;
use mesh_protocol::message::StepTask;
use mesh_protocol::outcome::Outcome;
use mesh_tests::{rabbitmq, redis, server, wait_for};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TASKS: usize = 50;
const AGENT: &str = "data-processor";

/// What the agent saw.
#[derive(Default)]
struct Seen {
    keys: Mutex<HashSet<String>>,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

/// Takes as many steps as there are, and counts those whose work goes on at the same time. The work of a key is done once,
/// as agents do that honour it.
async fn agent(bus: Arc<dyn Bus>, seen: Arc<Seen>) {
    let id: AgentId = AGENT.parse().unwrap();
    let topology = Topology::exchanges().with_agent(&id, mesh_bus::QueueKind::default());
    bus.declare(&topology).await.unwrap();
    let mut deliveries = bus.consume(&id.task_queue(), 20).await.unwrap();
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.next().await {
            let (bus, id, seen) = (Arc::clone(&bus), id.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let step = StepTask::from_json(&delivery.message.body, &id).unwrap();
                let key = delivery.message.properties.idempotency_key.clone().unwrap();
                if seen.keys.lock().unwrap().insert(key) {
                    let now = seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.most.fetch_max(now, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    seen.at_once.fetch_sub(1, Ordering::SeqCst);
                }
                let outcome = Outcome::Completed { result: json!(1) };
                let result = result_of(&step, outcome);
                publish_result(&*bus, serde_json::to_vec(&result).unwrap()).await;
                delivery.ack().await.unwrap();
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gpu_has_one_step_at_a_time_though_a_replica_is_killed() {
    let (broker, store) = (rabbitmq::shared().await, redis::shared().await);
    let url = json!({"backend": "rabbitmq", "url": broker.vhost().await});
    let bus: BusConfig = serde_json::from_value(url).unwrap();
    let database = store.database();
    let directory = server::directory("arbitration");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut replicas = Vec::new();
    for name in ["a", "b"] {
        let port = server::free_port();
        let mut config = Config {
            listen: ([127, 0, 0, 1], port).into(),
            bus: bus.clone(),
            store: Store::Redis {
                url: database.clone().try_into().unwrap(),
                retention_s: 3600,
            },
            resources: amounts(&[("gpu", 1), ("memory", 4)]),
            ..config()
        };
        for agent in config.agents.iter_mut().filter(|a| a.id.as_str() == AGENT) {
            agent.resources = amounts(&[("gpu", 1), ("memory", 2)]);
        }
        let file = directory.path().join(name);
        std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        replicas.push((start(&file), format!("http://127.0.0.1:{port}")));
    }
    for (_, base) in &replicas {
        ready(&client, base).await;
    }
    let agents = mesh_bus::connect(&bus).await.unwrap();
    let seen = Arc::new(Seen::default());
    agent(Arc::clone(&agents), Arc::clone(&seen)).await;
    let get = async |base: &str, path: &str| -> Value {
        let response = client.get(format!("{base}{path}")).send().await.unwrap();
        response.json().await.unwrap()
    };
    let posts = (0..TASKS).map(|n| {
        let (client, base) = (client.clone(), replicas[n % 2].1.clone());
        async move {
            let request = client.post(base).body(r#"{"task":"data_processing"}"#);
            let answer: Value = request.send().await.unwrap().json().await.unwrap();
            answer["task_id"].as_str().unwrap().to_owned()
        }
    });
    let ids = join_all(posts).await;
    let survivor = replicas[1].1.clone();
    wait_for("some steps to be done", async || {
        seen.keys.lock().unwrap().len() >= TASKS / 5
    })
    .await;
    let standing = get(&survivor, "/resources").await;
    assert_eq!(standing["resources"]["gpu"]["capacity"], 1, "{standing}");
    assert!(standing["waiting"].as_u64().unwrap() > 0, "{standing}");
    assert!(standing["oldest_wait_ms"].is_u64(), "{standing}");
    let waits = get(&survivor, &format!("/task/{}", ids[TASKS - 1])).await;
    if waits["steps"][AGENT]["status"] == "waiting" {
        assert_eq!(
            waits["steps"][AGENT]["waiting_for"],
            json!(["gpu", "memory"])
        );
    }
    replicas[0].0.kill().await.unwrap();
    let begun = seen.keys.lock().unwrap().len();
    assert!(begun < TASKS, "the kill came too late to show anything");
    for id in &ids {
        wait_for("a task to end", async || {
            let task = get(&survivor, &format!("/task/{id}")).await;
            let status = task["status"].as_str().unwrap_or_default();
            assert!(["in_progress", "completed"].contains(&status), "{task}");
            status == "completed"
        })
        .await;
    }
    assert_eq!(seen.keys.lock().unwrap().len(), TASKS);
    assert_eq!(seen.most.load(Ordering::SeqCst), 1);
    wait_for("everything to be given back", async || {
        let standing = get(&survivor, "/resources").await;
        standing["resources"]["gpu"]["in_use"] == 0 && standing["waiting"] == 0
    })
    .await;
    agents.close().await;
}
