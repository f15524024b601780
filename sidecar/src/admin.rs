//! `/health`, `/ready`, `/metrics` and what an operator asks; for loopback and whoever the mesh lets in.
//!
//! Plain hyper: a few fixed paths need no router, and an idle sidecar is to stay small. What changes something
//! (`POST /drain`, `/log`) is not for pages in a browser on this machine: whatever says where it comes from
//! (`Origin`) is refused.

mod log;

use crate::status::Status;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_trace::LogHandle;
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
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
/// What a page shows now.
pub(crate) type Page = Box<dyn Fn() -> Value + Send + Sync>;
/// What the listener shows, and what it can set off.
pub(crate) struct Admin {
    pub(crate) metrics: Registry,
    pub(crate) status: Arc<Status>,
    /// By path: `/config`, `/registry`, `/certificate`, as far as this sidecar has them.
    pub(crate) pages: Vec<(&'static str, Page)>,
    /// Cancelled by `POST /drain`.
    pub(crate) drain: CancellationToken,
    /// `/log`; the log is its process's, so not every sidecar can change it.
    pub(crate) logs: Option<LogHandle>,
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
        let (place, stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            (place, accepted) = accept => match accepted {
                Ok((stream, peer)) => (place, stream, peer),
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
            let service = service_fn(|request| answer(request, peer, &admin));
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
    peer: SocketAddr,
    admin: &Admin,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if path == log::PATH {
        return Ok(log::answer(request, peer, admin.logs.as_ref()).await);
    }
    if path == "/drain" {
        return Ok(drain(&request, peer, admin));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(not_allowed(&Method::GET));
    }
    Ok(match path {
        "/health" => json_response(StatusCode::OK, &json!({"status": "healthy"})),
        "/ready" => {
            let reasons = admin.status.reasons();
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
                let text = format!("there are {}, /log and POST /drain\n", paths.join(", "));
                response(StatusCode::NOT_FOUND, "text/plain", text.into())
            }
        },
    })
}

/// Refuses who is not on this machine, or is a page in a browser on it.
fn from_elsewhere(request: &Request<Incoming>, peer: SocketAddr) -> Option<Response<Full<Bytes>>> {
    if !peer.ip().to_canonical().is_loopback() {
        return Some(plain(StatusCode::FORBIDDEN, "only from this machine\n"));
    }
    let page = request.headers().contains_key(header::ORIGIN);
    page.then(|| plain(StatusCode::FORBIDDEN, "not for pages in a browser\n"))
}

fn drain(request: &Request<Incoming>, peer: SocketAddr, admin: &Admin) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return not_allowed(&Method::POST);
    }
    if let Some(refused) = from_elsewhere(request, peer) {
        return refused;
    }
    admin.drain.cancel();
    json_response(StatusCode::ACCEPTED, &json!({"draining": true}))
}

fn not_allowed(method: &Method) -> Response<Full<Bytes>> {
    let text = format!("use {method}\n");
    let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", text.into());
    let allow = match *method {
        Method::GET => HeaderValue::from_static("GET, HEAD"),
        _ => HeaderValue::from_static("POST"),
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
