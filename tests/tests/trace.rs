//! One trace of one request, received over OTLP by a real collector: from the client to the agent and back,
//! through every program on the way.
//!
//! ```text
//!  a task
//!  client ▶ gateway SERVER ▶ gateway CLIENT ▶ gateway-sidecar CLIENT ═mTLS═▶ orchestrator-sidecar SERVER ─┐
//!  ┌──────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!  └▶ orchestrator SERVER ─┬▶ plan task
//!                          └▶ send step PRODUCER ─RabbitMQ─▶ agent-sidecar CONSUMER ─┬▶ CLIENT ▶ agent SERVER
//!                                 orchestrator CONSUMER ◀────RabbitMQ──── result ────┘
//!  a request straight to the agent
//!  client ▶ gateway SERVER ▶ gateway CLIENT ▶ gateway-sidecar CLIENT ═mTLS═▶ agent-sidecar SERVER ▶ agent SERVER
//! ```
//!
//! The programs are those that users run, from rendered files, over real Consul with its certificates, RabbitMQ
//! and Redis. The agent is in this process and traces by itself, as one would that its owner has instrumented:
//! the mesh's own agents know of no traces.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::otel::{Collector, Span};
use mesh_tests::wait_for;
use mesh_trace::{Config, Context, Kind, Protocol, Tracer};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

const AGENT: &str = "hardware-optimizer";
const BESIDE_GATEWAY: &str = "gateway-sidecar";
const BESIDE_ORCHESTRATOR: &str = "orchestrator-sidecar";
const BESIDE_AGENT: &str = "hardware-optimizer-sidecar";
/// Spans of a task of one step.
const TASK: usize = 11;
/// Spans of a request straight to an agent.
const DIRECT: usize = 5;
/// Spans of a request that the agent's sidecar refuses.
const REFUSED: usize = 2;

/// An agent that its owner has instrumented.
async fn process(State(tracer): State<Tracer>, headers: HeaderMap, _: Json<Value>) -> Json<Value> {
    let parent = Context::from_headers(&headers);
    let mut span = tracer.start(Kind::Server, "POST", parent);
    span.set("http.route", "/process");
    Json(json!({"done": true}))
}

/// Serves the agent; its port.
async fn agent(tracer: Tracer) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new()
        .route("/process", post(process))
        .route("/health", get(|| async { "ok" }))
        .with_state(tracer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// A mesh whose programs send their spans to one collector, as the agent does.
struct Traced {
    mesh: Mesh,
    tracer: Tracer,
    token: String,
}

impl Traced {
    async fn start(endpoint: &str, protocol: Protocol) -> Self {
        let spoken = match protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        };
        let traces = Config {
            endpoint: Some(endpoint.to_owned()),
            protocol,
            ..Config::default()
        };
        let tracer = Tracer::new(AGENT, &traces).unwrap();
        let mesh = Mesh::start(Setup {
            agents: Vec::new(),
            served: vec![(AGENT, agent(tracer.clone()).await)],
            environment: vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", spoken.to_owned()),
                ("LOG_FORMAT", "json".to_owned()),
            ],
            ..Setup::default()
        })
        .await;
        let token = mesh.token("alice", "tasks:read tasks:write").await;
        Self {
            mesh,
            tracer,
            token,
        }
    }

    /// Sends `request` with `headers`, and with a query that belongs in no span.
    async fn send(&self, request: RequestBuilder, headers: &[(&str, &str)]) -> Response {
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let mut request = request.build().unwrap();
        request.url_mut().set_query(Some("token=hidden"));
        self.mesh.client().execute(request).await.unwrap()
    }

    /// Has a task done.
    async fn task(&self, headers: &[(&str, &str)]) {
        let answer = self.send(self.mesh.task(&self.token, AGENT), headers).await;
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "completed", "{answer}");
    }

    /// Asks the agent itself.
    async fn direct(&self, headers: &[(&str, &str)]) {
        let request = self.mesh.direct(&self.token, AGENT);
        let answer = self.send(request, headers).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }

    /// Asks the agent without an assertion, as a gateway would whose filters did not run.
    async fn refused(&self, headers: &[(&str, &str)]) {
        let out = self.mesh.outbound("gateway");
        let request = self.mesh.client().post(format!("{out}/{AGENT}/process"));
        let answer = self.send(request.json(&json!({})), headers).await;
        assert_eq!(answer.status(), 401, "{:?}", answer.text().await);
    }

    /// Waits until filters have asked the orchestrator, by way of both sidecars, beside the `tasks` that were sent.
    async fn filters_have_asked(&self, tasks: f64) {
        const COUNT: &str =
            r#"sidecar_requests_total{code="200",direction="inbound",peer="gateway"} "#;
        let metrics = format!("{}/metrics", self.mesh.admin("orchestrator"));
        wait_for("what filters ask", || async {
            let answer = self.mesh.client().get(&metrics).send().await.unwrap();
            let text = answer.text().await.unwrap();
            let mut counts = text.lines().filter_map(|line| line.strip_prefix(COUNT));
            counts
                .next()
                .is_some_and(|count| count.parse::<f64>().unwrap() > tasks)
        })
        .await;
    }

    /// Ends it; what waits to be exported is exported.
    async fn stop(self) {
        self.mesh.stop().await;
        self.tracer.shutdown();
    }
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

