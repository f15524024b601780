//! `/ollama/…`: the model server shared with agents, over real sockets.

use crate::mesh::{Ground, Mesh, PATIENCE, assertion};
use crate::models::{plan, with_model};
use mesh_orchestrator::api::HEADER_PEER as PEER;
use mesh_orchestrator::config::{Ollama as OllamaConfig, StoreUrl};
use mesh_orchestrator::double::{Answer, Gate, Ollama};
use mesh_orchestrator::quota::RedisQuota;
use mesh_protocol::problem::CONTENT_TYPE;
use mesh_tests::{redis, wait_for};
use reqwest::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

pub async fn start(answers: Vec<Answer>, change: impl FnOnce(&mut OllamaConfig)) -> (Ollama, Mesh) {
    let model = Ollama::start(answers).await.unwrap();
    let mesh = Mesh::start(with_model(&model, |o| {
        o.preload = false;
        change(o);
    }))
    .await;
    (model, mesh)
}

pub async fn ask(mesh: &Mesh, agent: &str, path: &str, body: &Value) -> Response {
    let request = mesh.client.post(mesh.url(&format!("/ollama/api/{path}")));
    let request = request.header(PEER, agent).body(body.to_string());
    request.send().await.unwrap()
}

pub fn chat(stream: bool) -> Value {
    json!({
        "model": "tinyllama", "stream": stream,
        "messages": [{"role": "user", "content": "hello"}],
    })
}

pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    let problem: Value = response.json().await.unwrap();
    let kind = format!("urn:agent-mesh:problem:{code}");
    assert_eq!(problem["type"], kind.as_str(), "{problem}");
    assert_eq!(problem["error"], problem["detail"], "{problem}");
    problem
}

pub fn words(gate: &Gate) -> Answer {
    let words = ["one ", "two ", "three"].map(str::to_owned);
    Answer::Gated(Arc::clone(gate), words.to_vec())
}

/// A stream that is read line by line, however its lines are cut into chunks.
pub struct Stream {
    response: Response,
    read: Vec<u8>,
}

impl Stream {
    pub async fn of(mesh: &Mesh, path: &str, body: &Value) -> Self {
        let response = ask(mesh, "data-processor", path, body).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self {
            response,
            read: Vec::new(),
        }
    }

    /// The next line; `None` after the last.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            match chunk.unwrap().unwrap() {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return None,
            }
        }
    }

    pub async fn line(&mut self) -> Value {
        self.next().await.expect("a line")
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let gate: Gate = Arc::new(Semaphore::new(0));
    let (_model, mesh) = start(vec![words(&gate)], |_| {}).await;
    gate.add_permits(1);
    let mut stream = Stream::of(&mesh, "chat", &chat(true)).await;
    // The second word is not made before the first one is here.
    let first = stream.line().await;
    assert_eq!(first["message"]["content"], "one ");
    gate.add_permits(1);
    assert_eq!(stream.line().await["message"]["content"], "two ");
    gate.add_permits(2);
    assert_eq!(stream.line().await["message"]["content"], "three");
    let last = stream.line().await;
    assert_eq!(
        (&last["done"], &last["eval_count"]),
        (&json!(true), &json!(18))
    );
    assert_eq!(stream.next().await, None);
    for counted in [
        "orchestrator_model_calls_total{consumer=\"data-processor\",outcome=\"ok\"} 1",
        "orchestrator_model_tokens_total{consumer=\"data-processor\",direction=\"output\"} 18",
        "orchestrator_model_server_seconds_count{part=\"eval\"} 1",
    ] {
        mesh.metric(counted).await;
    }
}

#[tokio::test]
async fn whoever_goes_away_frees_the_turn_and_the_model() {
    let gate: Gate = Arc::new(Semaphore::new(1));
    let (model, mesh) = start(vec![words(&gate)], |o| o.concurrency = 1).await;
    let question = json!({"model": "tinyllama", "prompt": "x"});
    let mut stream = Stream::of(&mesh, "generate", &question).await;
    assert_eq!(stream.line().await["response"], "one ");
    mesh.metric("orchestrator_model_calls_under_way 1").await;
    // One that waits is next once the first is gone; one that goes while it waits leaves the line.
    let waiting = tokio::spawn({
        let client = mesh.client.clone();
        let url = mesh.url("/ollama/api/chat");
        async move { client.post(url).body(chat(true).to_string()).send().await }
    });
    mesh.metric("orchestrator_model_calls_waiting 1").await;
    waiting.abort();
    mesh.metric("orchestrator_model_calls_waiting 0").await;
    drop(stream);
    mesh.metric("orchestrator_model_calls_under_way 0").await;
    wait_for("the model to be left", async || model.at_work().0 == 0).await;
    mesh.metric(
        "orchestrator_model_calls_total{consumer=\"data-processor\",outcome=\"given_up\"} 1",
    )
    .await;
    gate.add_permits(100);
    let whole = ask(&mesh, "data-processor", "chat", &chat(false)).await;
    let whole: Value = whole.json().await.unwrap();
    assert_eq!(whole["message"]["content"], "one two three");
}

