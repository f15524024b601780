//! A model that the planner and the mesh's own general-agent share: the agent reaches it by way of the sidecars.

use crate::running::{Up, command, text};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

const YAML: &str = "version: 1\nmesh: test\n\
    gateway: {listen: \"127.0.0.1:0\", auth: {development: true}}\n\
    orchestrator: {listen: \"127.0.0.1:0\", planner: {general_agent: general-agent}}\n\
    agents:\n  - {id: general-agent, run: {builtin: general-agent}}\n";

/// A server of Ollama's API that plans one step where a plan is asked for, and says hello otherwise.
fn model() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while answer(&stream).is_some() {});
        }
    });
    url
}

fn answer(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let plan = json!({"execution_plan": [
        {"id": "think", "agent": "general-agent", "action": "think about it", "dependencies": []},
    ]});
    let content = if asked.get("format").is_some() {
        plan.to_string()
    } else {
        "hello from the model".to_owned()
    };
    let said = if head.starts_with("GET /api/tags") {
        json!({"models": [{"name": "tinyllama:latest", "model": "tinyllama:latest"}]})
    } else {
        json!({
            "model": "tinyllama", "message": {"role": "assistant", "content": content},
            "done": true, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4,
        })
    };
    let said = said.to_string();
    let length = said.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{said}"
    )
    .ok()
}

#[tokio::test]
async fn the_general_agent_asks_the_shared_model() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), YAML).unwrap();
    let model = model();
    let mut up = command(dir.path());
    let up = Up::of(up.arg("up").env("OLLAMA_URL", &model), dir.path());
    let done = up.mesh(&["submit", "complex_analysis", "-o", "json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let task: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(task["plan"]["source"], "ollama", "{task}");
    let result = &task["steps"]["think"]["result"];
    assert_eq!(result["model"]["answer"], "hello from the model", "{task}");
    // Not past the orchestrator, which knows who asked.
    let addresses = fs::read(dir.path().join(".mesh/up-test.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    let orchestrator = addresses["orchestrator"].as_str().unwrap();
    let metrics = reqwest::get(format!("http://{orchestrator}/metrics")).await;
    let metrics = metrics.unwrap().text().await.unwrap();
    for line in [
        "orchestrator_model_calls_total{consumer=\"general-agent\",outcome=\"ok\"} 1",
        "orchestrator_model_calls_total{consumer=\"planner\",outcome=\"ok\"} 1",
        "orchestrator_model_tokens_total{consumer=\"general-agent\",direction=\"output\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    // No way leads there for clients.
    let gateway = addresses["gateway"].as_str().unwrap();
    let token = text(&up.mesh(&["token"]).stdout);
    let asked = reqwest::Client::new()
        .post(format!("http://{gateway}/ai/orchestrate/ollama/api/chat"))
        .bearer_auth(token.trim())
        .body(r#"{"task": "x", "model": "tinyllama"}"#)
        .send();
    assert_eq!(asked.await.unwrap().status(), 404);
    assert_eq!(missing(&up, &model, "model: tinyllama"), [""; 0]);
    let others = "model: tinyllama, models: [embedder, \"tinyllama:1b\"]";
    assert_eq!(
        missing(&up, &model, others),
        ["embedder is not there", "tinyllama:1b is not there"]
    );
}

/// What `mesh check` misses at the model server, where mesh.yaml shares `models`; beside a mesh that has made its keys.
fn missing(up: &Up, url: &str, models: &str) -> Vec<String> {
    let yaml = YAML.replace(
        "{general_agent: general-agent}",
        &format!("{{general_agent: general-agent, ollama: {{url: \"{url}\", {models}}}}}"),
    );
    fs::write(up.dir().join("checked.yaml"), yaml).unwrap();
    let said = up.mesh(&["check", "checked.yaml", "--pre", "-o", "json"]);
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    let groups = report["groups"].as_array().unwrap();
    let planner = groups.iter().find(|group| group["name"] == "planner");
    let planner = planner.unwrap_or_else(|| panic!("{report}"));
    let findings = planner["findings"].as_array().unwrap();
    let missing = findings.iter().filter(|f| f["code"] == "model_missing");
    missing
        .map(|f| f["what"].as_str().unwrap().to_owned())
        .collect()
}
