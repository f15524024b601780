//! What is recorded, what is passed on, and what a receiver that does not take spans costs.

use super::*;
use crate::export::{QUEUE, Watched};
use opentelemetry::trace::TraceId;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SpanData;
use std::sync::{Condvar, Mutex};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Keeps what it is given, as soon as it may.
#[derive(Debug, Clone, Default)]
struct Receiver(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    spans: Vec<SpanData>,
    services: Vec<String>,
    hangs: bool,
    refuses: bool,
}

impl Receiver {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn spans(&self) -> Vec<SpanData> {
        self.0.0.lock().unwrap().spans.clone()
    }

    fn tracer(&self, sample: f64) -> Tracer {
        let counts = Counts::new().unwrap();
        let exporter = Watched::new(self.clone(), None, counts.clone());
        Tracer::exporting("tested", sample, exporter, counts)
    }
}

impl SpanExporter for Receiver {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let state = self.0.0.lock().unwrap();
        let mut state = self.0.1.wait_while(state, |s| s.hangs).unwrap();
        if state.refuses {
            return Err(OTelSdkError::InternalFailure("away".to_owned()));
        }
        state.spans.extend(batch);
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        let name = resource.get(&"service.name".into()).unwrap().to_string();
        self.set(|s| s.services.push(name));
    }
}

fn parent() -> Context {
    Context::parse(PARENT, Some("a=b,c=d")).unwrap()
}

fn count(tracer: &Tracer, outcome: &str) -> u64 {
    let registry = prometheus::Registry::new();
    tracer.register(&registry).unwrap();
    let families = registry.gather();
    let metrics = families[0].get_metric();
    let found = metrics.iter().find(|m| m.get_label()[0].value() == outcome);
    found.unwrap().get_counter().get_value() as u64
}

#[test]
fn without_an_endpoint_everything_passes_as_it_came() {
    let tracer = Tracer::new("tested", &Config::default()).unwrap();
    assert!(!tracer.is_on());
    let mut span = tracer.start(Kind::Server, "GET", Some(parent()));
    span.set("a", "b");
    assert!(!span.is_recording() && span.log_span().is_none());
    assert_eq!(span.context(), Some(&parent()));
    let root = tracer.start(Kind::Server, "GET", None);
    assert_eq!(root.context(), None);
    tracer.register(&prometheus::Registry::new()).unwrap();
    tracer.shutdown();
}

#[test]
fn a_child_belongs_to_its_parents_trace() {
    let receiver = Receiver::default();
    let tracer = receiver.tracer(0.0);
    let mut server = tracer.start(Kind::Server, "GET", Some(parent()));
    let place = server.context().unwrap().clone();
    assert_eq!(place.trace_id, parent().trace_id);
    assert_ne!(place.span_id, parent().span_id);
    assert_eq!(place.state, parent().state);
    assert!(place.sampled());
    server.http_request(&http::Method::GET, "http", "/path");
    server.http_answer(http::StatusCode::NOT_FOUND);
    let mut client = tracer.start(Kind::Client, "GET", Some(place.clone()));
    client.http_answer(http::StatusCode::NOT_FOUND);
    client.set("long", "ü".repeat(MAX_VALUE));
    client.set_flag("flag", true);
    drop(client);
    drop(server);
    tracer.shutdown();

    let spans = receiver.spans();
    let [client, server] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    let trace = TraceId::from_bytes(place.trace_id);
    assert!(spans.iter().all(|s| s.span_context.trace_id() == trace));
    assert_eq!(server.parent_span_id.to_bytes(), parent().span_id);
    assert_eq!(client.parent_span_id.to_bytes(), place.span_id);
    // The one came from elsewhere, the other did not.
    assert!(server.parent_span_is_remote && !client.parent_span_is_remote);
    assert_eq!(server.span_context.trace_state().header(), "a=b,c=d");
    assert_eq!(server.span_kind, SpanKind::Server);
    assert_eq!(server.status, Status::Unset);
    assert!(matches!(client.status, Status::Error { .. }));
    let value = |span: &SpanData, key: &str| {
        let found = span.attributes.iter().find(|a| a.key.as_str() == key);
        found.map(|a| a.value.clone()).unwrap()
    };
    assert_eq!(value(server, "url.path"), "/path".into());
    assert_eq!(value(server, "http.response.status_code"), 404.into());
    assert_eq!(value(client, "long").to_string().len(), MAX_VALUE);
    assert_eq!(receiver.0.0.lock().unwrap().services, ["tested"]);
}

