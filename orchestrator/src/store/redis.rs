//! Runs in Redis, in the plan's layout: one hash `task:{id}` with `plan`, `status` and one field
//! `step:<step>` for each step, plus what a restart needs.
//!
//! Beside the hashes stand the indices `tasks:unfinished`, `tasks:all` and one
//! `tasks:owner:…` for each owner: sorted sets of ids with equal scores, since ids begin with their
//! time and so sort by it; but for the unfinished, whose score is the replica that runs them. Every
//! transition is one script in one round trip: all of it happens, or nothing.

mod codec;
mod durability;
mod leases;
mod log;

pub use durability::{Durability, durability};

use super::{
    Change, Created, Earlier, Owner, Page, Query, ReplicaId, RunRecord, RunStore, StoreError,
    SubmissionKey, Updated, log::KEPT_CHANGES,
};
use crate::config::StoreUrl;
use crate::redis_link::{self, PATIENCE};
use crate::run::{events, new_task_id_prefix};
use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use codec::{Field, SUMMARY_FIELDS, json};
use mesh_protocol::task::MAX_TIMEOUT_S;
use mesh_protocol::{TaskId, Timestamp};
use redis::aio::ConnectionManager;
use redis::{
    Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Script, ScriptInvocation,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const UNFINISHED: &str = "tasks:unfinished";
const ALL: &str = "tasks:all";
/// How many ids one part of a list looks at when it filters; keeps an answer within milliseconds.
const MAX_SCAN: usize = 1000;
/// What Redis says of a key that holds another type.
const WRONG_TYPE: &str = "WRONGTYPE";
/// Hashes read in one round trip while listing.
const PART: usize = 256;

/// The store.
pub struct RedisStore {
    /// For connections that listen.
    client: Client,
    connection: ConnectionManager,
    retention_s: u64,
    kept_changes: usize,
    create: Script,
    update: Script,
    hold: Script,
    hand_over: Script,
    log: Script,
    turn: Script,
    release: Script,
}

impl RedisStore {
    /// A store on the server of `url`; its first command connects.
    ///
    /// # Errors
    /// [`StoreError::Config`] when the URL is none for this client.
    pub async fn connect(url: &StoreUrl, retention: Duration) -> Result<Self, StoreError> {
        let config = |e: RedisError| StoreError::Config {
            detail: e.to_string(),
        };
        let client = Client::open(url.expose()).map_err(config)?;
        let connection = redis_link::lazy(&client, PATIENCE, 2).map_err(config)?;
        Ok(Self {
            client,
            connection,
            // EXPIRE with 0 would delete at once what a client is about to ask for.
            retention_s: retention.as_secs().max(1),
            kept_changes: KEPT_CHANGES,
            create: Script::new(include_str!("redis/create.lua")),
            update: Script::new(include_str!("redis/update.lua")),
            hold: Script::new(include_str!("redis/hold.lua")),
            hand_over: Script::new(include_str!("redis/hand_over.lua")),
            log: Script::new(include_str!("redis/log.lua")),
            turn: Script::new(include_str!("redis/turn.lua")),
            release: Script::new(include_str!("redis/release.lua")),
        })
    }

    /// The same with a log of about so many changes.
    #[must_use]
    pub fn keeping(mut self, changes: usize) -> Self {
        self.kept_changes = changes;
        self
    }

    /// Asks a question.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        again(|| async {
            let mut connection = self.connection.clone();
            command.query_async::<T>(&mut connection).await
        })
        .await
    }

    /// Asks several in one round trip.
    async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        again(|| async {
            let mut connection = self.connection.clone();
            commands.query_async::<T>(&mut connection).await
        })
        .await
    }

    /// Runs a script.
    async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let reached = AtomicBool::new(false);
        again(|| async {
            let mut connection = self.connection.clone();
            let called = script.invoke_async::<T>(&mut connection).await;
            // An answer, be it a refusal, says that nothing happened; a refused connection as well.
            if called
                .as_ref()
                .is_err_and(|e| is_lost(e) && !e.is_connection_refusal())
            {
                reached.store(true, Ordering::Relaxed);
            }
            called
        })
        .await
        .map_err(|error| StoreError::Unavailable {
            detail: error.to_string(),
            reached: reached.load(Ordering::Relaxed),
        })
    }

    fn index(owner: Option<&Owner>) -> String {
        match owner {
            None => ALL.to_owned(),
            // The length keeps (a, b:c) apart from (a:b, c).
            Some(o) => format!("tasks:owner:{}:{}:{}", o.origin.len(), o.origin, o.sub),
        }
    }

    async fn ids(&self, query: &Query, count: usize) -> Result<Vec<TaskId>, StoreError> {
        let max = match &query.before {
            Some(id) => format!("({id}"),
            None => "+".to_owned(),
        };
        let mut command = redis::cmd("ZREVRANGEBYLEX");
        command
            .arg(Self::index(query.owner.as_ref()))
            .arg(max)
            .arg("-")
            .arg("LIMIT")
            .arg(0)
            .arg(count);
        let ids: Vec<String> = self.ask(&command).await.map_err(unavailable)?;
        Ok(ids.into_iter().filter_map(|id| id.parse().ok()).collect())
    }
}

