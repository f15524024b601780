//! The log of changes: what happened to runs, in the order in which the store wrote it, a bounded number of it.
//!
//! Every change is logged by the very write that makes it, so none is told that did not happen, and none
//! happens untold. Followers read the log from any place in it; one replica at a time publishes it, from where
//! the one before left off.

use super::{Owner, ReplicaId, StoreError};
use async_trait::async_trait;
use mesh_protocol::TaskId;
use mesh_protocol::event::Event;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Most changes that are kept, and a few more: what ten thousand tasks of three steps make, some 40 MiB in Redis.
/// Who was away for longer hears how many are missing.
pub const KEPT_CHANGES: usize = 50_000;
/// How long a replica may publish the log without saying that it still does.
pub const TURN: Duration = Duration::from_secs(6);

/// A place in the log: behind one change.
///
/// Ordered by when the store wrote it, by a clock that never goes back within one store. The number counts
/// changes, so that it shows when some of them are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Tells apart what was written in the same millisecond.
    pub seq: u64,
    /// How many changes were logged up to here.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.ms, self.seq, self.number)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-').map(|part| part.parse().map_err(drop));
        let mut part = || parts.next().unwrap_or(Err(()));
        let position = Self {
            ms: part()?,
            seq: part()?,
            number: part()?,
        };
        parts.next().map_or(Ok(position), |_| Err(()))
    }
}

/// One change of a run, as it was logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Its place.
    pub position: Position,
    /// Whose the run is.
    pub owner: Option<Owner>,
    /// What happened, in order.
    pub events: Vec<Arc<Event>>,
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogPart {
    /// Which life of the store this is: positions of another one mean nothing here.
    pub epoch: String,
    /// Changes before the first of these that were asked for and are no longer kept.
    pub missed: u64,
    /// The changes, oldest first.
    pub changes: Vec<Logged>,
    /// The end of the whole log.
    pub end: Position,
}

impl LogPart {
    /// How many changes lie between `after` and the first of `changes`.
    pub(super) fn missed(after: Position, changes: &[Logged]) -> u64 {
        let first = changes.first().map_or(0, |change| change.position.number);
        // A store that fell back counts from where it is.
        first.saturating_sub(after.number.saturating_add(1))
    }
}

/// What a replica that publishes the log says of what it did.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Everything up to here.
    pub up_to: Option<Position>,
    /// Runs whose submitters have their last answer, or never will.
    pub answered: Vec<TaskId>,
    /// Runs whose submitters could not be answered now: others go first the next time.
    pub unanswered: Vec<TaskId>,
}

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// Changes that are not known to be published.
    pub part: LogPart,
    /// Runs that have ended and whose submitters wait for the answer.
    pub replies: Vec<TaskId>,
}

/// The log; part of every run store, since one write has to make a change and log it.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// At most `limit` changes after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn log_after(&self, after: Position, limit: usize) -> Result<LogPart, StoreError>;

    /// Takes or keeps the turn to publish for [`TURN`], if no other replica has it, and returns what comes next:
    /// at most `limit` changes and as many replies. What is said to be published is forgotten, or was another's
    /// to say.
    ///
    /// # Errors
    /// [`StoreError`]; say the same again.
    async fn turn(
        &self,
        by: ReplicaId,
        published: &Published,
        limit: usize,
    ) -> Result<Option<Turn>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Position {
            ms: 1_700_000_000_000,
            seq: 3,
            number: 12,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "1-2-3 "] {
            assert_eq!(bad.parse::<Position>(), Err(()), "{bad}");
        }
    }
}
