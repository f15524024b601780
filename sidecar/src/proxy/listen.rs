//! Accepts connections and deals them out to threads.
//!
//! ```text
//!  listener ─▶ the thread with the fewest connections: one task for each ─▶ connection, until it ends
//! ```
//!
//! One acceptor: with a socket of its own for each thread, the few connections of a mesh that speaks HTTP/2 would
//! all come to one of them as often as not.

use super::drain::Drain;
use super::threads::Threads;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause after a failed accept: the process has no descriptors left, and asking again at once helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place on a thread.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until `shutdown`, and then as long as connections last, at most `longest`.
pub(crate) async fn serve<F, C>(
    listener: TcpListener,
    threads: &Threads,
    max_connections: usize,
    shutdown: &CancellationToken,
    longest: Duration,
    connection: F,
) where
    F: Fn(TcpStream, SocketAddr, usize, Drain) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let loads: Vec<_> = (0..threads.count())
        .map(|_| Arc::new(AtomicUsize::new(0)))
        .collect();
    let drain = Drain::default();
    let mut tasks = JoinSet::new();
    loop {
        // Connections that have ended are taken out as others come.
        while tasks.try_join_next().is_some() {}
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let least = loads
            .iter()
            .enumerate()
            .min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        let Some((number, load)) = least else { break };
        load.fetch_add(1, Ordering::Relaxed);
        let load = Place(Arc::clone(load));
        match threads.handle(number) {
            None => {
                let connection = connection(stream, address, number, drain.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop((place, load));
                });
            }
            Some(handle) => {
                // Readiness is told to the runtime in which a stream is made.
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let entered = handle.enter();
                let stream = TcpStream::from_std(stream);
                drop(entered);
                let Ok(stream) = stream else { continue };
                let connection = connection(stream, address, number, drain.clone());
                let task = async move {
                    connection.await;
                    drop((place, load));
                };
                tasks.spawn_on(task, handle);
            }
        }
    }
    drop(listener);
    drain.begin();
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(longest, drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections are cut off");
        tasks.shutdown().await;
    }
}
