//! The log in Redis: one capped stream, to which the scripts of runs add.
//!
//! ```text
//!  orchestrators:events            stream: number, owner, events of one change; the server trims it
//!  orchestrators:events:count      changes that were ever logged: the number of the last
//!  orchestrators:events:turn       the replica that publishes; has a life
//!  orchestrators:events:published  up to where
//!  tasks:replies                   sorted set: ended runs whose submitters wait, by how often they were tried
//! ```

use super::leases::EPOCH;
use super::{RedisStore, unavailable};
use crate::store::log::{EventLog, LogPart, Logged, Position, Published, TURN, Turn};
use crate::store::{Owner, ReplicaId, StoreError};
use async_trait::async_trait;
use mesh_protocol::event::Event;
use redis::{FromRedisValue, RedisError, RedisResult, Value};
use std::sync::Arc;

pub(super) const LOG: &str = "orchestrators:events";
pub(super) const COUNT: &str = "orchestrators:events:count";
pub(super) const REPLIES: &str = "tasks:replies";
const MARK: &str = "orchestrators:events:published";
pub(super) const HOLDER: &str = "orchestrators:events:turn";

/// JSON of what happened, for the scripts; empty when nothing did.
pub(super) fn events_json(events: &[Arc<Event>]) -> Vec<u8> {
    if events.is_empty() {
        return Vec::new();
    }
    let events: Vec<&Event> = events.iter().map(AsRef::as_ref).collect();
    super::json(&events)
}

/// Epoch, count, id of the last entry, entries.
type Row = (String, u64, String, Vec<Value>);

#[async_trait]
impl EventLog for RedisStore {
    async fn log_after(&self, after: Position, limit: usize) -> Result<LogPart, StoreError> {
        let mut script = self.log.prepare_invoke();
        script
            .key(LOG)
            .key(COUNT)
            .key(EPOCH)
            .arg(id_of(after))
            .arg(limit);
        part(after, self.call::<Row>(&script).await?)
    }

    async fn turn(
        &self,
        by: ReplicaId,
        published: &Published,
        limit: usize,
    ) -> Result<Option<Turn>, StoreError> {
        let up_to = published.up_to.map(|at| at.to_string());
        let mut script = self.turn.prepare_invoke();
        script
            .key(LOG)
            .key(COUNT)
            .key(EPOCH)
            .key(HOLDER)
            .key(MARK)
            .key(REPLIES)
            .arg(by.to_string())
            .arg(u64::try_from(TURN.as_millis()).unwrap_or(u64::MAX))
            .arg(up_to.unwrap_or_default())
            .arg(limit)
            .arg(published.answered.len());
        for run in published.answered.iter().chain(&published.unanswered) {
            script.arg(run.as_str());
        }
        type Answer = (u8, String, u64, String, Vec<Value>, String, Vec<String>);
        let (mine, epoch, count, end, rows, mark, replies) = self.call::<Answer>(&script).await?;
        if mine == 0 {
            return Ok(None);
        }
        // Written by a turn before, or never.
        let after = mark.parse().unwrap_or_default();
        Ok(Some(Turn {
            part: part(after, (epoch, count, end, rows))?,
            replies: replies.iter().filter_map(|id| id.parse().ok()).collect(),
        }))
    }
}

fn id_of(position: Position) -> String {
    format!("{}-{}", position.ms, position.seq)
}

fn part(after: Position, row: Row) -> Result<LogPart, StoreError> {
    let (epoch, count, end, rows) = row;
    let changes = rows
        .into_iter()
        .map(logged)
        .collect::<RedisResult<Vec<_>>>()
        .map_err(unavailable)?;
    Ok(LogPart {
        epoch,
        missed: LogPart::missed(after, &changes),
        changes,
        end: at(&end, count).unwrap_or_default(),
    })
}

/// A place from the id of an entry and its number.
fn at(id: &str, number: u64) -> Option<Position> {
    let (ms, seq) = id.split_once('-')?;
    Some(Position {
        ms: ms.parse().ok()?,
        seq: seq.parse().ok()?,
        number,
    })
}

/// An entry. What this version did not write tells of nothing, but takes its place.
fn logged(row: Value) -> RedisResult<Logged> {
    let (id, fields): (String, Vec<Vec<u8>>) = FromRedisValue::from_redis_value(row)?;
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find_map(|pair| (pair.first()? == name.as_bytes()).then(|| pair.get(1))?)
    };
    let number = field("n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
    let owner: Option<Owner> = field("owner").and_then(|o| serde_json::from_slice(o).ok());
    let events: Vec<Arc<Event>> = field("events")
        .and_then(|events| serde_json::from_slice::<Vec<Event>>(events).ok())
        .map(|events| events.into_iter().map(Arc::new).collect())
        .unwrap_or_default();
    let position = at(&id, number.unwrap_or_default());
    Ok(Logged {
        position: position.ok_or_else(|| {
            RedisError::from((
                redis::ErrorKind::UnexpectedReturnType,
                "an entry of the log has an id that is none",
            ))
        })?,
        owner,
        events,
    })
}
