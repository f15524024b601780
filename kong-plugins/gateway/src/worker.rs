//! Workers: threads that accept, answer and drain.
//!
//! All workers accept from one socket, so a connection goes to a worker that is free. Within a worker
//! everything is local to its thread; what it spawns is a task per connection (`tasks`, waited for while
//! draining) and the ticks (`ticks`, ended with the worker).

use crate::config::{Config, RunError};
use crate::filters::Set;
use crate::metrics::{ByRoute, Metrics};
use crate::proxy::Worker;
use crate::routes::Table;
use crate::upstream::{ServicePlan, Upstream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

/// Stack of a worker, in bytes: a filter may use 512 KiB of it.
const STACK: usize = 4 * 1024 * 1024;
/// Pause after a failed accept: the process has no descriptors left, and asking again at once helps
/// nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all workers read and none changes.
pub(crate) struct Shared {
    pub config: Config,
    pub table: Table,
    pub services: Vec<ServicePlan>,
    pub connections: Arc<Semaphore>,
    pub metrics: Metrics,
    pub by_route: ByRoute,
    pub local_port: u16,
}

/// Runs the workers until `shutdown`, or until one ends.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    sets: Vec<Set>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    // A child: when one worker fails, the others end, and the rest of the process does not.
    let shutdown = shutdown.child_token();
    let _end_all = shutdown.clone().drop_guard();
    let mut ends = JoinSet::new();
    for (number, set) in sets.into_iter().enumerate() {
        let listener = listener.try_clone().map_err(RunError::Worker)?;
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("gateway-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                let result = work(listener, shared, set, shutdown);
                // Nobody listens any more when the whole run was dropped.
                let _ = ended.send(result);
            })
            .map_err(RunError::Worker)?;
        ends.spawn(async move { (number, end.await) });
    }
    drop(listener);
    let mut outcome = Ok(());
    while let Some(end) = ends.join_next().await {
        let failed = match end {
            Ok((_, Ok(Ok(())))) if shutdown.is_cancelled() => None,
            Ok((_, Ok(Err(error)))) => Some(RunError::Worker(error)),
            Ok((number, _)) => Some(RunError::Ended(number)),
            Err(_) => Some(RunError::Ended(0)),
        };
        if let Some(error) = failed {
            shutdown.cancel();
            outcome = Err(error);
        }
    }
    outcome
}

fn work(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    set: Set,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::from_std(listener)?;
        let services = shared.services.iter().cloned().map(Upstream::new).collect();
        let worker = Rc::new(Worker {
            set: Rc::new(RefCell::new(set)),
            services,
            shared,
        });
        let ticks = tokio::task::spawn_local(tick(Rc::clone(&worker.set)));
        serve(&listener, &worker, &shutdown).await;
        ticks.abort();
        Ok(())
    })
}

/// Runs the filters' ticks and makes the calls that come of them; all end with it.
async fn tick(set: Rc<RefCell<Set>>) {
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        // Nothing is awaited while the set is borrowed, so that it is always free here.
        let (next, asked) = match set.try_borrow_mut() {
            Ok(mut set) => (set.tick(Instant::now()), set.take_calls()),
            Err(_) => (Instant::now() + ACCEPT_PAUSE, Vec::new()),
        };
        for asked in asked {
            let set = Rc::clone(&set);
            calls.spawn_local(async move {
                let answer = crate::calls::make(&asked.call).await;
                if let Ok(mut set) = set.try_borrow_mut() {
                    set.answered(&asked, answer);
                }
            });
        }
        tokio::time::sleep_until(next.into()).await;
    }
}

async fn serve(listener: &TcpListener, worker: &Rc<Worker>, shutdown: &CancellationToken) {
    let mut tasks = JoinSet::new();
    loop {
        // Connections that have ended are taken out as others come.
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(listener, &worker.shared.connections) => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                tasks.spawn_local(connection(
                    Rc::clone(worker),
                    stream,
                    permit,
                    shutdown.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(worker.shared.config.drain, drained)
        .await
        .is_err()
    {
        tracing::warn!(connections = tasks.len(), "connections are cut off");
        tasks.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    let Ok(client) = stream.peer_addr() else {
        return;
    };
    // Without it small answers wait for an acknowledgement; with an error they only wait.
    let _ = stream.set_nodelay(true);
    let gauge = worker.shared.metrics.connections.clone();
    gauge.inc();
    let config = &worker.shared.config;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(config.max_headers)
        .max_buf_size(config.max_head_bytes.max(8192));
    let service = service_fn(|request| {
        let worker = Rc::clone(&worker);
        async move { Ok::<_, std::convert::Infallible>(worker.answer(request, client).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            // The request in flight is finished; then the connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    gauge.dec();
    if let Err(error) = result {
        tracing::debug!(%client, %error, "connection ended early");
    }
}
