//! kill -9 of the orchestrator's process in the middle of 200 tasks, on RabbitMQ and Redis.

use crate::mesh::{config, publish_result, result_of};
use futures_util::future::join_all;
use mesh_bus::{Bus, BusConfig, Topology};
use mesh_orchestrator::config::{Config, Store};
use mesh_protocol::AgentId;
use mesh_protocol::message::StepTask;
use mesh_protocol::outcome::Outcome;
use mesh_tests::{rabbitmq, redis, server, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const TASKS: usize = 200;

/// How often each idempotency key came in.
pub type Seen = Arc<Mutex<HashMap<String, u32>>>;

pub async fn agent(bus: Arc<dyn Bus>, id: &str, seen: Seen) {
    let id: AgentId = id.parse().unwrap();
    let kind = mesh_bus::QueueKind::default();
    bus.declare(&Topology::exchanges().with_agent(&id, kind))
        .await
        .unwrap();
    let mut deliveries = bus.consume(&id.task_queue(), 20).await.unwrap();
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.next().await {
            let (bus, id, seen) = (Arc::clone(&bus), id.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let step = StepTask::from_json(&delivery.message.body, &id).unwrap();
                let key = delivery.message.properties.idempotency_key.clone().unwrap();
                let first = {
                    let mut seen = seen.lock().unwrap();
                    let count = seen.entry(key.clone()).or_default();
                    *count += 1;
                    *count == 1
                };
                if first {
                    // The work, which is done once for a key.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let result = json!({"key": key});
                let result = result_of(&step, Outcome::Completed { result });
                publish_result(&*bus, serde_json::to_vec(&result).unwrap()).await;
                delivery.ack().await.unwrap();
            });
        }
    });
}

pub fn start(file: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("--config")
        .arg(file)
        .env_remove("PORT")
        .env_remove("REDIS_URL")
        .env_remove("RABBITMQ_URL")
        .env_remove("OLLAMA_URL")
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

pub async fn ready(client: &reqwest::Client, base: &str) {
    wait_for("the orchestrator to be ready", async || {
        match client.get(format!("{base}/ready")).send().await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    })
    .await;
}

/// An orchestrator that is not started yet, and its agents.
pub struct Alone {
    /// Its configuration.
    pub file: PathBuf,
    /// Where it will listen.
    pub base: String,
    /// The bus, past the orchestrator.
    pub agents: Arc<dyn Bus>,
    /// What the agents saw.
    pub seen: Seen,
    /// Holds the file.
    pub _directory: TempDir,
}

/// One over a RabbitMQ and a Redis.
pub async fn alone() -> Alone {
    let (broker, store) = (rabbitmq::shared().await, redis::shared().await);
    let bus: BusConfig =
        serde_json::from_value(json!({"backend": "rabbitmq", "url": broker.vhost().await}))
            .unwrap();
    let port = server::free_port();
    let config = Config {
        listen: ([127, 0, 0, 1], port).into(),
        bus: bus.clone(),
        store: Store::Redis {
            url: store.database().try_into().unwrap(),
            retention_s: 3600,
        },
        ..config()
    };
    let directory = server::directory("orchestrator");
    let file = directory.path().join("orchestrator.json");
    std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
    let agents = mesh_bus::connect(&bus).await.unwrap();
    let seen = Seen::default();
    for id in ["hardware-optimizer", "resource-arbitrator"] {
        agent(Arc::clone(&agents), id, Arc::clone(&seen)).await;
    }
    Alone {
        file,
        base: format!("http://127.0.0.1:{port}"),
        agents,
        seen,
        _directory: directory,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_ends_and_no_step_is_lost() {
    let Alone {
        file,
        base,
        agents,
        seen,
        _directory,
    } = alone().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut process = start(&file);
    ready(&client, &base).await;
    let posts = (0..TASKS).map(|_| async {
        let request = client.post(&base).body(r#"{"task":"system_optimization"}"#);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["task_id"].as_str().unwrap().to_owned()
    });
    let ids = join_all(posts).await;
    wait_for("some steps to be done", async || {
        seen.lock().unwrap().len() > TASKS / 2
    })
    .await;
    process.kill().await.unwrap();
    let begun = seen.lock().unwrap().len();
    assert!(begun < 2 * TASKS, "the kill came too late to show anything");

    let _process = start(&file);
    ready(&client, &base).await;
    for id in &ids {
        wait_for("a task to end", async || {
            let request = client.get(format!("{base}/task/{id}"));
            let task: Value = request.send().await.unwrap().json().await.unwrap();
            assert!(
                task["status"] == "in_progress" || task["status"] == "completed",
                "{task}"
            );
            task["status"] == "completed"
        })
        .await;
    }
    // Every step of every task under one key, and none besides.
    assert_eq!(seen.lock().unwrap().len(), 2 * TASKS);
    agents.close().await;
}
