//! The filters of mesh.yaml as clients meet them, in the mesh of one process.

use crate::running::{Up, text};
use serde_json::{Value, json};

const YAML: &str = r#"
version: 1
mesh: test
gateway:
  listen: "127.0.0.1:0"
  auth: {development: true}
  filters:
    jwt_auth: {required_scopes: ["tasks:write"]}
    rate_limit:
      limits:
        - {name: hour, quota: 8, window_s: 3600, by: [consumer]}
    task_admission:
      priority: {otherwise: 7}
      timeout: {max_s: 300}
      load: {interval_ms: 100}
    agent_router:
      rules: [{to: {named: {header: x-agent}}}]
      load: {}
  routes:
    - {name: orchestrate, paths: [/ai/orchestrate], methods: [POST]}
    - {name: tasks, paths: [/task], methods: [GET], strip_path: false, filters: {rate_limit: false}}
    - {name: direct, paths: [/agent], to: agents, filters: {rate_limit: false}}
orchestrator: {listen: "127.0.0.1:0", planner: {general_agent: general-agent}}
agents:
  - {id: general-agent, run: {builtin: general-agent}}
  - {id: data-processor, capabilities: [data_processing], run: {builtin: data-processor}}
"#;

/// A client of the gateway.
struct Client {
    gateway: String,
    token: String,
    http: reqwest::Client,
}

impl Client {
    fn of(up: &Up) -> Self {
        let addresses = std::fs::read(up.dir().join(".mesh/up-test.json")).unwrap();
        let addresses: Value = serde_json::from_slice(&addresses).unwrap();
        let token = up.mesh(&["token"]);
        Self {
            gateway: format!("http://{}", addresses["gateway"].as_str().unwrap()),
            token: text(&token.stdout).trim().to_owned(),
            http: reqwest::Client::new(),
        }
    }

    async fn ask(
        &self,
        request: reqwest::RequestBuilder,
    ) -> (u16, Value, reqwest::header::HeaderMap) {
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.unwrap();
        (
            status,
            serde_json::from_slice(&body).unwrap_or_default(),
            headers,
        )
    }

    async fn submit(&self, body: Value) -> (u16, Value, reqwest::header::HeaderMap) {
        let url = format!("{}/ai/orchestrate", self.gateway);
        self.ask(
            self.http
                .post(url)
                .body(body.to_string())
                .header("content-type", "application/json"),
        )
        .await
    }

    async fn get(&self, path: &str) -> (u16, Value, reqwest::header::HeaderMap) {
        self.ask(self.http.get(format!("{}{path}", self.gateway)))
            .await
    }
}

#[test]
fn every_filter_of_mesh_yaml_decides() {
    let up = Up::start(YAML);
    let client = Client::of(&up);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Lowered: the priority of the caller's ceiling is what the task has.
        let (status, task, headers) = client
            .submit(json!({"task": "complex_analysis", "payload": {}, "priority": 10}))
            .await;
        assert!((200..300).contains(&status), "{status} {task}");
        assert!(headers.contains_key("ratelimit"), "{headers:?}");
        let id = task["task_id"].as_str().unwrap();
        let (_, shown, _) = client.get(&format!("/task/{id}")).await;
        assert_eq!(shown["priority"], 7, "{shown}");

        let (status, problem, _) = client.submit(json!({"task": "x", "timeout": 301})).await;
        assert_eq!(status, 422, "{problem}");
        let (status, problem, _) = client.submit(json!(["no task"])).await;
        assert_eq!(
            (status / 100, problem["type"].is_string()),
            (4, true),
            "{problem}"
        );

        // Refused ones cost as well: they were asked for.
        let mut passed = 1;
        loop {
            let (status, problem, headers) =
                client.submit(json!({"task": "complex_analysis"})).await;
            if status == 429 {
                assert!(headers.contains_key("retry-after"));
                assert_eq!(problem["violated-policies"], json!(["hour"]));
                break;
            }
            assert!((200..300).contains(&status), "{status} {problem}");
            passed += 1;
            assert!(passed <= 8, "{passed} passed");
        }

        // An agent by its name, without the orchestrator, and without what the client showed the gateway.
        let step = json!({"task_id": "t", "step_id": "s", "role": "r", "action": "a",
            "payload": {"csv": "a\n1\n"}, "incoming_data": {}});
        let named = |agent: &str| {
            let url = format!("{}/agent/process", client.gateway);
            client.http.post(url).header("x-agent", agent).json(&step)
        };
        let (status, answer, _) = client.ask(named("data-processor")).await;
        assert_eq!((status, &answer["rows"]), (200, &json!(1)), "{answer}");
        let (status, problem, _) = client.ask(named("nobody")).await;
        assert_eq!(status, 404);
        assert!(
            problem["type"].as_str().unwrap().contains("unknown-agent"),
            "{problem}"
        );

        // What filters ask the orchestrator for is not for clients.
        for path in ["/ai/orchestrate/internal/load", "/task/../internal/load"] {
            let (status, body, _) = client.get(path).await;
            assert!(
                status >= 400 && body["agents"].is_null(),
                "{path}: {status} {body}"
            );
        }
    });
    assert_eq!(up.end("-INT"), Some(0));
}
