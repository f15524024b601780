//! The log in this process: a ring.

use super::{Inner, MemoryStore};
use crate::store::log::{EventLog, LogPart, Logged, Position, Published, TURN, Turn};
use crate::store::{Owner, ReplicaId, StoreError};
use async_trait::async_trait;
use mesh_protocol::event::Event;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// The log, and who publishes it.
#[derive(Default)]
pub(super) struct Log {
    changes: VecDeque<Logged>,
    end: Position,
    turn: Option<(ReplicaId, Instant)>,
    published: Position,
    /// Ended runs whose submitters wait, those that were tried least first.
    replies: BTreeSet<(u32, TaskId)>,
}

impl Log {
    /// Logs what happened to a run of `owner`, and forgets the oldest beyond `keep`.
    pub(super) fn add(&mut self, owner: Option<Owner>, events: Vec<Arc<Event>>, keep: usize) {
        if events.is_empty() {
            return;
        }
        let now = Timestamp::now().millis();
        let end = &mut self.end;
        (end.ms, end.seq) = if now > end.ms {
            (now, 0)
        } else {
            (end.ms, end.seq + 1)
        };
        end.number += 1;
        let position = *end;
        self.changes.push_back(Logged {
            position,
            owner,
            events,
        });
        while self.changes.len() > keep {
            self.changes.pop_front();
        }
    }

    pub(super) fn wants_reply(&mut self, run: TaskId) {
        self.replies.insert((0, run));
    }

    fn after(&self, after: Position, limit: usize) -> LogPart {
        let from = self.changes.partition_point(|c| c.position <= after);
        let changes: Vec<_> = self.changes.range(from..).take(limit).cloned().collect();
        LogPart {
            // It lives as long as the process.
            epoch: "memory".to_owned(),
            missed: LogPart::missed(after, &changes),
            changes,
            end: self.end,
        }
    }

    pub(super) fn give_up_turn(&mut self, by: ReplicaId) {
        self.turn = self.turn.filter(|(who, _)| *who != by);
    }

    fn reply_of(&self, run: &TaskId) -> Option<(u32, TaskId)> {
        self.replies.iter().find(|(_, id)| id == run).cloned()
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    async fn log_after(&self, after: Position, limit: usize) -> Result<LogPart, StoreError> {
        Ok(self.lock().log.after(after, limit))
    }

    async fn turn(
        &self,
        by: ReplicaId,
        published: &Published,
        limit: usize,
    ) -> Result<Option<Turn>, StoreError> {
        let mut inner = self.lock();
        let Inner { log, .. } = &mut *inner;
        let now = Instant::now();
        if log
            .turn
            .is_some_and(|(who, until)| who != by && now < until)
        {
            return Ok(None);
        }
        log.turn = Some((by, now + TURN));
        log.published = published.up_to.unwrap_or(log.published).max(log.published);
        for run in &published.answered {
            if let Some(reply) = log.reply_of(run) {
                log.replies.remove(&reply);
            }
        }
        for run in &published.unanswered {
            if let Some((tries, run)) = log.reply_of(run)
                && log.replies.remove(&(tries, run.clone()))
            {
                log.replies.insert((tries.saturating_add(1), run));
            }
        }
        let replies = log.replies.iter().take(limit);
        Ok(Some(Turn {
            replies: replies.map(|(_, run)| run.clone()).collect(),
            part: log.after(log.published, limit),
        }))
    }
}