#[tokio::test]
async fn planner_and_agents_share_the_turns_and_the_line() {
    let gate: Gate = Arc::new(Semaphore::new(0));
    let (model, mesh) = start(vec![words(&gate)], |o| {
        o.concurrency = 1;
        o.queue.max = 1;
        o.queue.wait_ms = 2_000;
    })
    .await;
    gate.add_permits(1);
    let mut first = Stream::of(&mesh, "chat", &chat(true)).await;
    first.line().await;
    // The planner waits, in vain.
    let task = json!({"task": "data_processing"});
    let task = mesh.post(&task);
    let refused = async {
        mesh.metric("orchestrator_model_calls_waiting 1").await;
        // The line is full, and the planner has no more of it than anybody.
        ask(&mesh, "data-processor", "chat", &chat(true)).await
    };
    let (task, refused) = tokio::join!(task, refused);
    let refused_after = refused.headers()["retry-after"].clone();
    problem(refused, 503, "model-queue-full").await;
    assert_eq!(refused_after, "1");
    let task: Value = task.json().await.unwrap();
    let risks = task["plan"]["risks"].to_string();
    assert!(risks.contains("busy for as long as calls wait"), "{risks}");
    let late = ask(&mesh, "general-agent", "chat", &chat(true)).await;
    problem(late, 503, "model-queue-timeout").await;
    assert_eq!(model.at_work().1, 1);
}

#[tokio::test]
async fn a_budget_is_each_ones_own() {
    let (_model, mesh) = start(vec![Answer::Text("well".into())], |o| {
        o.budgets =
            serde_json::from_value(json!({"default": {"tokens": 29, "per_s": 3600}})).unwrap();
    })
    .await;
    for agent in ["data-processor", "general-agent"] {
        let answer = ask(&mesh, agent, "chat", &chat(false)).await;
        assert_eq!(answer.status(), 200);
        let refused = ask(&mesh, agent, "generate", &json!({"model": "tinyllama"})).await;
        let wait: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=125).contains(&wait), "{wait}");
        problem(refused, 429, "model-budget-exhausted").await;
    }
}

#[tokio::test]
async fn replicas_share_budgets_over_redis() {
    let model = Ollama::start(vec![Answer::Text("well".into())])
        .await
        .unwrap();
    let url = redis::shared().await.database();
    let replica = || async {
        let url = StoreUrl::try_from(url.clone()).unwrap();
        let quota = RedisQuota::connect(&url, PATIENCE).unwrap();
        let ground = Ground {
            quota: Arc::new(quota),
            ..Ground::new()
        };
        let config = with_model(&model, |o| {
            let budgets = json!({"default": {"tokens": 50, "per_s": 3600}});
            o.budgets = serde_json::from_value(budgets).unwrap();
        });
        Mesh::without_agents(config, ground).await
    };
    let (one, two) = (replica().await, replica().await);
    for mesh in [&one, &two] {
        let answer = ask(mesh, "data-processor", "chat", &chat(false)).await;
        assert_eq!(answer.status(), 200);
    }
    for mesh in [&one, &two] {
        let refused = ask(mesh, "data-processor", "chat", &chat(true)).await;
        problem(refused, 429, "model-budget-exhausted").await;
        mesh.metric("orchestrator_model_budgets_unavailable_total 0")
            .await;
    }
}

#[tokio::test]
async fn only_shared_models_and_only_what_is_a_question() {
    let model = Ollama::start(vec![Answer::Text("well".into())])
        .await
        .unwrap();
    let mut config = with_model(&model, |o| {
        o.preload = false;
        o.models = vec!["embedder:1b".into()];
    });
    config.limits.max_body_bytes = 2_000;
    let mesh = Mesh::start(config).await;
    let agent = "data-processor";
    let other = json!({"model": "huge", "prompt": "x"});
    problem(
        ask(&mesh, agent, "generate", &other).await,
        404,
        "model-not-shared",
    )
    .await;
    for wrong in [
        json!({}),
        json!({"model": 1}),
        json!({"model": "tinyllama", "stream": 1}),
    ] {
        problem(
            ask(&mesh, agent, "chat", &wrong).await,
            400,
            "model-malformed",
        )
        .await;
    }
    problem(
        ask(&mesh, agent, "chat", &json!([1])).await,
        400,
        "not-json",
    )
    .await;
    let large = json!({"model": "tinyllama", "prompt": "x".repeat(2_000)});
    problem(
        ask(&mesh, agent, "generate", &large).await,
        413,
        "body-too-large",
    )
    .await;
    problem(ask(&mesh, agent, "pull", &other).await, 404, "not-found").await;
    assert!(model.calls().iter().all(|(path, _)| path == "/api/show"));
    // `x` and `x:latest` are one model; what an agent says of memory is the mesh's to say.
    let question = json!({"model": "tinyllama:latest", "keep_alive": 0, "messages": []});
    assert_eq!(ask(&mesh, agent, "chat", &question).await.status(), 200);
    let (_, asked) = model.calls().pop().unwrap();
    assert_eq!(asked, json!({"model": "tinyllama", "messages": []}));
    let embed = json!({"model": "embedder:1b", "input": ["a", "bb"]});
    let vectors: Value = ask(&mesh, agent, "embed", &embed)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(vectors["embeddings"].as_array().unwrap().len(), 2);
    let tags = mesh.get_json("/ollama/api/tags").await;
    let names: Vec<&str> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["name"].as_str())
        .collect();
    assert_eq!(names, ["tinyllama:latest"]);
    assert_eq!(
        mesh.get_json("/ollama/api/version").await["version"],
        "0.12.6"
    );
}

