//! `/health`, `/ready`, `/metrics` and what an operator asks; for loopback and whoever the mesh lets in.
//!
//! Plain hyper: a few fixed paths need no router, and an idle sidecar is to stay small. What changes something
//! (`POST /drain`, `PUT /log`) is not for pages in a browser on this machine: whatever says where it comes from
//! (`Origin`) is refused.

use crate::status::Status;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at once: a scraper, a prober and people; the rest waits to be accepted.
const CONNECTIONS: usize = 32;
/// How long a client has for the head of a request; also ends idle connections.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest filter of the log, in bytes.
const MAX_FILTER: usize = 4_096;

/// What a page shows now.
pub(crate) type Page = Box<dyn Fn() -> Value + Send + Sync>;
/// Changes which lines are logged; refuses in words.
pub type SetLog = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the listener shows, and what it can set off.
pub(crate) struct Admin {
    pub(crate) metrics: Registry,
    pub(crate) status: Arc<Status>,
    /// By path: `/config`, `/registry`, `/certificate`, as far as this sidecar has them.
    pub(crate) pages: Vec<(&'static str, Page)>,
    /// Cancelled by `POST /drain`.
    pub(crate) drain: CancellationToken,
    /// `PUT /log`; the log is its process's, so not every sidecar can change it.
    pub(crate) log: Option<SetLog>,
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let admin = Arc::new(admin);
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = stop.cancelled() => break,
            (place, accepted) = accept => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    tracing::warn!(%error, "admin connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let admin = Arc::clone(&admin);
        let stop = stop.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &admin));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // A client that goes away or says nothing is its own affair.
            let _ = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop(place);
        });
    }
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(1), connections.wait()).await;
}

async fn answer(
    request: Request<Incoming>,
    admin: &Admin,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if let Some(method) = changing(path) {
        return Ok(if request.method() != method {
            not_allowed(&method)
        } else if request.headers().contains_key(header::ORIGIN) {
            plain(StatusCode::FORBIDDEN, "not for pages in a browser\n")
        } else if path == "/drain" {
            admin.drain.cancel();
            json_response(StatusCode::ACCEPTED, &json!({"draining": true}))
        } else {
            set_log(request, admin).await
        });
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(not_allowed(&Method::GET));
    }
    Ok(match path {
        "/health" => json_response(StatusCode::OK, &json!({"status": "healthy"})),
        "/ready" => {
            let reasons = admin.status.reasons().await;
            let code = if reasons.is_empty() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json_response(
                code,
                &json!({"ready": reasons.is_empty(), "reasons": reasons}),
            )
        }
        "/metrics" => metrics(&admin.metrics),
        _ => match admin.pages.iter().find(|(page, _)| *page == path) {
            Some((_, page)) => json_response(StatusCode::OK, &page()),
            None => {
                let mut paths = vec!["/health", "/ready", "/metrics"];
                paths.extend(admin.pages.iter().map(|(page, _)| *page));
                let text = format!("there are {}, POST /drain and PUT /log\n", paths.join(", "));
                response(StatusCode::NOT_FOUND, "text/plain", text.into())
            }
        },
    })
}

/// The method of a path that changes something.
fn changing(path: &str) -> Option<Method> {
    match path {
        "/drain" => Some(Method::POST),
        "/log" => Some(Method::PUT),
        _ => None,
    }
}

async fn set_log(request: Request<Incoming>, admin: &Admin) -> Response<Full<Bytes>> {
    let Some(set) = &admin.log else {
        return plain(
            StatusCode::CONFLICT,
            "the log of this process is not this sidecar's to change\n",
        );
    };
    let body = Limited::new(request.into_body(), MAX_FILTER).collect();
    let Ok(Ok(body)) = tokio::time::timeout(HEAD, body).await else {
        return plain(
            StatusCode::BAD_REQUEST,
            "send a filter, such as info,mesh_sidecar=debug\n",
        );
    };
    let bytes = body.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    match set(text.trim()) {
        Ok(()) => json_response(StatusCode::OK, &json!({"log": text.trim()})),
        Err(why) => response(
            StatusCode::BAD_REQUEST,
            "text/plain",
            format!("{why}\n").into(),
        ),
    }
}

fn not_allowed(method: &Method) -> Response<Full<Bytes>> {
    let text = format!("use {method}\n");
    let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", text.into());
    let allow = match *method {
        Method::GET => HeaderValue::from_static("GET, HEAD"),
        Method::POST => HeaderValue::from_static("POST"),
        _ => HeaderValue::from_static("PUT"),
    };
    refused.headers_mut().insert(header::ALLOW, allow);
    refused
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => response(StatusCode::OK, "text/plain; version=0.0.4", text.into()),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics cannot be written\n",
            )
        }
    }
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/json", body.to_string().into())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain", Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
