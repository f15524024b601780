//! A double of Consul's agent (HTTP API of 1.8): answers as a test says, and keeps what it was asked.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub token: Option<String>,
    pub body: Value,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Status, headers, body.
    Text(u16, Vec<(&'static str, String)>, String),
    /// Nothing, for as long as the other side waits.
    Hang,
}

pub fn text(status: u16, body: &str) -> Answer {
    Answer::Text(status, Vec::new(), body.to_owned())
}

pub fn indexed(index: u64, body: &Value) -> Answer {
    let header = ("x-consul-index", index.to_string());
    Answer::Text(200, vec![header], body.to_string())
}

/// What `/v1/health/service/…` says of passing instances at these ports.
pub fn instances(service: &str, ports: &[u16]) -> Value {
    let entry = |port: &u16| {
        json!({
            "Node": {"Node": "n", "Address": "127.0.0.1", "Datacenter": "dc1"},
            "Service": {"ID": format!("{service}-{port}"), "Service": service, "Address": "127.0.0.1", "Port": port},
        })
    };
    ports.iter().map(entry).collect()
}

pub struct Double {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _stop: DropGuard,
}

impl Double {
    /// Answers every request by `answer`, which gets it and how many came before.
    pub async fn start(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let stop = CancellationToken::new();
        let (answer, seen, stopped) = (Arc::new(answer), Arc::clone(&asked), stop.clone());
        tokio::spawn(async move {
            let connections = TaskTracker::new();
            loop {
                let stream = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                connections.spawn(stopped.clone().run_until_cancelled_owned(async move {
                    let service = service_fn(|request| exchange(request, &*answer, &seen));
                    // Who goes away in the middle is the client under test.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }));
            }
        });
        Self {
            url,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn exchange(
    request: Request<Incoming>,
    answer: &(dyn Fn(&Asked, usize) -> Answer + Send + Sync),
    seen: &Mutex<Vec<Asked>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let token = head.headers.get("x-consul-token");
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        token: token.map(|token| token.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default(),
    };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(asked.clone());
        seen.len() - 1
    };
    match answer(&asked, before) {
        Answer::Hang => std::future::pending().await,
        Answer::Text(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::from(body)).unwrap())
        }
    }
}
