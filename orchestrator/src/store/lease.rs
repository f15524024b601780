//! Who runs a run: replicas, their leases, and what they hand to each other.
//!
//! A replica holds one lease for all its runs, so that renewing costs the same for one run and for fifty
//! thousand. Each run carries a fencing token, which grows whenever another replica takes the run over: what
//! the one before writes later carries an old token and is refused.

use super::StoreError;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use mesh_protocol::outcome::StepResult;
use mesh_protocol::{TaskId, Timestamp};
use std::fmt;
use std::time::Duration;

/// One life of one orchestrator. Made at start and never used again, so that a replica that comes back
/// is not taken for the one that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(u64);

impl ReplicaId {
    /// 52 bits: a sorted set of Redis holds them exactly, as the score by which it finds a replica's runs.
    const MASK: u64 = (1 << 52) - 1;

    /// An id that no other has.
    pub fn random() -> Self {
        // The last 62 bits of a version 7 UUID are random.
        let bits = uuid::Uuid::now_v7().as_u128() & u128::from(Self::MASK);
        // Zero is nobody's.
        Self(u64::try_from(bits).unwrap_or(1).max(1))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a replica says when it renews its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Who.
    pub replica: ReplicaId,
    /// For how long from now, by the store's clock.
    pub lease: Duration,
    /// Takes over at most so many runs that nobody holds.
    pub claim: usize,
    /// What the replica's own clock says, in which it writes deadlines.
    pub now: Timestamp,
    /// Whether to hear of all its runs: after a call whose answer got lost it may have some that it does
    /// not know.
    pub all: bool,
}

/// What a replica hears when it renews its lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Which life of the store this is: another one has lost what was kept in the one before.
    pub epoch: String,
    /// Whether the lease had run out, or is the replica's first: others may have taken its runs.
    pub lapsed: bool,
    /// Runs that are the replica's from now on.
    pub claimed: Vec<Claim>,
    /// All runs of the replica that have not ended, if it asked for them.
    pub all: Vec<Claim>,
    /// Runs of the replica with results that others have handed over, and that it has not settled yet.
    pub handed: Vec<TaskId>,
}

/// A run that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run: TaskId,
    /// Its fencing token from now on.
    pub fence: u64,
    /// By how many milliseconds the clock of the replica that claims is ahead of the clock of the one
    /// before, in which the run's deadlines are written.
    pub ahead_ms: i64,
}

/// What became of a result that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandedOver {
    /// It lies in its run, whoever runs it now or later.
    Kept,
    /// There is no such run (any more).
    Gone,
    /// The run has ended.
    Ended,
}

/// What replicas share besides runs; part of every run store, since one script has to see both.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Renews the lease of a replica, and takes over runs whose replica has none.
    ///
    /// # Errors
    /// [`StoreError`]; the lease may be renewed and runs may be claimed all the same: ask for
    /// [all](Hold::all) of them then.
    async fn hold(&self, hold: &Hold) -> Result<Held, StoreError>;

    /// Gives up the lease: what the replica has not ended is there to be claimed.
    ///
    /// # Errors
    /// [`StoreError`]; the lease runs out by itself.
    async fn release(&self, replica: ReplicaId) -> Result<(), StoreError>;

    /// Puts a result into its run, and tells the replica that runs it.
    ///
    /// # Errors
    /// [`StoreError`]; the result may be kept all the same.
    async fn hand_over(&self, result: &StepResult) -> Result<HandedOver, StoreError>;

    /// Results as they are handed to `replica`, until the connection breaks. What is missed here is told by
    /// [`Held::handed`].
    ///
    /// # Errors
    /// [`StoreError`].
    async fn listen(
        &self,
        replica: ReplicaId,
    ) -> Result<BoxStream<'static, StepResult>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_score_that_a_sorted_set_holds_exactly() {
        for _ in 0..1000 {
            let ReplicaId(id) = ReplicaId::random();
            assert!((1..1 << 52).contains(&id));
        }
        assert_ne!(ReplicaId::random(), ReplicaId::random());
    }
}
