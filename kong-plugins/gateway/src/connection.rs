//! One connection of a client: HTTP/1.1, HTTP/2 without asking first, or what HTTP/1.1 was upgraded to.

use crate::config::Config;
use crate::local::Worker;
use crate::proxy::{Client, Tunnel, answer};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// How a connection of HTTP/2 begins, as far as no method of HTTP/1.1 that is common does.
const PREFACE: &[u8] = b"PRI";
/// Pause before a beginning that is too short to judge is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(2);
/// Requests at a time on one connection of HTTP/2: more than a client of the mesh has, and a bound on what
/// one connection may make the gateway hold.
const MAX_STREAMS: u32 = 128;
/// Streams that were reset and are not forgotten yet, before the connection is closed: hyper's default for
/// remote resets is 20; clients of the mesh cancel less.
const MAX_RESETS: usize = 64;

/// Counts a connection for as long as it lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Answers a connection's requests until it ends, or until `shutdown`.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    let Ok(address) = stream.peer_addr() else {
        return;
    };
    // Without it small answers wait for an acknowledgement; with an error they only wait.
    let _ = stream.set_nodelay(true);
    let local = worker.local();
    let _counted = Counted::new(local.process.metrics.connections.clone());
    // Not the configuration's VMs: a connection may outlive them by far.
    let generation = Arc::clone(&local.generation);
    drop(local);
    let config = &generation.config;
    let is_h2 = tokio::select! {
        found = tokio::time::timeout(config.header_timeout, begins_h2(&stream)) => found,
        () = shutdown.cancelled() => return,
    };
    let client = Rc::new(Client::new(address));
    let result = match is_h2 {
        Ok(Ok(true)) => h2(&worker, config, stream, &client, &shutdown).await,
        Ok(Ok(false)) => h1(&worker, config, stream, &client, &shutdown).await,
        // Nothing came, or the client has gone.
        Ok(Err(_)) | Err(_) => return,
    };
    if let Err(error) = result {
        tracing::debug!(client = %address, %error, "connection ended early");
    }
    // The connection's permit is held for as long as the tunnel lives, which the drain waits for.
    if let Some(tunnel) = client.take_tunnel() {
        Tunnel::run(tunnel).await;
    }
}

/// Whether the client speaks HTTP/2; nothing is taken from the stream.
async fn begins_h2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let read = stream.peek(&mut start).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (seen, wanted) = (start.get(..read), PREFACE.get(..read));
        if seen != wanted {
            return Ok(false);
        }
        if read == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

async fn h1(
    worker: &Rc<Worker>,
    config: &Config,
    stream: TcpStream,
    client: &Rc<Client>,
    shutdown: &CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(client));
        async move { Ok::<_, Infallible>(answer(worker.local(), request, &client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(config.max_headers)
        .max_buf_size(config.max_head_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            // The request in flight is finished; then the connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn h2(
    worker: &Rc<Worker>,
    config: &Config,
    stream: TcpStream,
    client: &Rc<Client>,
    shutdown: &CancellationToken,
) -> hyper::Result<()> {
    // Requests that have begun: a connection without any is closed after a while, as HTTP/1.1's is.
    let begun = Rc::new(Cell::new(0u64));
    let open = Rc::new(Cell::new(0usize));
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(client));
        let (begun, open) = (Rc::clone(&begun), Rc::clone(&open));
        async move {
            begun.set(begun.get() + 1);
            open.set(open.get() + 1);
            let _one = OnDrop(open);
            Ok::<_, Infallible>(answer(worker.local(), request, &client).await)
        }
    });
    let connection = http2::Builder::new(LocalTasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(config.header_timeout))
        .keep_alive_timeout(config.header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let idle = async {
        let mut seen = None;
        loop {
            tokio::time::sleep(config.header_timeout).await;
            let now = begun.get();
            if open.get() == 0 && seen == Some(now) {
                return;
            }
            seen = Some(now);
        }
    };
    tokio::select! {
        result = connection.as_mut() => return result,
        () = shutdown.cancelled() => {}
        () = idle => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

struct OnDrop(Rc<Cell<usize>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Runs a connection's streams on the worker's thread.
#[derive(Clone)]
struct LocalTasks;

impl<F> hyper::rt::Executor<F> for LocalTasks
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        // Ends with its stream; the connection, which is tracked, ends after it.
        drop(tokio::task::spawn_local(future));
    }
}
