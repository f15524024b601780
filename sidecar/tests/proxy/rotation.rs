//! Certificates change under load: requests go over to connections of the new one, and none fails.

use crate::support::{App, Mesh, get, h1};
use http_body_util::BodyExt;
use mesh_tests::wait_for;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[tokio::test]
async fn no_request_fails_while_certificates_change() {
    for between in ["http1", "http2"] {
        let app = App::start().await;
        let mesh = Mesh::new();
        // They are renewed at half of their life, every second.
        let short = json!({"identity": {"source": {"development": {"lifetime_s": 2}}}});
        let mut config = json!({
            "app": {"url": format!("http://{}", app.address), "health": {"check": "tcp"}},
            "policy": {"intentions": [{"from": "any"}]},
        });
        crate::support::merge(&mut config, short.clone());
        let target = mesh.before_with("target", config, json!({})).await;
        let mut config = json!({"outbound": {"listen": "127.0.0.1:0", "between": between}});
        crate::support::merge(&mut config, short);
        let caller = mesh.sidecar("caller", config).await;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let (stop, sent, out) = (Arc::clone(&stop), Arc::clone(&sent), caller.out());
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        let answer = h1(out, get("/")).await;
                        assert_eq!(answer.status(), 200);
                        answer.into_body().collect().await.unwrap();
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let renewed = |sidecar: &crate::support::Sidecar| {
            sidecar.metric("sidecar_certificate_renewals_total", &[("outcome", "ok")])
        };
        wait_for("three certificates of each", async || {
            renewed(&caller) > 2.5 && renewed(&target) > 2.5
        })
        .await;
        stop.store(true, Ordering::SeqCst);
        for sender in senders {
            sender.await.unwrap();
        }
        assert!(sent.load(Ordering::SeqCst) > 10);
        let labels = [("direction", "outbound"), ("outcome", "ok")];
        let handshakes = caller.metric("sidecar_tls_handshakes_total", &labels);
        assert!(
            handshakes > 2.5,
            "{between}: new connections were made: {handshakes}"
        );
        // Those of the old certificate go when they are free.
        wait_for("the old connections to go", async || {
            target.metric("sidecar_connections_open", &[("direction", "inbound")]) < 8.5
        })
        .await;
    }
}