#[async_trait]
impl RunStore for RedisStore {
    async fn create(&self, run: &RunRecord, by: ReplicaId) -> Result<Created, StoreError> {
        let life = if run.status.is_ended() {
            self.retention_s.to_string()
        } else {
            String::new()
        };
        let owner = run.owner.as_ref();
        let owner = owner.map(|o| Self::index(Some(o))).unwrap_or_default();
        let key = run.key.as_ref().map(key_of).unwrap_or_default();
        // A task that was never accepted gives up its key: the next attempt is the first.
        let body = match &run.key {
            Some(key) if !run.is_withdrawn() => key.body.as_str(),
            _ => "",
        };
        let mut script = self.create.prepare_invoke();
        script
            .key(run.task_id.redis_key())
            .key(UNFINISHED)
            .key(ALL)
            .key(owner)
            .key(key)
            .key(log::LOG)
            .key(log::COUNT)
            .key(log::REPLIES)
            .arg(run.task_id.as_str())
            .arg(life)
            .arg(self.retention_s + u64::from(MAX_TIMEOUT_S))
            .arg(forgotten(self.retention_s))
            .arg(by.to_string())
            .arg(run.fence)
            .arg(run.version)
            .arg(body)
            .arg(log::events_json(&events::of_new(run)))
            .arg(self.kept_changes)
            .arg(run.owner.as_ref().map(json).unwrap_or_default())
            .arg(u8::from(run.waits_for_reply()));
        for (name, value) in codec::fields(run) {
            script.arg(name).arg(value);
        }
        let (answer, earlier): (u8, String) = self.call(&script).await?;
        let earlier = |same_body| match earlier.parse() {
            Ok(run) => Ok(Created::Earlier(Earlier { run, same_body })),
            Err(_) => Err(StoreError::Corrupt {
                task_id: run.task_id.clone(),
                detail: "its submission key holds no task".to_owned(),
                owner: None,
            }),
        };
        match answer {
            0 => Ok(Created::Kept),
            1 => earlier(true),
            2 => earlier(false),
            _ => Ok(Created::Superseded),
        }
    }

    async fn update(
        &self,
        run: &TaskId,
        fence: u64,
        change: &Change,
    ) -> Result<Updated, StoreError> {
        let mut fields: Vec<Field> = vec![
            (
                "steps_completed".into(),
                change.completed.to_string().into(),
            ),
            ("version".into(), change.version.to_string().into()),
        ];
        for (_, step, record) in &change.steps {
            fields.push((step.redis_field(), json(record)));
        }
        let (mut life, mut at) = (String::new(), String::new());
        if let Some(end) = &change.end {
            life = self.retention_s.to_string();
            at = end.at.to_string();
            fields.push(("status".into(), end.status.as_str().into()));
            fields.push(("finished_at".into(), at.clone().into()));
            if let Some(error) = &end.error {
                fields.push(("error".into(), json(error)));
            }
        }
        let mut script = self.update.prepare_invoke();
        script
            .key(run.redis_key())
            .key(UNFINISHED)
            .key(ALL)
            .key(leases::HANDED)
            .key(log::LOG)
            .key(log::COUNT)
            .key(log::REPLIES)
            .arg(run.as_str())
            .arg(life)
            .arg(forgotten(self.retention_s))
            .arg(at)
            .arg(fence)
            .arg(change.version)
            .arg(change.handed.len())
            .arg(log::events_json(&change.events))
            .arg(self.kept_changes);
        for step in &change.handed {
            script.arg(step.as_str());
        }
        for (name, value) in fields {
            script.arg(name).arg(value);
        }
        match self.call::<u8>(&script).await? {
            0 => Ok(Updated::Written),
            1 => Ok(Updated::Gone),
            2 => Ok(Updated::EndedBefore),
            4 => Ok(Updated::Superseded),
            _ => Err(StoreError::Corrupt {
                task_id: run.clone(),
                detail: "its key holds something else".to_owned(),
                owner: None,
            }),
        }
    }

