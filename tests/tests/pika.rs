//! The plan's own publishers: pika against RabbitMQ, with the orchestrator and a sidecar as users run them.
//!
//! Both forms of the plan into both places, with and without a queue for the answer. The agents are in this
//! process, so that what they were asked can be read.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use mesh_bus::{Bus, BusConfig};
use mesh_tests::binary::{binary, program_of};
use mesh_tests::server::{Server, directory, free_port};
use mesh_tests::{rabbitmq, redis, wait_for};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const AGENT: &str = "data-processor";

/// What the agent was asked, and how many questions it may answer yet.
struct Agent {
    asked: Mutex<Vec<Value>>,
    may_answer: Semaphore,
}

async fn process(State(agent): State<Arc<Agent>>, Json(step): Json<Value>) -> Json<Value> {
    agent.asked.lock().unwrap().push(step.clone());
    agent.may_answer.acquire().await.unwrap().forget();
    Json(json!({"did": step["action"]}))
}

/// Everything that a publisher of the plan meets.
struct Plan {
    url: String,
    bus: Arc<dyn Bus>,
    agent: Arc<Agent>,
    orchestrator: String,
    _running: Vec<(Server, TempDir)>,
}

impl Plan {
    /// With queues of `kind`, an agent that may answer `answers` questions, and room for `max_runs` tasks.
    async fn start(kind: &str, answers: usize, max_runs: usize) -> Self {
        let url = rabbitmq::shared().await.vhost().await;
        // Before anything of ours is there.
        publish(json!({"url": url, "declare": true, "messages": []})).await;
        let agent = Arc::new(Agent {
            asked: Mutex::default(),
            may_answer: Semaphore::new(answers),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route("/process", post(process))
            .route("/health", get(|| async { "ok" }))
            .with_state(Arc::clone(&agent));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let bus = json!({"backend": "rabbitmq", "url": url});
        let (admin, port) = (free_port(), free_port());
        let sidecar = json!({
            "service": AGENT,
            "app": {"url": format!("http://{address}")},
            "admin_listen": format!("127.0.0.1:{admin}"),
            "worker": {"bus": bus, "queue_kind": kind, "concurrency": 1},
        });
        let orchestrator = json!({
            "listen": format!("127.0.0.1:{port}"),
            "agents": [{"id": AGENT, "capabilities": ["data_processing"]}],
            "planner": {},
            "limits": {"max_runs": max_runs},
            "bus": bus,
            "queue_kind": kind,
            "store": {"backend": "redis", "url": redis::shared().await.database()},
            "assertions": {"audience": "test", "keys": []},
        });
        let mut running = Vec::new();
        for (program, config, port) in [
            ("sidecar", sidecar, admin),
            ("orchestrator", orchestrator, port),
        ] {
            let home = directory(program);
            let file = home.path().join("config.json");
            std::fs::write(&file, config.to_string()).unwrap();
            let arguments = ["--config", file.to_str().unwrap()];
            let server = Server::start(&binary(program), &arguments, &[], home.path());
            server.listens_on(port).await;
            running.push((server, home));
        }
        let config: BusConfig = serde_json::from_value(bus).unwrap();
        let bus = mesh_bus::connect(&config).await.unwrap();
        for queue in ["agent.data_processor.tasks", "ai.priority.dead"] {
            wait_for("the queues", async || bus.depth(queue).await.is_ok()).await;
        }
        Self {
            url,
            bus,
            agent,
            orchestrator: format!("http://127.0.0.1:{port}"),
            _running: running,
        }
    }

    /// Publishes with pika, and returns what it heard.
    async fn publish(&self, messages: &[Value], answers: usize, events: &[&str]) -> Value {
        publish(
            json!({"url": self.url, "messages": messages, "answers": answers, "events": events}),
        )
        .await
    }

    async fn depth(&self, queue: &str) -> u32 {
        self.bus.depth(queue).await.unwrap().messages
    }

    /// The actions that the agent was asked for, once there are so many.
    async fn asked(&self, count: usize) -> Vec<String> {
        wait_for("the agent to be asked", async || {
            self.agent.asked.lock().unwrap().len() >= count
        })
        .await;
        let asked = self.agent.asked.lock().unwrap();
        let action = |step: &Value| step["action"].as_str().unwrap().to_owned();
        asked.iter().map(action).collect()
    }
}

async fn publish(wanted: Value) -> Value {
    tokio::task::spawn_blocking(move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/publisher.py");
        let mut child = Command::new(program_of("pika", "python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(wanted.to_string().as_bytes()).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaint.is_empty(),
            "{complaint}"
        );
        serde_json::from_slice(&output.stdout).unwrap()
    })
    .await
    .unwrap()
}

fn of<'a>(heard: &'a Value, correlation_id: &str) -> Vec<&'a Value> {
    let answers = heard["answers"].as_array().unwrap().iter();
    answers
        .filter(|a| a["correlation_id"] == correlation_id)
        .collect()
}

/// The form of the plan's orchestrator.
fn step(task_id: &str, action: &str) -> String {
    json!({"task_id": task_id, "agent": "data_processor", "action": action,
        "timestamp": "2025-01-01T00:00:00.000001"})
    .to_string()
}

