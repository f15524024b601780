//! The end of a sidecar: what is under way is finished, what comes is told elsewhere, and it does not last for ever.

use crate::raw;
use crate::support::{App, Mesh, Pair, full, get, send};
use hyper::Response;
use mesh_tests::within;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::net::TcpStream;

#[tokio::test]
async fn what_is_under_way_is_answered() {
    for between in ["http1", "http2"] {
        let (answer, held) = tokio::sync::watch::channel(false);
        let (asked, mut asked_here) = tokio::sync::mpsc::unbounded_channel();
        let app = App::streaming(move |_| {
            let mut held = held.clone();
            asked.send(()).unwrap();
            Box::pin(async move {
                held.wait_for(|answer| *answer).await.unwrap();
                Response::new(full("at last"))
            })
        })
        .await;
        let mut pair = Pair::between(app.address, between).await;
        let out = pair.out();
        let asking = tokio::spawn(async move { send(out, get("/")).await });
        let mut idle = TcpStream::connect(out).await.unwrap();
        within("the request", asked_here.recv()).await.unwrap();
        pair.target.shutdown.cancel();
        pair.caller.shutdown.cancel();
        // Whoever holds a connection without a request is shown out at once.
        assert_eq!(raw::to_end(&mut idle).await, "");
        assert!(!asking.is_finished());
        answer.send(true).unwrap();
        let answer = within("the answer", asking).await.unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (200, "at last"),
            "{between}"
        );
        pair.target.drained().await;
        pair.caller.drained().await;
        assert!(TcpStream::connect(out).await.is_err());
    }
}

#[tokio::test]
async fn a_drain_ends_though_requests_do_not() {
    let (asked, mut asked_here) = tokio::sync::mpsc::unbounded_channel();
    let app = App::streaming(move |_| {
        asked.send(()).unwrap();
        Box::pin(async {
            std::future::pending::<()>().await;
            Response::new(full(""))
        })
    })
    .await;
    let mesh = Mesh::new();
    let config = json!({
        "app": {"url": format!("http://{}", app.address), "health": {"check": "tcp"}},
        "policy": {"intentions": [{"from": "any"}]},
        "drain_ms": 100,
    });
    let mut target = mesh.before_with("target", config, json!({})).await;
    let config = json!({"drain_ms": 100, "outbound": {"listen": "127.0.0.1:0"}});
    let mut caller = mesh.sidecar("caller", config).await;
    let mut client = TcpStream::connect(caller.out()).await.unwrap();
    raw::write(&mut client, "GET / HTTP/1.1\nhost: target\n\n").await;
    within("the request", asked_here.recv()).await.unwrap();
    caller.drained().await;
    assert_eq!(raw::to_end(&mut client).await, "");
    target.drained().await;
}

#[tokio::test]
async fn instances_come_and_go_under_load_without_an_error() {
    for between in ["http1", "http2"] {
        let app = App::start().await;
        let mesh = Mesh::new();
        let _stays = mesh.before("target", app.address, json!({})).await;
        let caller = mesh.beside("caller", json!({"between": between})).await;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let (stop, sent, out) = (Arc::clone(&stop), Arc::clone(&sent), caller.out());
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let answer = send(out, get("/")).await;
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let mut passing = mesh.before("target", app.address, json!({})).await;
            let before = sent.load(Ordering::SeqCst);
            mesh_tests::wait_for("some requests", async || {
                passing.metric("sidecar_requests_total", &[("code", "200")]) > 3.5
                    && sent.load(Ordering::SeqCst) > before + 50
            })
            .await;
            passing.drained().await;
        }
        stop.store(true, Ordering::SeqCst);
        for sender in senders {
            within("a sender", sender).await.unwrap();
        }
    }
}
