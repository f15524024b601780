//! One trace of one task, received over OTLP by a real collector: from the client's request to the agent and
//! back, over a real RabbitMQ.
//!
//! ```text
//!  client ▶ gateway SERVER ▶ gateway CLIENT ▶ orchestrator SERVER ─┬▶ plan task
//!                                                                  └▶ send step PRODUCER ▶ sidecar CONSUMER ─┬▶ CLIENT ▶ agent SERVER
//!                                                                         orchestrator CONSUMER ◀── result ──┘
//! ```
//!
//! Gateway, orchestrator and sidecar are the programs that users run. The agent is in this process and
//! traces by itself, as one would that its owner has instrumented: the mesh's own agents know of no traces.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use ed25519_dalek::SigningKey;
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{Claims, public_half, sign};
use mesh_tests::binary::binary;
use mesh_tests::otel::{Collector, Span};
use mesh_tests::rabbitmq;
use mesh_tests::server::{Server, directory, free_port};
use mesh_tests::wait_for;
use mesh_trace::{Config, Context, Kind, Protocol, Tracer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

const AGENT: &str = "hardware-optimizer";
const SIDECAR: &str = "hardware-optimizer-sidecar";
/// Spans of a task of one step.
const SPANS: usize = 9;

/// An agent that its owner has instrumented.
async fn process(State(tracer): State<Tracer>, headers: HeaderMap, _: Json<Value>) -> Json<Value> {
    let parent = Context::from_headers(&headers);
    let mut span = tracer.start(Kind::Server, "POST", parent);
    span.set("http.route", "/process");
    Json(json!({"done": true}))
}

async fn agent(tracer: Tracer) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new()
        .route("/process", post(process))
        .route("/health", get(|| async { "ok" }))
        .with_state(tracer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A gateway, an orchestrator, an agent and its sidecar that send their spans to one collector.
struct Mesh {
    gateway: u16,
    tracer: Tracer,
    servers: Vec<Server>,
    assertion: String,
    client: reqwest::Client,
    _places: Vec<TempDir>,
}

fn write(place: &Path, name: &str, config: &Value) -> String {
    let file = place.join(name);
    std::fs::write(&file, config.to_string()).unwrap();
    file.display().to_string()
}

impl Mesh {
    async fn start(endpoint: &str, protocol: Protocol) -> Self {
        let spoken = match protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        };
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken.to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
        ];
        let traces = Config {
            endpoint: Some(endpoint.to_owned()),
            protocol,
            ..Config::default()
        };
        let tracer = Tracer::new(AGENT, &traces).unwrap();
        let agent = agent(tracer.clone()).await;
        let bus = json!({"backend": "rabbitmq", "url": rabbitmq::shared().await.vhost().await});
        let key = SigningKey::from_bytes(&[7; 32]);
        let (gateway, orchestrator, admin) = (free_port(), free_port(), free_port());
        let places = [
            directory("sidecar"),
            directory("orchestrator"),
            directory("gateway"),
        ];
        let [beside, behind, before] = places.each_ref().map(TempDir::path);

        let config = json!({
            "service": AGENT,
            "app": {"url": format!("http://{agent}")},
            "admin_listen": format!("127.0.0.1:{admin}"),
            "worker": {"bus": bus},
        });
        let file = write(beside, "sidecar.json", &config);
        let sidecar = Server::start(
            &binary("sidecar"),
            &["--config", &file],
            &environment,
            beside,
        );
        let config = json!({
            "listen": format!("127.0.0.1:{orchestrator}"),
            "agents": [{"id": AGENT}],
            "planner": {"general_agent": AGENT},
            "bus": bus,
            "store": {"backend": "memory"},
            "assertions": {"audience": "mesh", "keys": [{"kid": "g", "x": public_half(&key)}]},
        });
        let file = write(behind, "orchestrator.json", &config);
        let arguments = ["--config", file.as_str()];
        let orchestrating =
            Server::start(&binary("orchestrator"), &arguments, &environment, behind);
        // JSON is YAML.
        let kong = json!({
            "_format_version": "3.0",
            "services": [{
                "name": "orchestrator",
                "url": format!("http://127.0.0.1:{orchestrator}"),
                "routes": [{"name": "orchestrate", "paths": ["/ai/orchestrate"]}],
            }],
        });
        let file = write(before, "kong.yml", &kong);
        let listen = format!("127.0.0.1:{gateway}");
        let filters = before.display().to_string();
        let arguments = [
            "--config",
            &file,
            "--filters",
            &filters,
            "--listen",
            &listen,
        ];
        let gate = Server::start(&binary("gateway"), &arguments, &environment, before);

        let mesh = Self {
            gateway,
            tracer,
            servers: vec![gate, orchestrating, sidecar],
            assertion: assertion(&key),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _places: places.into(),
        };
        for server in [admin, orchestrator] {
            wait_for("all of them to be ready", || async {
                let ready = format!("http://127.0.0.1:{server}/ready");
                let asked = mesh.client.get(ready).send().await;
                asked.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
        }
        mesh.servers[0].listens_on(gateway).await;
        mesh
    }

    /// Has a task done by way of the gateway; a filter's assertion comes from the test, which has no filters.
    async fn task(&self, headers: &[(&str, &str)]) {
        let url = format!(
            "http://127.0.0.1:{}/ai/orchestrate?token=hidden",
            self.gateway
        );
        let mut request = self
            .client
            .post(url)
            .header("prefer", "wait=30")
            .header("x-mesh-assertion", &self.assertion);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = json!({"task_type": "anything", "payload": {"n": 1}}).to_string();
        let answer = request.body(body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "completed", "{answer}");
    }

    /// Ends it, the gateway first; what waits to be exported is exported.
    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
        self.tracer.shutdown();
    }
}

fn assertion(key: &SigningKey) -> String {
    let now = Timestamp::now().seconds();
    let claims = Claims {
        iss: "gateway".into(),
        aud: "mesh".into(),
        sub: "alice".into(),
        origin: "https://issuer.example".into(),
        scope: String::new(),
        claims: Default::default(),
        iat: now,
        exp: now + 600,
    };
    sign(&claims, "g", key)
}

/// The one span of `service` that is of this kind and name.
fn one<'a>(spans: &'a [Span], service: &str, kind: &str, name: &str) -> &'a Span {
    let mut found = spans
        .iter()
        .filter(|s| s.service() == service && s.kind == kind && s.name == name);
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        _ => panic!("not one {kind} {name} of {service} in {spans:#?}"),
    }
}