/// Checks that there are so many spans, of one trace, and nothing in them that must not be.
fn belong_together(spans: &[Span], number: usize) {
    assert_eq!(spans.len(), number, "{spans:#?}");
    for span in spans {
        assert_eq!(span.trace_id, spans[0].trace_id, "{spans:#?}");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert!(!span.resource["service.instance.id"].is_empty());
        assert!(!format!("{span:?}").contains("hidden"), "{span:#?}");
    }
}

/// Checks that each span goes on from its parent, and that none failed.
fn hang_together(pairs: &[(&Span, &Span)]) {
    for (child, parent) in pairs {
        assert_eq!(child.parent_id, parent.id, "{child:#?}\n{parent:#?}");
        assert_eq!(
            (&*child.status, &*parent.status),
            ("", ""),
            "{child:#?}\n{parent:#?}"
        );
    }
}

fn say(attributes: &[(&Span, &str, &str)]) {
    for (span, key, value) in attributes {
        assert_eq!(span.attribute(key), *value, "{key} of {span:#?}");
    }
}

/// Checks the spans of a task; returns the first of them.
fn of_a_task(spans: &[Span]) -> &Span {
    belong_together(spans, TASK);
    let entered = one(spans, "gateway", "SERVER", "POST");
    let passed = one(spans, "gateway", "CLIENT", "POST");
    let left = one(spans, BESIDE_GATEWAY, "CLIENT", "POST");
    let arrived = one(spans, BESIDE_ORCHESTRATOR, "SERVER", "POST");
    let accepted = one(spans, "orchestrator", "SERVER", "POST");
    let planned = one(spans, "orchestrator", "INTERNAL", "plan task");
    let sent = one(spans, "orchestrator", "PRODUCER", "send step");
    let taken = one(spans, BESIDE_AGENT, "CONSUMER", "process step");
    let called = one(spans, BESIDE_AGENT, "CLIENT", "POST");
    let done = one(spans, AGENT, "SERVER", "POST");
    let heard = one(spans, "orchestrator", "CONSUMER", "process result");
    hang_together(&[
        (passed, entered),
        (left, passed),
        (arrived, left),
        (accepted, arrived),
        (planned, accepted),
        (sent, accepted),
        (taken, sent),
        (called, taken),
        (done, called),
        (heard, taken),
    ]);
    say(&[
        (entered, "http.request.method", "POST"),
        (entered, "url.path", "/ai/orchestrate"),
        (entered, "http.response.status_code", "200"),
        (entered, "kong.route", "orchestrate"),
        (passed, "server.address", "127.0.0.1"),
        (left, "http.request.method", "POST"),
        (left, "url.path", "/"),
        (left, "http.response.status_code", "200"),
        (left, "server.address", "orchestrator"),
        (left, "network.peer.address", "127.0.0.1"),
        (arrived, "http.request.method", "POST"),
        (arrived, "url.path", "/"),
        (arrived, "http.response.status_code", "200"),
        (arrived, "mesh.peer", "gateway"),
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
    ]);
    let task = planned.attribute("mesh.task.id");
    assert!(!task.is_empty());
    say(&[sent, taken, heard].map(|span| (span, "mesh.task.id", task)));
    entered
}