/// The form of the plan's backend.
fn wrapped(task_id: &str, kind: &str) -> String {
    json!({"task_id": task_id, "task": {"type": kind, "depth": 2}, "timestamp": "2025-01-01T00:00:00"}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_forms_are_carried_out_and_answered_in_both_places() {
    let plan = Plan::start("quorum", 1000, 1000).await;
    let to_agent = |key: &str, body: String, reply: Value| json!({"exchange": "ai.tasks", "key": format!("task.{key}.execute"), "body": body, "reply": reply});
    let to_intake = |body: String, reply: Value| json!({"exchange": "", "key": "ai.priority.tasks", "body": body, "reply": reply});
    let named = |mut message: Value, name: &str| {
        message["correlation_id"] = name.into();
        message
    };
    let messages = [
        named(
            to_agent("data_processor", step("task_1.1", "one"), "queue".into()),
            "question",
        ),
        to_agent(
            "data-processor",
            wrapped("task_2.1", "two"),
            "direct".into(),
        ),
        to_agent("data-processor", step("task_3.1", "three"), Value::Null),
        to_agent("data_processor", wrapped("task_4.1", "four"), Value::Null),
        to_intake(step("task_5.1", "five"), "queue".into()),
        to_intake(wrapped("task_6.1", "data_processing"), "direct".into()),
        to_intake(step("task_7.1", "seven"), Value::Null),
        to_intake(wrapped("task_8.1", "data_processing"), Value::Null),
        named(
            to_intake("{\"task\": 7}".to_owned(), "queue".into()),
            "wrong",
        ),
    ];
    let events = [
        r#""client_task_id": "task_7.1", "status": "completed""#,
        r#""client_task_id": "task_8.1", "status": "completed""#,
        r#""status": "completed", "step_id": "data-processor", "task_id": "task_1.1""#,
        r#""status": "completed", "step_id": "data-processor", "task_id": "task_2.1""#,
        r#""status": "completed", "step_id": "data-processor", "task_id": "task_3.1""#,
        r#""status": "completed", "step_id": "data-processor", "task_id": "task_4.1""#,
    ];
    let heard = plan.publish(&messages, 2 + 2 * 2 + 1, &events).await;

    let direct = of(&heard, "question");
    assert_eq!(direct.len(), 1, "{heard}");
    assert_eq!(direct[0]["body"]["status"], "completed");
    assert_eq!(direct[0]["body"]["result"]["did"], "one");
    let direct = of(&heard, "task_2.1");
    assert_eq!(direct[0]["body"]["result"]["did"], "two");
    for task in ["task_5.1", "task_6.1"] {
        let mut kinds: Vec<_> = of(&heard, task)
            .iter()
            .map(|a| a["body"]["event_type"].clone())
            .collect();
        kinds.sort_by_key(ToString::to_string);
        assert_eq!(kinds, ["task.accepted", "task.completed"], "{task}");
    }
    let problem = of(&heard, "wrong")[0];
    assert_eq!(problem["body"]["status"], 422);
    assert_eq!(problem["content_type"], "application/problem+json");
    for event in heard["events"].as_array().unwrap() {
        let (body, headers) = (&event["body"], &event["headers"]);
        for field in ["event_type", "data", "timestamp", "source"] {
            assert!(!body[field].is_null(), "{event}");
        }
        assert_eq!(headers["cloudEvents:specversion"], "1.0");
        assert_eq!(headers["cloudEvents:type"], body["event_type"]);
        assert_eq!(headers["cloudEvents:source"], body["source"]);
        assert_eq!(headers["cloudEvents:subject"], body["data"]["task_id"]);
        assert!(headers["cloudEvents:id"].is_string());
    }
    // The result of a step that no orchestrator made is in the event: there is nobody to ask for it.
    let results = heard["events"].as_array().unwrap().iter();
    let told = results
        .filter(|e| e["body"]["data"]["result"]["did"] == "four")
        .count();
    assert_eq!(told, 1);

    let mut asked = plan.asked(8).await;
    asked.sort();
    let by_rules = "Process data_processing";
    assert_eq!(
        asked,
        [
            by_rules, by_rules, "five", "four", "one", "seven", "three", "two"
        ]
    );
    // Nothing of it is garbage, but what is.
    wait_for("the wrong one to be put aside", async || {
        plan.depth("ai.priority.dead").await == 1
    })
    .await;
    let metrics = format!("{}/metrics", plan.orchestrator);
    wait_for("the results of the older forms", async || {
        let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
        // Those without a queue for the answer.
        text.contains("orchestrator_results_total{kind=\"foreign\"} 2")
    })
    .await;
    for queue in [
        "agent.orchestrator.dead",
        "agent.data_processor.dead",
        "ai.priority.tasks",
    ] {
        assert_eq!(plan.depth(queue).await, 0, "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_urgent_goes_first() {
    let plan = Plan::start("classic", 0, 1).await;
    let urgent = |exchange: &str, key: &str, action: &str, priority: u8| json!({"exchange": exchange, "key": key, "body": step(&format!("task_{action}"), action), "priority": priority});
    let tasks = |action: &str, priority| {
        urgent("ai.tasks", "task.data_processor.execute", action, priority)
    };
    plan.publish(&[tasks("first", 0)], 0, &[]).await;
    plan.asked(1).await;
    plan.publish(
        &[tasks("low", 1), tasks("high", 9), tasks("middle", 5)],
        0,
        &[],
    )
    .await;
    wait_for("all to wait", async || {
        plan.depth("agent.data_processor.tasks").await == 3
    })
    .await;
    plan.agent.may_answer.add_permits(4);
    assert_eq!(plan.asked(4).await, ["first", "high", "middle", "low"]);

    // The same by way of the intake, where there is room for one.
    let intake = |action: &str, priority| urgent("", "ai.priority.tasks", action, priority);
    plan.publish(&[intake("begun", 0)], 0, &["task_begun"])
        .await;
    plan.asked(5).await;
    plan.publish(
        &[intake("low", 1), intake("high", 9), intake("middle", 5)],
        0,
        &[],
    )
    .await;
    wait_for("all to wait", async || {
        plan.depth("ai.priority.tasks").await == 3
    })
    .await;
    plan.agent.may_answer.add_permits(4);
    assert_eq!(plan.asked(8).await[4..], ["begun", "high", "middle", "low"]);
}