#[tokio::test]
async fn clients_find_nothing_there() {
    let (model, mesh) = start(vec![Answer::Text("well".into())], |_| {}).await;
    let token = assertion("somebody", "");
    for headers in [
        vec![("x-mesh-assertion", token.as_str())],
        vec![(PEER, "gateway")],
        vec![(PEER, "general-agent"), ("x-forwarded-prefix", "/ai")],
        vec![(PEER, "general-agent"), ("origin", "http://evil.example")],
        vec![("host", "evil.example")],
    ] {
        let mut request = mesh.client.post(mesh.url("/ollama/api/chat"));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let response = request.body(chat(false).to_string()).send().await.unwrap();
        assert_eq!(response.status(), 404, "{headers:?}");
    }
    assert!(model.asked().is_empty());
    let without = Mesh::start(crate::mesh::config()).await;
    assert_eq!(without.get("/ollama/api/tags").await.status(), 404);
    assert_eq!(without.get("/models").await.status(), 404);
    let metrics = without.get("/metrics").await.text().await.unwrap();
    assert!(
        !metrics.contains("orchestrator_model_"),
        "nothing runs without a model"
    );
}

#[tokio::test]
async fn what_goes_wrong_is_said_and_counted() {
    let agent = "data-processor";
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let (model, mesh) = start(vec![Answer::Raw(503, busy.into())], |_| {}).await;
    let refused = ask(&mesh, agent, "chat", &chat(true)).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused = problem(refused, 503, "model-busy").await;
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("server busy")
    );
    // In the middle of a stream it is a line.
    model.answer(vec![Answer::CutOff]);
    let mut cut = Stream::of(&mesh, "chat", &chat(true)).await;
    assert_eq!(cut.line().await["message"]["content"], "Once");
    let said = cut.line().await;
    assert_eq!(said["error"], "the model server: the connection broke");
    assert_eq!(cut.next().await, None);
    model.answer(vec![Answer::Fails("out of memory".into())]);
    let question = json!({"model": "tinyllama", "prompt": "x"});
    let mut failing = Stream::of(&mesh, "generate", &question).await;
    failing.line().await;
    assert_eq!(failing.line().await["error"], "out of memory");
    // Spaces without an end are a line that is too long.
    model.answer(vec![Answer::Endless]);
    let mut endless = Stream::of(&mesh, "chat", &chat(true)).await;
    let said = endless.line().await;
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("larger than 1048576"),
        "{said}"
    );
    // What may be the question's is not counted against the server again and again for the same agent.
    for asks in [agent, agent, "general-agent", agent] {
        let whole = ask(&mesh, asks, "chat", &chat(false)).await;
        assert_eq!(whole.headers()["x-mesh-fault"], "behind");
        problem(whole, 502, "model-too-large").await;
    }
    // That was five of them.
    let open = ask(&mesh, agent, "chat", &chat(true)).await;
    problem(open, 503, "model-breaker-open").await;
    assert_eq!(mesh.get_json("/models").await["breaker"], "open");
    mesh.metric("orchestrator_model_calls_under_way 0").await;
    drop(model);
}

#[tokio::test]
async fn a_plan_cut_to_length_costs_what_it_cost() {
    let (model, mesh) = start(vec![Answer::Length(plan("read"))], |_| {}).await;
    let task = mesh.post(&json!({"task": "data_processing"})).await;
    let task: Value = task.json().await.unwrap();
    assert_eq!(task["plan"]["source"], "rules");
    mesh.metric("orchestrator_model_tokens_total{consumer=\"planner\",direction=\"output\"} 18")
        .await;
    assert_eq!(model.asked().len(), 1);
}