/// Checks the spans of a request straight to the agent; returns the first of them.
fn of_a_direct_request(spans: &[Span]) -> &Span {
    belong_together(spans, DIRECT);
    let entered = one(spans, "gateway", "SERVER", "POST");
    let passed = one(spans, "gateway", "CLIENT", "POST");
    let left = one(spans, BESIDE_GATEWAY, "CLIENT", "POST");
    let arrived = one(spans, BESIDE_AGENT, "SERVER", "POST");
    let done = one(spans, AGENT, "SERVER", "POST");
    hang_together(&[
        (passed, entered),
        (left, passed),
        (arrived, left),
        (done, arrived),
    ]);
    say(&[
        (entered, "url.path", "/agent/process"),
        (entered, "kong.route", "direct"),
        (left, "url.path", "/process"),
        (left, "server.address", AGENT),
        (arrived, "url.path", "/process"),
        (arrived, "http.response.status_code", "200"),
        (arrived, "mesh.peer", "gateway"),
        (done, "http.route", "/process"),
    ]);
    entered
}

/// Checks the spans of a request that the agent's sidecar refused; returns the first of them.
fn of_a_refusal(spans: &[Span]) -> &Span {
    belong_together(spans, REFUSED);
    let left = one(spans, BESIDE_GATEWAY, "CLIENT", "POST");
    let arrived = one(spans, BESIDE_AGENT, "SERVER", "POST");
    assert_eq!(arrived.parent_id, left.id, "{spans:#?}");
    // A refusal fails whoever asked, and is no failure of who refuses.
    assert_eq!(
        (&*left.status, &*arrived.status),
        ("ERROR", ""),
        "{spans:#?}"
    );
    say(&[
        (left, "error.type", "401"),
        (left, "http.response.status_code", "401"),
        (arrived, "http.response.status_code", "401"),
    ]);
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_holds_all_parts_over_grpc() {
    let collector = Collector::start().await;
    let traced = Traced::start(&collector.grpc(), Protocol::Grpc).await;
    traced.task(&[]).await;
    let spans = collector.at_least(TASK, |_| true).await;
    let first = of_a_task(&spans);
    assert_eq!(first.parent_id, "");
    let mut known = vec![first.trace_id.clone()];

    traced.direct(&[]).await;
    let fresh = |span: &Span, known: &[String]| !known.contains(&span.trace_id);
    let spans = collector.at_least(DIRECT, |s| fresh(s, &known)).await;
    let first = of_a_direct_request(&spans);
    assert_eq!(first.parent_id, "");
    known.push(first.trace_id.clone());

    // What has not been exported yet is, when the processes are told to end.
    traced.task(&[]).await;
    traced.filters_have_asked(2.0).await;
    traced.stop().await;
    let spans = collector.at_least(TASK, |s| fresh(s, &known)).await;
    // Neither health checks, nor what filters ask by way of the sidecars, nor anything else began a trace.
    of_a_task(&spans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_trace_goes_on_over_http() {
    let collector = Collector::start().await;
    let traced = Traced::start(&collector.http(), Protocol::Http).await;
    let traces = ["1", "2", "3"].map(|digit| digit.repeat(32));
    let [task, direct, refused] = &traces;
    let parent = |trace: &str, flags: &str| format!("00-{trace}-00f067aa0ba902b7-{flags}");
    let state = ("tracestate", "vendor=7");
    traced
        .task(&[("traceparent", &parent(task, "01")), state])
        .await;
    traced
        .direct(&[("traceparent", &parent(direct, "01")), state])
        .await;
    traced
        .refused(&[("traceparent", &parent(refused, "01")), state])
        .await;
    // A client that does not want its trace recorded has its way in every part.
    let unrecorded = parent(&"7".repeat(32), "00");
    traced.task(&[("traceparent", &unrecorded)]).await;
    traced.direct(&[("traceparent", &unrecorded)]).await;
    traced.filters_have_asked(2.0).await;
    traced.stop().await;

    let spans = collector.at_least(TASK + DIRECT + REFUSED, |_| true).await;
    assert!(
        spans.iter().all(|s| traces.contains(&s.trace_id)),
        "{spans:#?}"
    );
    assert!(spans.iter().all(|s| s.state == "vendor=7"), "{spans:#?}");
    let of = |trace: &String| -> Vec<Span> {
        let of = spans.iter().filter(|s| s.trace_id == *trace);
        of.cloned().collect()
    };
    for (trace, check) in [
        (task, of_a_task as fn(&[Span]) -> &Span),
        (direct, of_a_direct_request),
        (refused, of_a_refusal),
    ] {
        assert_eq!(check(&of(trace)).parent_id, "00f067aa0ba902b7");
    }
}
