//! The spans of what passes: every try is one, failures are said, and nothing that machines ask begins a trace.

use crate::faults::registered;
use crate::support::{App, Mesh, Sidecar, full, get, send};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use mesh_tests::otel::{Collector, Span};
use mesh_trace::{Config, Protocol, Tracer};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

const PARENT: &str = "00f067aa0ba902b7";

/// A mesh whose sidecars send their spans to a collector.
async fn traced() -> (Mesh, Collector) {
    let collector = Collector::start().await;
    let config = Config {
        endpoint: Some(collector.http()),
        protocol: Protocol::Http,
        ..Config::default()
    };
    let mut mesh = Mesh::new();
    mesh.tracer = Tracer::new("both", &config).unwrap();
    (mesh, collector)
}

/// A sidecar beside a caller that gives nothing up but after two more tries.
async fn caller(mesh: &Mesh) -> Sidecar {
    let settings = json!({
        "retries": {"max": 2, "min_per_s": 1_000},
        "breaker": {"failure_percent": 0},
        "outlier": {"consecutive_failures": 1_000},
    });
    mesh.beside("caller", json!({"defaults": settings})).await
}

fn without_breaker() -> Value {
    json!({"settings": {"breaker": {"failure_percent": 0}}})
}

fn in_trace(path: &str) -> Request<Full<Bytes>> {
    let mut request = get(path);
    let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{PARENT}-01");
    let headers = request.headers_mut();
    headers.insert("traceparent", parent.parse().unwrap());
    request
}

/// Ends the sidecars, and has everything exported; the spans, of which there should be so many.
async fn exported(
    mesh: Mesh,
    sidecars: impl IntoIterator<Item = Sidecar>,
    collector: &Collector,
    number: usize,
) -> Vec<Span> {
    for mut sidecar in sidecars {
        sidecar.drained().await;
    }
    let tracer = mesh.tracer.clone();
    tokio::task::spawn_blocking(move || tracer.shutdown())
        .await
        .unwrap();
    let spans = collector.at_least(number, |_| true).await;
    assert_eq!(spans.len(), number, "{spans:#?}");
    spans
}

/// The spans of a kind, in the order of tries.
fn of<'a>(spans: &'a [Span], kind: &str) -> Vec<&'a Span> {
    let mut of: Vec<&Span> = spans.iter().filter(|s| s.kind == kind).collect();
    of.sort_by_key(|span| span.attribute("http.request.resend_count"));
    of
}

#[tokio::test]
async fn every_try_is_a_span() {
    let (mesh, collector) = traced().await;
    let asked = AtomicUsize::new(0);
    let app = App::answering(move |_| {
        let ill = asked.fetch_add(1, Ordering::SeqCst) < 2;
        let status = if ill { 503 } else { 200 };
        Response::builder().status(status).body(full("")).unwrap()
    })
    .await;
    let target = mesh.before("target", app.address, without_breaker()).await;
    let caller = caller(&mesh).await;
    let answer = send(caller.out(), in_trace("/a?token=hidden")).await;
    assert_eq!(answer.status, 200);

    let spans = exported(mesh, [caller, target], &collector, 6).await;
    let (tries, passed) = (of(&spans, "CLIENT"), of(&spans, "SERVER"));
    let seen = app.seen();
    for (number, (attempt, seen)) in tries.iter().zip(&seen).enumerate() {
        let server = passed.iter().find(|s| s.parent_id == attempt.id).unwrap();
        let (status, error, resent) = match number {
            0 => ("503", "ERROR", ""),
            1 => ("503", "ERROR", "1"),
            _ => ("200", "", "2"),
        };
        assert_eq!(attempt.parent_id, PARENT);
        assert_eq!(attempt.attribute("http.request.resend_count"), resent);
        assert_eq!(attempt.attribute("server.address"), "target");
        assert_eq!(attempt.attribute("network.peer.address"), "127.0.0.1");
        assert_eq!(server.attribute("mesh.peer"), "caller");
        for span in [attempt, server] {
            assert_eq!(span.name, "GET");
            assert_eq!(span.status, error, "{span:#?}");
            assert_eq!(span.attribute("http.response.status_code"), status);
            assert_eq!(span.attribute("url.path"), "/a");
            assert!(!format!("{span:?}").contains("hidden"), "{span:#?}");
        }
        // The program goes on from there.
        let told = seen.header("traceparent").unwrap();
        assert_eq!(told.split('-').nth(2).unwrap(), server.id);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn an_instance_that_is_gone_is_in_the_trace() {
    let (mesh, collector) = traced().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    registered(&mesh, "gone", gone.local_addr().unwrap()).await;
    drop(gone);
    let caller = caller(&mesh).await;
    assert_eq!(send(caller.out(), in_trace("/")).await.status, 502);
    for span in exported(mesh, [caller], &collector, 3).await {
        assert_eq!((&*span.kind, &*span.status), ("CLIENT", "ERROR"));
        assert_eq!(span.attribute("error.type"), "unconnected", "{span:#?}");
        assert_eq!(span.attribute("url.path"), "/");
    }
}

#[tokio::test]
async fn a_program_that_breaks_off_fails_the_span_of_the_sidecar_beside_it() {
    let (mesh, collector) = traced().await;
    let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = program.local_addr().unwrap();
    // Whoever connects is let go again: it lives, and answers nothing.
    tokio::spawn(async move {
        loop {
            drop(program.accept().await);
        }
    });
    let target = mesh.before("target", address, without_breaker()).await;
    let settings = json!({"defaults": {"retries": {"max": 0}}});
    let caller = mesh.beside("caller", settings).await;
    assert_eq!(send(caller.out(), in_trace("/")).await.status, 502);
    let spans = exported(mesh, [caller, target], &collector, 2).await;
    for (kind, error) in [("CLIENT", "502"), ("SERVER", "bad_gateway")] {
        let [span] = of(&spans, kind)[..] else {
            panic!("{spans:#?}")
        };
        assert_eq!(span.status, "ERROR", "{span:#?}");
        assert_eq!(span.attribute("http.response.status_code"), "502");
        assert_eq!(span.attribute("error.type"), error);
    }
}

#[tokio::test]
async fn what_machines_ask_begins_no_trace() {
    let (mesh, collector) = traced().await;
    let app = App::start().await;
    let target = mesh.before("target", app.address, json!({})).await;
    let caller = caller(&mesh).await;
    for path in [
        "health",
        "ready",
        "metrics",
        "internal/load",
        "internal/quota",
    ] {
        let asked = send(caller.out(), get(&format!("/{path}"))).await;
        assert_eq!(asked.status, 200);
    }
    assert!(app.seen().iter().all(|s| s.header("traceparent").is_none()));
    // What is in a trace already stays in it, and whatever else is asked begins one.
    for request in [in_trace("/health"), get("/process")] {
        assert_eq!(send(caller.out(), request).await.status, 200);
    }
    let spans = exported(mesh, [caller, target], &collector, 4).await;
    for span in of(&spans, "CLIENT") {
        let parent = match span.attribute("url.path") {
            "/health" => PARENT,
            _ => "",
        };
        assert_eq!(span.parent_id, parent, "{span:#?}");
    }
}
