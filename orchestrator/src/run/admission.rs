//! Whether a task can begin now, and a place for it among the runs in flight.

use super::executor::Executor;
use crate::store::StoreError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most bytes of the request bodies of runs in flight: parsed, a body takes some times its length.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// How long a new task waits for this replica's lease: at start, and when the store hesitated.
const LEASE_WAIT: Duration = Duration::from_secs(1);

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    bytes: AtomicUsize,
}

/// Why a run does not begin.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many runs as allowed are in flight.
    #[error("too many tasks are in flight")]
    Busy,
    /// The broker is away, or takes nothing: no step would go out.
    #[error("the broker takes no tasks")]
    Broker,
    /// This replica has no lease: what it began would be taken from it.
    #[error("the store does not renew this replica's lease")]
    NoLease,
    /// The run could not be kept, so it was not begun.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan is none that was checked.
    #[error("the plan is not sound: {0}")]
    Plan(String),
}

/// A place among the runs in flight; leaves it when dropped.
pub struct Slot {
    executor: Arc<Executor>,
    bytes: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let places = self.executor.places();
        places.taken.fetch_sub(1, Ordering::Relaxed);
        places.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.executor.context().metrics.in_flight.dec();
    }
}

impl Executor {
    /// How many runs go on here.
    pub fn in_flight(&self) -> usize {
        self.places().taken.load(Ordering::Relaxed)
    }

    /// Whether a new run could begin now.
    pub fn has_room(&self) -> bool {
        self.obstacle().is_none() && self.in_flight() < self.context().max_runs
    }

    /// Why a task that is submitted now would be refused, if it would.
    pub fn obstacle(&self) -> Option<SubmitError> {
        if !*self.context().bus.connected().borrow() || self.pressure().is_stalled() {
            return Some(SubmitError::Broker);
        }
        (!self.tenure().is_held()).then_some(SubmitError::NoLease)
    }

    /// A place for a run whose request has so many `bytes`, if it could begin now.
    ///
    /// # Errors
    /// [`SubmitError::Busy`], [`SubmitError::Broker`], [`SubmitError::NoLease`].
    pub async fn admit(self: &Arc<Self>, bytes: usize) -> Result<Slot, SubmitError> {
        if let Some(obstacle) = self.obstacle() {
            let held = tokio::time::timeout(LEASE_WAIT, self.tenure().held()).await;
            if held.is_err() || !matches!(obstacle, SubmitError::NoLease) {
                return Err(obstacle);
            }
        }
        self.reserve(bytes)
    }

    fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Slot, SubmitError> {
        let runs = self.places().taken.load(Ordering::Relaxed);
        let held = self.places().bytes.load(Ordering::Relaxed);
        // Requests at the very same moment may pass together: they are as few as the threads.
        if runs >= self.context().max_runs || held.saturating_add(bytes) > MAX_BYTES {
            return Err(SubmitError::Busy);
        }
        Ok(self.take_place(bytes))
    }

    /// A place, over the bounds if need be.
    pub(super) fn take_place(self: &Arc<Self>, bytes: usize) -> Slot {
        self.places().taken.fetch_add(1, Ordering::Relaxed);
        self.places().bytes.fetch_add(bytes, Ordering::Relaxed);
        self.context().metrics.in_flight.inc();
        Slot {
            executor: Arc::clone(self),
            bytes,
        }
    }
}
