//! Where Prometheus asks: a listener of its own, apart from the clients'.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time: one Prometheus, and some people.
const MAX_CONNECTIONS: usize = 32;
/// Longest wait for a question.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that shows metrics at `/metrics`, and 200 at `/status`.
#[derive(Debug)]
pub struct Status {
    listener: TcpListener,
    address: SocketAddr,
    metrics: Registry,
}

impl Status {
    /// Listens on `address`; port 0 takes a free one. Must be called within a runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(address: SocketAddr, metrics: Registry) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self {
            listener,
            address,
            metrics,
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let metrics = self.metrics.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(&request, &metrics);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection ended early");
                }
            });
        }
    }
}

fn answer(request: &Request<Incoming>, metrics: &Registry) -> Response<Full<Bytes>> {
    let status = |status: StatusCode| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    match request.uri().path() {
        "/metrics" => {
            let encoder = TextEncoder::new();
            let mut text = Vec::new();
            if let Err(error) = encoder.encode(&metrics.gather(), &mut text) {
                tracing::error!(%error, "metrics cannot be written");
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
            let mut response = Response::new(Full::from(text));
            if let Ok(media) = encoder.format_type().parse() {
                response.headers_mut().insert(CONTENT_TYPE, media);
            }
            response
        }
        "/status" => status(StatusCode::OK),
        _ => status(StatusCode::NOT_FOUND),
    }
}
