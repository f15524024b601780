//! What is logged is changed over the admin listener.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use mesh_sidecar::registry::Memory;
use mesh_sidecar::{Deps, build};
use mesh_tests::within;
use mesh_trace::logs::{self, Format, MAX_FILTER, Settings};
use mesh_trace::{LogHandle, Tracer};
use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

struct Sidecar {
    url: String,
    client: Client,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Sidecar {
    async fn start(logs: Option<LogHandle>) -> Self {
        let config = json!({"service": "gateway", "admin_listen": "127.0.0.1:0"});
        let deps = Deps {
            bus: None,
            registry: Memory::new(),
            tracer: Tracer::off(),
            logs,
            metrics: prometheus::Registry::new(),
        };
        let bound = build(serde_json::from_value(config).unwrap(), deps)
            .await
            .unwrap();
        let url = format!("http://{}/log", bound.admin_address());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            url,
            client: Client::builder().no_proxy().build().unwrap(),
            shutdown,
            running,
        }
    }

    async fn ask(&self, method: Method, body: impl Into<String>) -> (StatusCode, String) {
        let request = self.client.request(method, &self.url).body(body.into());
        let answer = within("an answer", request.send()).await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        within("the end", self.running).await.unwrap();
    }
}

#[tokio::test]
async fn the_log_changes_while_the_sidecar_runs() {
    let settings = Settings {
        format: Format::Json,
        filter: "warn".to_owned(),
    };
    let (subscriber, handle) = logs::subscriber(&settings).unwrap();
    let sidecar = Sidecar::start(Some(handle.clone())).await;
    let (status, filter) = sidecar.ask(Method::GET, "").await;
    assert_eq!((status, filter.trim()), (StatusCode::OK, "warn"));

    let wanted = "info,mesh_sidecar=debug";
    let (status, filter) = sidecar.ask(Method::PUT, wanted).await;
    assert_eq!((status, filter.trim()), (StatusCode::OK, wanted));
    tracing::subscriber::with_default(subscriber, || {
        assert!(tracing::enabled!(target: "mesh_sidecar::worker", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "other", tracing::Level::DEBUG));
    });

    let (status, why) = sidecar.ask(Method::PUT, "inof").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(why.contains("`inof`"), "{why}");
    let (status, _) = sidecar.ask(Method::PUT, "a".repeat(MAX_FILTER + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = sidecar.ask(Method::POST, "info").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(handle.filter(), wanted);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_log_that_is_another_s_is_left_alone() {
    let sidecar = Sidecar::start(None).await;
    let (status, _) = sidecar.ask(Method::PUT, "off").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    sidecar.stop().await;
}