/// Checks that the spans of one trace hang together as they should; returns the first of them.
fn check(spans: &[Span]) -> &Span {
    assert_eq!(spans.len(), SPANS, "{spans:#?}");
    let entered = one(spans, "gateway", "SERVER", "POST");
    let passed = one(spans, "gateway", "CLIENT", "POST");
    let accepted = one(spans, "orchestrator", "SERVER", "POST");
    let planned = one(spans, "orchestrator", "INTERNAL", "plan task");
    let sent = one(spans, "orchestrator", "PRODUCER", "send step");
    let taken = one(spans, SIDECAR, "CONSUMER", "process step");
    let called = one(spans, SIDECAR, "CLIENT", "POST");
    let done = one(spans, AGENT, "SERVER", "POST");
    let heard = one(spans, "orchestrator", "CONSUMER", "process result");
    for (child, parent) in [
        (passed, entered),
        (accepted, passed),
        (planned, accepted),
        (sent, accepted),
        (taken, sent),
        (called, taken),
        (done, called),
        (heard, taken),
    ] {
        assert_eq!(child.parent_id, parent.id, "{child:#?}\n{parent:#?}");
        assert_eq!(child.trace_id, entered.trace_id);
    }
    for span in spans {
        assert_eq!(span.status, "", "{span:#?}");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert!(!span.resource["service.instance.id"].is_empty());
        assert!(!format!("{span:?}").contains("hidden"), "{span:#?}");
    }
    for (span, key, value) in [
        (entered, "http.request.method", "POST"),
        (entered, "url.path", "/ai/orchestrate"),
        (entered, "http.response.status_code", "200"),
        (entered, "kong.route", "orchestrate"),
        (passed, "server.address", "127.0.0.1"),
        (accepted, "http.route", "/"),
        (planned, "mesh.plan.source", "rules"),
        (sent, "messaging.system", "rabbitmq"),
        (sent, "messaging.operation.type", "send"),
        (
            sent,
            "messaging.destination.name",
            "ai.tasks:task.hardware-optimizer.execute",
        ),
        (taken, "messaging.operation.type", "process"),
        (
            taken,
            "messaging.destination.name",
            "agent.hardware_optimizer.tasks",
        ),
        (taken, "mesh.redelivered", "false"),
        (taken, "mesh.attempts", "1"),
        (called, "url.path", "/process"),
        (heard, "mesh.agent", AGENT),
    ] {
        assert_eq!(span.attribute(key), value, "{key} of {span:#?}");
    }
    let task = planned.attribute("mesh.task.id");
    assert!(!task.is_empty());
    for span in [sent, taken, heard] {
        assert_eq!(span.attribute("mesh.task.id"), task);
    }
    entered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_holds_all_parts_over_grpc() {
    let collector = Collector::start().await;
    let mesh = Mesh::start(&collector.grpc(), Protocol::Grpc).await;
    mesh.task(&[]).await;
    let spans = collector.at_least(SPANS, |_| true).await;
    // Neither health checks nor anything else began a trace.
    let first = check(&spans);
    assert_eq!(first.parent_id, "");

    // What has not been exported yet is, when the processes are told to end.
    mesh.task(&[]).await;
    let known = first.trace_id.clone();
    mesh.stop().await;
    let spans = collector.at_least(SPANS, |s| s.trace_id != known).await;
    check(&spans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_trace_goes_on_over_http() {
    let collector = Collector::start().await;
    let mesh = Mesh::start(&collector.http(), Protocol::Http).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    mesh.task(&[("traceparent", &parent), ("tracestate", "vendor=7")])
        .await;
    let spans = collector.at_least(SPANS, |_| true).await;
    let first = check(&spans);
    assert_eq!(first.trace_id, trace);
    assert_eq!(first.parent_id, "00f067aa0ba902b7");
    assert!(spans.iter().all(|s| s.state == "vendor=7"), "{spans:#?}");

    // A client that does not want its trace recorded has its way in every part.
    let unrecorded = format!("00-{}-00f067aa0ba902b7-00", "7".repeat(32));
    mesh.task(&[("traceparent", &unrecorded)]).await;
    mesh.stop().await;
    let spans = collector.at_least(SPANS, |_| true).await;
    assert!(spans.iter().all(|s| s.trace_id == trace), "{spans:#?}");
}