#[test]
fn who_began_the_trace_decides() {
    let receiver = Receiver::default();
    let unrecorded = Context::parse(&PARENT.replace("-01", "-00"), None).unwrap();
    let all = receiver.tracer(1.0);
    let span = all.start(Kind::Server, "GET", Some(unrecorded.clone()));
    assert!(!span.is_recording());
    assert_eq!(span.context(), Some(&unrecorded));
    let root = all.start(Kind::Server, "GET", None);
    assert!(root.is_recording() && root.context().unwrap().sampled());

    // A trace that is not recorded is one all the same, so that nobody down the way begins another.
    let none = receiver.tracer(0.0);
    let root = none.start(Kind::Server, "GET", None);
    assert!(!root.is_recording());
    assert!(!root.context().unwrap().sampled());
}

#[test]
fn a_receiver_that_hangs_costs_spans_and_nothing_else() {
    let receiver = Receiver::default();
    receiver.set(|s| s.hangs = true);
    let tracer = receiver.tracer(1.0);
    let ended = 3 * QUEUE;
    for _ in 0..ended {
        drop(tracer.start(Kind::Server, "GET", None));
    }
    let dropped = count(&tracer, "dropped");
    // What one export holds is out of the queue.
    assert!(dropped >= (ended - QUEUE - 2 * 512) as u64, "{dropped}");
    receiver.set(|s| s.hangs = false);
    tracer.shutdown();
    assert_eq!(count(&tracer, "exported") + dropped, ended as u64);
    assert_eq!(receiver.spans().len() as u64, count(&tracer, "exported"));
    // Whoever comes after the end passes on what came.
    let late = tracer.start(Kind::Server, "GET", Some(parent()));
    assert_eq!(late.context(), Some(&parent()));
}

#[test]
fn what_the_receiver_refuses_is_counted() {
    let receiver = Receiver::default();
    receiver.set(|s| s.refuses = true);
    let tracer = receiver.tracer(1.0);
    drop(tracer.start(Kind::Server, "GET", None));
    tracer.shutdown();
    assert_eq!(count(&tracer, "failed"), 1);
}

#[test]
fn methods_that_strangers_make_up_have_one_name() {
    assert_eq!(crate::method_name(&http::Method::PATCH), "PATCH");
    let odd = http::Method::from_bytes(b"BREW").unwrap();
    assert_eq!(crate::method_name(&odd), "HTTP");
}

/// Over both transports, from within a runtime of one thread: to nobody, and to one who never answers.
#[tokio::test]
async fn a_receiver_that_is_away_delays_nobody() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:9".to_owned(), silent] {
        for protocol in [crate::Protocol::Grpc, crate::Protocol::Http] {
            let config = Config {
                endpoint: Some(endpoint.clone()),
                protocol,
                ..Config::default()
            };
            let tracer = Tracer::new("tested", &config).unwrap();
            assert!(tracer.is_on());
            drop(tracer.start(Kind::Server, "GET", None));
            // Comes back, whatever became of the span.
            tracer.shutdown();
            assert_eq!(count(&tracer, "exported"), 0);
        }
    }
    let secure = Config {
        endpoint: Some("https://127.0.0.1:9".to_owned()),
        ..Config::default()
    };
    assert!(Tracer::new("tested", &secure).is_ok());
}