    async fn load(&self, run: &TaskId) -> Result<Option<RunRecord>, StoreError> {
        let corrupt = |detail: String, owner: Option<Owner>| StoreError::Corrupt {
            task_id: run.clone(),
            detail,
            owner,
        };
        let read = self.ask(&Cmd::hgetall(run.redis_key())).await;
        let fields: HashMap<String, Vec<u8>> = match read {
            Ok(fields) => fields,
            Err(error) if error.code() == Some(WRONG_TYPE) => {
                return Err(corrupt("its key holds something else".to_owned(), None));
            }
            Err(error) => return Err(unavailable(error)),
        };
        // What has neither is no run: the plan's clients note there that they dispatched something.
        if !fields.contains_key("plan") && !fields.contains_key("request") {
            return Ok(None);
        }
        codec::read(run, &fields)
            .map(Some)
            .map_err(|detail| corrupt(detail, codec::owner(&fields)))
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let count = if query.status.is_some() {
            MAX_SCAN
        } else {
            query.limit.saturating_add(1).min(MAX_SCAN)
        };
        let ids = self.ids(query, count).await?;
        let mut tasks = Vec::new();
        let mut last = None;
        // In parts, so that a filter that matches early does not read a thousand hashes.
        for part in ids.chunks(PART) {
            let mut pipeline = redis::pipe();
            // One run that cannot be read does not hide the others.
            pipeline.ignore_errors();
            for id in part {
                pipeline.hmget(id.redis_key(), &SUMMARY_FIELDS);
            }
            let rows: Vec<RedisResult<redis::Value>> =
                self.ask_all(&pipeline).await.map_err(unavailable)?;
            for (id, row) in part.iter().zip(rows) {
                if tasks.len() == query.limit {
                    return Ok(Page { tasks, next: last });
                }
                last = Some(id.clone());
                let row = row.and_then(|row| Ok(Vec::<Option<String>>::from_redis_value(row)?));
                // A hash may expire before its place in the index does.
                if let Some(summary) = row.ok().and_then(|row| codec::summary(id, &row))
                    && query.status.is_none_or(|status| summary.status == status)
                {
                    tasks.push(summary);
                }
            }
        }
        let next = if ids.len() == count { last } else { None };
        Ok(Page { tasks, next })
    }

    async fn submitted(&self, key: &SubmissionKey) -> Result<Option<Earlier>, StoreError> {
        let command = Cmd::hmget(key_of(key), &["task", "body"]);
        let (run, body): (Option<String>, Option<String>) =
            self.ask(&command).await.map_err(unavailable)?;
        let Some(run) = run.and_then(|id| id.parse::<TaskId>().ok()) else {
            return Ok(None);
        };
        // A store that lost the task and kept the key has nothing to answer with.
        let exists = Cmd::exists(run.redis_key());
        let there: bool = self.ask(&exists).await.map_err(unavailable)?;
        Ok(there.then(|| Earlier {
            same_body: body.as_deref() == Some(key.body.as_str()),
            run,
        }))
    }
}

/// Where a submission key is kept.
fn key_of(key: &SubmissionKey) -> String {
    format!("tasks:key:{}", key.name)
}

/// Runs `attempt` until it is no lost connection that fails it: the first command after one does.
async fn again<T, F: Future<Output = RedisResult<T>>>(
    attempt: impl FnMut() -> F,
) -> RedisResult<T> {
    attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(20))
                .with_max_times(2),
        )
        .when(is_lost)
        .await
}

/// Whether there was no answer.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// Something that was not answered. The client library writes the address, never the credentials, into
/// its errors.
fn unavailable(error: RedisError) -> StoreError {
    StoreError::Unavailable {
        detail: error.to_string(),
        reached: false,
    }
}

/// Upper end of the ids whose runs have expired for certain.
fn forgotten(retention_s: u64) -> String {
    let life_ms = (retention_s + u64::from(MAX_TIMEOUT_S)).saturating_mul(1000);
    let before = Timestamp::from_millis(Timestamp::now().millis().saturating_sub(life_ms));
    format!("({}", new_task_id_prefix(before))
}
