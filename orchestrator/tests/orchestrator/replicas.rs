//! Two orchestrators on one RabbitMQ and one Redis: they share the runs, and one takes over what the other
//! leaves.

use crate::killed::{Seen, agent, ready, start};
use crate::mesh::config;
use futures_util::future::join_all;
use mesh_bus::{Bus, BusConfig};
use mesh_orchestrator::config::{Config, Store};
use mesh_tests::{rabbitmq, redis, server, wait_for};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Child;

const TASKS: usize = 100;

/// A process and where it listens.
struct Replica {
    process: Child,
    base: String,
}

struct Pair {
    replicas: [Replica; 2],
    agents: Arc<dyn Bus>,
    /// How often each idempotency key reached an agent.
    seen: Seen,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let (broker, store) = (rabbitmq::shared().await, redis::shared().await);
        let url = json!({"backend": "rabbitmq", "url": broker.vhost().await});
        let bus: BusConfig = serde_json::from_value(url).unwrap();
        let database = store.database();
        let directory = server::directory("orchestrator");
        let file = |name: &str| -> (PathBuf, String) {
            let port = server::free_port();
            let config = Config {
                listen: ([127, 0, 0, 1], port).into(),
                bus: bus.clone(),
                store: Store::Redis {
                    url: database.clone().try_into().unwrap(),
                    retention_s: 3600,
                },
                ..config()
            };
            let file = directory.path().join(name);
            std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
            (file, format!("http://127.0.0.1:{port}"))
        };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let replicas = ["a", "b"].map(|name| {
            let (file, base) = file(name);
            Replica {
                process: start(&file),
                base,
            }
        });
        for replica in &replicas {
            ready(&client, &replica.base).await;
        }
        let agents = mesh_bus::connect(&bus).await.unwrap();
        let seen = Seen::default();
        for id in ["hardware-optimizer", "resource-arbitrator"] {
            agent(Arc::clone(&agents), id, Arc::clone(&seen)).await;
        }
        Self {
            replicas,
            agents,
            seen,
            client,
            _directory: directory,
        }
    }

    async fn submit(&self, replica: usize, tasks: usize) -> Vec<String> {
        let base = &self.replicas[replica].base;
        let posts = (0..tasks).map(|_| async {
            let request = self
                .client
                .post(base)
                .body(r#"{"task":"system_optimization"}"#);
            let answer: Value = request.send().await.unwrap().json().await.unwrap();
            answer["task_id"].as_str().unwrap().to_owned()
        });
        join_all(posts).await
    }

    async fn some_steps_done(&self, steps: usize) {
        wait_for("some steps to be done", async || {
            self.seen.lock().unwrap().len() > steps
        })
        .await;
    }

    async fn task(&self, replica: usize, id: &str) -> Value {
        let response = self.get(replica, &format!("/task/{id}")).await;
        response.json().await.unwrap()
    }

    /// Asks again when a connection broke: whoever was stopped closes those that stood idle meanwhile, as soon as it
    /// wakes up.
    async fn get(&self, replica: usize, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.replicas[replica].base);
        let mut left = 100;
        loop {
            match self.client.get(&url).send().await {
                Ok(response) => return response,
                Err(error) => {
                    left -= 1;
                    assert!(left > 0, "{url}: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn all_complete(&self, replica: usize, ids: &[String]) {
        for id in ids {
            wait_for("a task to end", async || {
                let task = self.task(replica, id).await;
                let status = task["status"].as_str().unwrap_or_default();
                assert!(["in_progress", "completed"].contains(&status), "{task}");
                status == "completed"
            })
            .await;
        }
        // Every step of every task under one key, and none besides.
        assert_eq!(self.seen.lock().unwrap().len(), 2 * ids.len());
    }

    async fn metric(&self, replica: usize, name: &str) -> u64 {
        let text = self.get(replica, "/metrics").await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }

    fn signal(&self, replica: usize, name: &str) {
        let pid = self.replicas[replica].process.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(kill.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_reach_the_replica_that_runs_the_task() {
    let pair = Pair::start().await;
    let mut ids = pair.submit(0, TASKS / 2).await;
    ids.extend(pair.submit(1, TASKS / 2).await);
    // Whoever is asked knows all of them.
    pair.all_complete(0, &ids).await;
    pair.all_complete(1, &ids).await;
    let handed_over = pair
        .metric(0, "orchestrator_results_handed_over_total")
        .await
        + pair
            .metric(1, "orchestrator_results_handed_over_total")
            .await;
    assert!(handed_over > 0);
    for replica in [0, 1] {
        let lost = pair
            .metric(replica, "orchestrator_runs_superseded_total")
            .await;
        assert_eq!(lost, 0);
    }
    // No step went out twice.
    assert!(pair.seen.lock().unwrap().values().all(|times| *times == 1));
    pair.agents.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_finishes_what_a_killed_one_began() {
    let mut pair = Pair::start().await;
    // Its own come last, so that it has some when it is killed, however slow the machine is.
    let mut ids = pair.submit(1, TASKS).await;
    ids.extend(pair.submit(0, TASKS).await);
    pair.some_steps_done(TASKS / 2).await;
    pair.replicas[0].process.kill().await.unwrap();
    let begun = pair.seen.lock().unwrap().len();
    assert!(begun < 4 * TASKS, "the kill came too late to show anything");
    pair.all_complete(1, &ids).await;
    assert!(pair.metric(1, "orchestrator_runs_taken_up_total").await > 0);
    pair.agents.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_wakes_up_leaves_what_was_taken_from_it() {
    let pair = Pair::start().await;
    let ids = pair.submit(0, TASKS).await;
    pair.some_steps_done(TASKS / 4).await;
    pair.signal(0, "STOP");
    wait_for("the runs to be taken over", async || {
        pair.metric(1, "orchestrator_runs_taken_up_total").await > 0
    })
    .await;
    // It holds messages that the broker gives to others only when it lets go of them.
    pair.signal(0, "CONT");
    pair.all_complete(1, &ids).await;
    pair.all_complete(0, &ids).await;
    wait_for("it to let go of what was taken", async || {
        pair.metric(0, "orchestrator_tasks_in_flight").await == 0
    })
    .await;
    assert!(pair.metric(0, "orchestrator_runs_superseded_total").await > 0);
    pair.agents.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_wakes_up_twice_goes_on_with_what_came_back_to_it() {
    let pair = Pair::start().await;
    // Its agent is not there yet.
    let posts = (0..10).map(|_| async {
        let body = r#"{"task":"data_processing"}"#;
        let request = pair.client.post(&pair.replicas[0].base).body(body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["task_id"].as_str().unwrap().to_owned()
    });
    let ids = join_all(posts).await;
    let taken_up = async |replica: usize| {
        let name = "orchestrator_runs_taken_up_total";
        wait_for("the runs to be taken up", async || {
            pair.metric(replica, name).await >= 10
        })
        .await;
    };
    pair.signal(0, "STOP");
    taken_up(1).await;
    pair.signal(1, "STOP");
    // Longer than its lease.
    tokio::time::sleep(Duration::from_secs(8)).await;
    pair.signal(0, "CONT");
    taken_up(0).await;
    pair.signal(1, "CONT");
    for id in ["data-processor", "general-agent"] {
        agent(Arc::clone(&pair.agents), id, Arc::clone(&pair.seen)).await;
    }
    for id in &ids {
        wait_for("a task to end", async || {
            let task = pair.task(0, id).await;
            assert_ne!(task["status"], "failed", "{task}");
            task["status"] == "completed"
        })
        .await;
    }
    pair.agents.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_to_all_and_a_task_can_be_followed_from_anywhere() {
    let pair = Pair::start().await;
    let submit = async |replica: usize, wait: &'static str| -> Value {
        let request = pair
            .client
            .post(&pair.replicas[replica].base)
            .header("idempotency-key", "once")
            .header("prefer", wait)
            .body(r#"{"task":"system_optimization"}"#);
        request.send().await.unwrap().json().await.unwrap()
    };
    let first = submit(0, "wait=0").await;
    let again = submit(1, "wait=30").await;
    assert_eq!(again["task_id"], first["task_id"]);
    assert_eq!(again["status"], "completed");
    let id = first["task_id"].as_str().unwrap();
    let mut told = Vec::new();
    for replica in [0, 1] {
        let url = format!("{}/task/{id}/events", pair.replicas[replica].base);
        let request = pair.client.get(url).timeout(Duration::from_secs(30));
        let text = request.send().await.unwrap().text().await.unwrap();
        let events: HashSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("event:"))
            .map(|kind| kind.trim().to_owned())
            .collect();
        assert!(events.contains("task.completed"), "{text}");
        told.push(events);
    }
    assert_eq!(told[0], told[1]);
    pair.agents.close().await;
}
