//! Threads of the proxies: none of their own, so that they share the caller's runtime, or several with a runtime each.
//!
//! A connection stays on its thread, with the connections that its requests use: between threads there is nothing
//! to wait for but counters. One thread costs least for each request.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Events of sockets that a turn of a runtime takes up.
///
/// A connection of HTTP/2 gathers what the requests of a turn have to say (`cork.rs`) and comes after them. tokio takes up
/// to 1,024 events in a turn, so the requests of all clients would leave together, and while one sidecar works on them
/// the other waits for them. docs/decisions/sidecar-data-path.md has what other numbers gave.
const EVENTS: usize = 16;

/// A runtime of one thread, for a sidecar.
///
/// # Errors
/// The system's.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS)
        .build()
}

/// Threads with a runtime each.
#[derive(Debug)]
pub(crate) struct Threads {
    own: Vec<(Handle, oneshot::Receiver<()>)>,
    stop: CancellationToken,
}

impl Threads {
    /// `count` threads; 1 is the caller's own.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(count: u16) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut own = Vec::new();
        for number in 0..count {
            if count == 1 {
                break;
            }
            let runtime = runtime()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            let (ended, end) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    drop(runtime);
                    // Nobody listens any more when the whole run was dropped.
                    let _ = ended.send(());
                })?;
            own.push((handle, end));
        }
        Ok(Self { own, stop })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.own.len().max(1)
    }

    /// The runtime of one; `None` for the caller's own.
    pub(crate) fn handle(&self, number: usize) -> Option<&Handle> {
        self.own.get(number).map(|(handle, _)| handle)
    }

    /// Ends them, and what still runs on them.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        for (_, ended) in std::mem::take(&mut self.own) {
            // An error is a thread that has ended, too.
            let _ = ended.await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
