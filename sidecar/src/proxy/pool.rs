//! Connections of HTTP/1.1 that are free, of one thread and one target: the last one back is the first one out, so
//! that those which a burst needed grow old and go.

use super::connect::Generation;
use super::h1::Connection;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most free connections of one thread to one target: as many as a target of a busy mesh has requests at once; beyond
/// that a burst pays for its own connections.
const MOST: usize = 256;

/// Free connections.
pub(crate) struct Idle {
    #[expect(
        clippy::vec_box,
        reason = "a connection is boxed all its life: it is moved for each request"
    )]
    free: Mutex<Vec<Box<Connection>>>,
    /// How long one may be free. The other side must not close it first, in the moment in which it is taken.
    longest: Duration,
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").finish_non_exhaustive()
    }
}

impl Idle {
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            free: Mutex::default(),
            longest,
        }
    }

    // A list of connections is whole whatever happened to the last holder.
    #[expect(clippy::vec_box, reason = "as it is kept")]
    fn free(&self) -> MutexGuard<'_, Vec<Box<Connection>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free connection that is still good.
    pub(crate) fn take(&self, generation: &Generation) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.free().pop()?;
            let good = connection.generation == *generation && connection.is_ready();
            if good {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection that is free.
    pub(crate) fn put(&self, connection: Box<Connection>) {
        let mut free = self.free();
        if free.len() < MOST {
            free.push(connection);
        }
    }

    /// Closes what was free for too long, or has ended, or is of another generation; how many are left.
    pub(crate) fn sweep(&self, now: Instant, generation: &Generation) -> usize {
        let mut free = self.free();
        free.retain_mut(|connection| {
            now.duration_since(connection.since) < self.longest
                && connection.generation == *generation
                && connection.is_ready()
        });
        free.len()
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        let free = std::mem::take(&mut *self.free());
        drop(free);
    }
}
