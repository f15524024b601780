//! Sockets to requests: HTTP/1.1 and HTTP/2 without TLS (the sidecar has that), time limits, drain.
//!
//! Own accept loop, since axum's knows no time limit for a request's head: a client that sends one
//! byte a minute would hold a connection for ever.

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; more wait in the kernel's queue. Each costs some 20 kB.
const MAX_CONNECTIONS: usize = 4096;
/// Time for a request's head to arrive.
const HEAD: Duration = Duration::from_secs(10);
/// Time for answers in progress when stopping; long ones are told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop`, then lets answers in progress finish.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        // A gateway takes 128 and adds some ten of its own.
        .max_headers(192)
        .header_read_timeout(HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let (socket, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: give connections time to close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
        }
        let service = TowerToHyperService::new(Connection {
            router: router.clone(),
            peer,
        });
        let connection = graceful.watch(
            server
                .serve_connection_with_upgrades(TokioIo::new(socket), service)
                .into_owned(),
        );
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("answers in progress were cut off");
    }
}

/// The router, told who the peer is.
#[derive(Clone)]
struct Connection {
    router: Router,
    peer: SocketAddr,
}

impl<B> tower::Service<http::Request<B>> for Connection
where
    Router: tower::Service<http::Request<B>>,
{
    type Response = <Router as tower::Service<http::Request<B>>>::Response;
    type Error = <Router as tower::Service<http::Request<B>>>::Error;
    type Future = <Router as tower::Service<http::Request<B>>>::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.call(request)
    }
}
