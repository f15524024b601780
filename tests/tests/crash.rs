//! `kill -9` of the orchestrator in the middle of 200 tasks, over a real RabbitMQ and a real Redis.
//!
//! Orchestrator and sidecars are the programs that users run; the agents are in this process, so that
//! their effects can be counted.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use mesh_tests::binary::binary;
use mesh_tests::server::{Server, directory, free_port};
use mesh_tests::{rabbitmq, redis, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TASKS: usize = 200;
const CLIENTS: usize = 8;
const AGENTS: [&str; 2] = ["first-worker", "second-worker"];

/// How often an agent was called, by idempotency key.
type Calls = Arc<Mutex<HashMap<String, usize>>>;

async fn process(
    State(calls): State<Calls>,
    headers: HeaderMap,
    Json(step): Json<Value>,
) -> Json<Value> {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    *calls.lock().unwrap().entry(key).or_default() += 1;
    // The work itself: long enough that a kill meets steps at the agents.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Json(json!({"done": step["payload"]["number"]}))
}

async fn agent(calls: Calls) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new()
        .route("/process", post(process))
        .route("/health", get(|| async { "ok" }))
        .with_state(calls);
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn write(directory: &Path, name: &str, config: &Value) -> String {
    let file = directory.join(name);
    std::fs::write(&file, config.to_string()).unwrap();
    file.display().to_string()
}

struct Orchestrator {
    file: String,
    home: tempfile::TempDir,
    port: u16,
}

impl Orchestrator {
    async fn start(&self) -> Server {
        let arguments = ["--config", self.file.as_str()];
        let server = Server::start(&binary("orchestrator"), &arguments, &[], self.home.path());
        server.listens_on(self.port).await;
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Submits until one task is answered with an id; what fails meanwhile was never promised.
async fn submit(client: &reqwest::Client, url: &str, number: usize) -> String {
    let body = json!({"task_type": "pair", "payload": {"number": number}}).to_string();
    loop {
        if let Ok(response) = client.post(url).body(body.clone()).send().await
            && response.status() == 200
            && let Ok(answer) = response.json::<Value>().await
        {
            return answer["task_id"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_lost_or_done_twice_when_the_orchestrator_is_killed() {
    let broker = rabbitmq::shared().await.vhost().await;
    let store = redis::shared().await.database();
    let bus = json!({"backend": "rabbitmq", "url": broker});
    let calls = Calls::default();
    let home = directory("crash");
    let mut sidecars = Vec::new();
    for agent_id in AGENTS {
        let endpoint = format!("http://127.0.0.1:{}", agent(Arc::clone(&calls)).await);
        let admin = free_port();
        let config = json!({
            "service": agent_id,
            "app": {"url": endpoint},
            "admin_listen": format!("127.0.0.1:{admin}"),
            "worker": {"bus": bus},
        });
        let place = directory("sidecar");
        let file = write(place.path(), "sidecar.json", &config);
        let sidecar = Server::start(&binary("sidecar"), &["--config", &file], &[], place.path());
        sidecar.listens_on(admin).await;
        sidecars.push((sidecar, place));
    }
    let port = free_port();
    let config = json!({
        "listen": format!("127.0.0.1:{port}"),
        "agents": AGENTS.map(|id| json!({"id": id})),
        "planner": {"rules": {"pair": AGENTS}},
        "bus": bus,
        "store": {"backend": "redis", "url": store},
        "assertions": {"audience": "test", "keys": []},
    });
    let orchestrator = Orchestrator {
        file: write(home.path(), "orchestrator.json", &config),
        home,
        port,
    };
    let mut life = orchestrator.start().await;

    let client = reqwest::Client::new();
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|first| {
            let (client, ids) = (client.clone(), Arc::clone(&ids));
            let url = orchestrator.url("/orchestrate");
            tokio::spawn(async move {
                for number in (first..TASKS).step_by(CLIENTS) {
                    let id = submit(&client, &url, number).await;
                    ids.lock().unwrap().push(id);
                }
            })
        })
        .collect();

    // Once while clients submit, once while the last steps are at the agents.
    for accepted in [TASKS / 3, TASKS] {
        wait_for("tasks to be accepted", || async {
            ids.lock().unwrap().len() >= accepted
        })
        .await;
        life.kill().await;
        life = orchestrator.start().await;
    }
    for submitting in clients {
        submitting.await.unwrap();
    }

    let ids = ids.lock().unwrap().clone();
    assert_eq!(ids.len(), TASKS);
    for id in &ids {
        let url = orchestrator.url(&format!("/task/{id}"));
        wait_for("every task to end", || async {
            let task: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
            match task["status"].as_str() {
                Some("completed") => true,
                Some("pending" | "in_progress") => false,
                _ => panic!("{task}"),
            }
        })
        .await;
    }
    // An agent that honours the key does nothing twice only if a step keeps its key over all lives.
    let calls = calls.lock().unwrap().clone();
    for id in &ids {
        let keys = calls
            .keys()
            .filter(|key| key.starts_with(id.as_str()))
            .count();
        assert_eq!(keys, AGENTS.len(), "steps of {id}");
    }
    life.stop().await;
    for (sidecar, _place) in sidecars {
        sidecar.stop().await;
    }
}
