//! Where runs are kept: one port, over memory and Redis, one contract suite.
//!
//! A method returns when its effect stands. All are idempotent, so that a caller whose answer got
//! lost calls again.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod lease;
pub mod log;
mod memory;
mod record;
mod redis;
mod submission;

pub use lease::{Claim, HandedOver, Held, Hold, Leases, ReplicaId};
pub use log::{EventLog, LogPart, Logged, Position, Published, Turn};
pub use memory::MemoryStore;
pub use record::{
    Change, End, NOT_ACCEPTED, Owner, RunRecord, StepRecord, Summary, TaskStatus, Trace, plan_dag,
    progress,
};
pub use redis::{Durability, RedisStore, durability};
pub use submission::{ReplyTo, SubmissionKey};

use crate::config;
use async_trait::async_trait;
use mesh_protocol::TaskId;
use std::sync::Arc;
use std::time::Duration;

/// The port. Backends are chosen in [`connect`].
#[async_trait]
pub trait RunStore: Leases + EventLog {
    /// Keeps a run of the replica `by` as it is, among the unfinished ones unless it has ended.
    ///
    /// A run that is there and goes on stays as it is there, unless what is there is older: a call that
    /// arrives late changes nothing. One that has ended is written over whatever is there. A new run whose
    /// submission key has been seen is not kept.
    ///
    /// # Errors
    /// [`StoreError`]; the run may or may not be kept, now or a moment later.
    async fn create(&self, run: &RunRecord, by: ReplicaId) -> Result<Created, StoreError>;

    /// Writes one transition under the fencing token `fence`, if the run is there and has not ended. A change
    /// with an end takes the run off the unfinished ones and lets it expire after the retention, its
    /// submission key with it.
    ///
    /// # Errors
    /// [`StoreError`]; the change may or may not be written.
    async fn update(
        &self,
        run: &TaskId,
        fence: u64,
        change: &Change,
    ) -> Result<Updated, StoreError>;

    /// The run, or `None` when it never was or has expired.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn load(&self, run: &TaskId) -> Result<Option<RunRecord>, StoreError>;

    /// Runs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, query: &Query) -> Result<Page, StoreError>;

    /// The task that was submitted under this key, and whether with this body.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn submitted(&self, key: &SubmissionKey) -> Result<Option<Earlier>, StoreError>;
}

/// A task that was submitted under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The task.
    pub run: TaskId,
    /// Whether its body was the same.
    pub same_body: bool,
}

/// What became of a run that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It stands; perhaps since an earlier call.
    Kept,
    /// Its submission key belongs to this one. Nothing was written.
    Earlier(Earlier),
    /// Another replica has taken the run over. Nothing was written.
    Superseded,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// It stands; perhaps since an earlier call.
    Written,
    /// There is no such run (any more), or what is there lacks earlier changes: a store that lost its memory,
    /// or the end of it. Nothing was written.
    Gone,
    /// The run had ended by then, and stays as it ended.
    EndedBefore,
    /// Another replica has taken the run over: the fencing token is old. Nothing was written.
    Superseded,
}

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only this owner's.
    pub owner: Option<Owner>,
    /// Only of this status.
    pub status: Option<TaskStatus>,
    /// Only those before (older than) this one.
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The runs, newest first; may be fewer than the limit although there is more.
    pub tasks: Vec<Summary>,
    /// Where the next part begins, if there may be one.
    pub next: Option<TaskId>,
}

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not answer in time. Try again later.
    #[error("store unavailable: {detail}")]
    Unavailable {
        /// What came back; without credentials.
        detail: String,
        /// Whether what was asked for may have happened all the same, or may still happen.
        reached: bool,
    },
    /// What is stored is not what this version writes.
    #[error("stored run {task_id} cannot be read: {detail}")]
    Corrupt {
        /// The task.
        task_id: TaskId,
        /// The field and the fault.
        detail: String,
        /// Whose it is, where that can be read.
        owner: Option<Owner>,
    },
    /// The configuration cannot work at all.
    #[error("store configuration: {detail}")]
    Config {
        /// What is wrong; without credentials.
        detail: String,
    },
}

/// The store that `config` names. A server that is not there yet is waited for in the background.
///
/// # Errors
/// [`StoreError::Config`] when the configuration cannot work at all.
pub async fn connect(config: &config::Store) -> Result<Arc<dyn RunStore>, StoreError> {
    match config {
        config::Store::Memory { retention_s } => Ok(Arc::new(MemoryStore::new(
            Duration::from_secs(*retention_s),
        ))),
        config::Store::Redis { url, retention_s } => Ok(Arc::new(
            RedisStore::connect(url, Duration::from_secs(*retention_s)).await?,
        )),
    }
}
