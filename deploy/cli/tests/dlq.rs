//! `mesh dlq` over a real RabbitMQ: what an agent failed is looked at, dropped, and replayed to success.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used)]

use mesh_bus::{BrokerUrl, Bus, BusConfig, Deliveries, Message, QueueKind, Topology};
use mesh_protocol::AgentId;
use mesh_tests::{rabbitmq, within};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const MESH: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
    orchestrator: {planner: {general_agent: worker}}\n\
    messaging: {backend: rabbitmq, url: {env: RABBITMQ_URL}}\n\
    store: {backend: redis, url: {env: REDIS_URL}}\n\
    agents: [{id: worker, endpoint: 'http://127.0.0.1:9'}]\n";

fn worker() -> AgentId {
    "worker".parse().unwrap()
}

/// An agent that is busy until it is told otherwise.
async fn agent(works: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let works = Arc::clone(&works);
            tokio::spawn(async move {
                // One short request a connection: it comes in one piece.
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                let status = if works.load(Ordering::Relaxed) {
                    200
                } else {
                    503
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

async fn mesh(dir: &Path, url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RABBITMQ_URL", url);
    let done = tokio::task::spawn_blocking(move || command.output());
    within("the command", done).await.unwrap().unwrap()
}

/// What a command prints as JSON; it has to succeed.
async fn told(dir: &Path, url: &str, arguments: &[&str]) -> Value {
    let out = mesh(dir, url, arguments).await;
    assert!(out.status.success(), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn result(results: &mut Deliveries) -> Value {
    let delivery = within("a result", results.next()).await.unwrap();
    let result = serde_json::from_slice(&delivery.message.body).unwrap();
    delivery.ack().await.unwrap();
    result
}

async fn start_sidecar(bus: &Arc<dyn Bus>, agent: SocketAddr) -> CancellationToken {
    let config = json!({
        "service": "worker",
        "app": {"url": format!("http://{agent}"), "health": {"check": "tcp"}},
        "admin_listen": "127.0.0.1:0",
        "worker": {
            "bus": {"backend": "memory"},
            "max_attempts": 1,
            "delivery": {"delayed_retries": 0},
        },
    });
    let deps = mesh_sidecar::Deps {
        bus: Some(Arc::clone(bus)),
        registry: mesh_sidecar::registry::Memory::new(),
        tracer: mesh_trace::Tracer::off(),
        logs: None,
        metrics: prometheus::Registry::new(),
    };
    let config = serde_json::from_value(config).unwrap();
    let bound = mesh_sidecar::build(config, deps).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(bound.run(stop.clone()));
    stop
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_dropped_and_replayed_to_success() {
    let url = rabbitmq::shared().await.vhost().await;
    let broker = BrokerUrl::try_from(url.clone()).unwrap();
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url: broker })
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("mesh.yaml"), MESH).unwrap();
    let none = mesh(dir, &url, &["dlq", "list"]).await;
    assert_eq!(
        text(&none.stdout),
        "no dead letters\n",
        "{}",
        text(&none.stderr)
    );

    let topology = Topology::exchanges()
        .with_orchestrator(QueueKind::Quorum)
        .with_agent(&worker(), QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let mut results = bus
        .consume("agent.orchestrator.coordination", 10)
        .await
        .unwrap();
    let works = Arc::new(AtomicBool::new(false));
    let agent = agent(Arc::clone(&works)).await;
    let stop = start_sidecar(&bus, agent).await;
    for task in ["t1", "t2", "t3"] {
        let step = json!({"task_id": task, "step_id": "s", "agent": "worker", "action": "a", "role": "r",
            "payload": {"n": 1}, "assertion": "a.bearers.token"});
        let message = Message {
            routing_key: worker().task_queue(),
            body: step.to_string().into(),
            mandatory: true,
            ..Message::default()
        };
        bus.publish(message).await.unwrap();
        let failed = result(&mut results).await;
        assert_eq!(
            (&failed["task_id"], &failed["status"]),
            (&task.into(), &"failed".into())
        );
    }
    let letters = async || bus.depth(&worker().dead_queue()).await.unwrap().messages;
    mesh_tests::wait_for("the dead letters", async || letters().await == 3).await;

    // Looking changes nothing, however often.
    for _ in 0..3 {
        let listed = told(dir, &url, &["dlq", "list", "-o", "json"]).await;
        let tasks = listed["entries"].as_array().unwrap().iter();
        let tasks: Vec<&str> = tasks.map(|e| e["task_id"].as_str().unwrap()).collect();
        assert_eq!(tasks, ["t1", "t2", "t3"]);
        assert_eq!(listed["more"], 0);
    }
    let shown = told(dir, &url, &["dlq", "show", "t1", "-o", "json"]).await;
    let entry = &shown[0];
    assert_eq!(entry["queue"], "agent.worker.tasks");
    assert!(entry["reason"].as_str().unwrap().contains("503"), "{entry}");
    assert_eq!(entry["history"].as_array().unwrap().len(), 1);
    assert_eq!(entry["message"]["payload"], json!({"n": 1}));
    assert!(entry["died"].is_string() && entry["calls"] == 1);
    assert!(!shown.to_string().contains("bearers"), "{shown}");
    let people = mesh(dir, &url, &["dlq", "list", "--agent", "worker"]).await;
    assert!(
        text(&people.stdout).contains("agent_status"),
        "{}",
        text(&people.stdout)
    );

    let dropped = told(dir, &url, &["dlq", "drop", "t2", "-o", "json"]).await;
    assert_eq!(dropped["dropped"].as_array().unwrap().len(), 1);
    let absent = mesh(dir, &url, &["dlq", "replay", "t2"]).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("no dead letter of task t2"));

    works.store(true, Ordering::Relaxed);
    let replayed = mesh(dir, &url, &["dlq", "replay", "t3"]).await;
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    assert!(text(&replayed.stdout).contains("1 dead letter replayed"));
    let done = result(&mut results).await;
    assert_eq!(
        (&done["task_id"], &done["status"]),
        (&"t3".into(), &"completed".into())
    );
    let all = told(dir, &url, &["dlq", "replay", "--all", "-o", "json"]).await;
    assert_eq!(all["replayed"][0]["task_id"], "t1");
    assert_eq!(result(&mut results).await["task_id"], "t1");
    let none = mesh(dir, &url, &["dlq", "list"]).await;
    assert_eq!(text(&none.stdout), "no dead letters\n");
    stop.cancel();
}

/// Nobody waits for a step whose time was up: only whoever names its task has it done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_replayed_is_what_was_not_late() {
    let url = rabbitmq::shared().await.vhost().await;
    let broker = BrokerUrl::try_from(url.clone()).unwrap();
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url: broker })
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("mesh.yaml"), MESH).unwrap();
    let topology = Topology::exchanges().with_agent(&worker(), QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let depth = async |queue: String| bus.depth(&queue).await.unwrap().messages;
    for (task, expiration_ms) in [("late", Some(1)), ("failed", None)] {
        let step =
            json!({"task_id": task, "step_id": "s", "agent": "worker", "action": "a", "role": "r"});
        let message = Message {
            routing_key: worker().task_queue(),
            body: step.to_string().into(),
            mandatory: true,
            properties: mesh_bus::Properties {
                expiration_ms,
                ..Default::default()
            },
            ..Message::default()
        };
        bus.publish(message).await.unwrap();
        mesh_tests::wait_for("the late one to die", async || {
            depth(worker().dead_queue()).await == 1
        })
        .await;
    }
    let mut steps = bus.consume(&worker().task_queue(), 1).await.unwrap();
    let failed = within("the step", steps.next()).await.unwrap();
    failed.dead_letter("agent_status: 503").await.unwrap();
    mesh_tests::wait_for("both to be dead", async || {
        depth(worker().dead_queue()).await == 2
    })
    .await;
    let replayed = told(dir, &url, &["dlq", "replay", "--all", "-o", "json"]).await;
    assert_eq!(replayed["replayed"].as_array().unwrap().len(), 1);
    assert_eq!(replayed["replayed"][0]["task_id"], "failed");
    assert_eq!(replayed["expired"], 1);
    let again = within("the step", steps.next()).await.unwrap();
    again.ack().await.unwrap();
    let people = mesh(dir, &url, &["dlq", "replay", "--all"]).await;
    let said = text(&people.stdout);
    assert!(
        said.contains("1 dead letter left whose time was up"),
        "{said}"
    );
    let named = told(dir, &url, &["dlq", "replay", "late", "-o", "json"]).await;
    assert_eq!(named["replayed"][0]["task_id"], "late");
    assert_eq!(depth(worker().dead_queue()).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("mesh.yaml"), MESH).unwrap();
    let memory = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
        orchestrator: {planner: {general_agent: a}}\nagents: [{id: a, run: {builtin: general-agent}}]\n";
    std::fs::write(dir.join("memory.yaml"), memory).unwrap();
    let nowhere = "amqp://guest:hunter2@127.0.0.1:1";
    for (url, arguments, code, why) in [
        (nowhere, &["dlq", "list"][..], 1, "unavailable"),
        (
            nowhere,
            &["dlq", "list", "--agent", "nobody"],
            1,
            "no agent nobody",
        ),
        (nowhere, &["dlq", "replay"], 64, "--all"),
        (nowhere, &["dlq", "drop", "t", "--all"], 64, "--all"),
        ("", &["dlq", "list"], 1, "RABBITMQ_URL"),
        ("", &["dlq", "list", "--file", "memory.yaml"], 1, "memory"),
    ] {
        let out = mesh(dir, url, arguments).await;
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
