//! Runs in Redis, in the plan's layout: one hash `task:{id}` with `plan`, `status` and one field
//! `step:<step>` for each step, plus what a restart needs.
//!
//! Beside the hashes stand the indices `tasks:unfinished`, `tasks:all` and one
//! `tasks:owner:…` for each owner: sorted sets of ids with equal scores, since ids begin with their
//! time and so sort by it. Every transition is one `MULTI … EXEC` in one round trip.

use super::{
    Change, Owner, Page, Query, RunRecord, RunStore, StepRecord, StoreError, Summary, TaskStatus,
    progress,
};
use crate::config::StoreUrl;
use crate::run::new_task_id_prefix;
use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use mesh_protocol::plan::Plan;
use mesh_protocol::task::MAX_TIMEOUT_S;
use mesh_protocol::{TaskId, Timestamp};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;

const UNFINISHED: &str = "tasks:unfinished";
const ALL: &str = "tasks:all";
/// How many ids one part of a list looks at when it filters; keeps an answer within milliseconds.
const MAX_SCAN: usize = 1000;
const SUMMARY_FIELDS: [&str; 6] = [
    "task_type",
    "status",
    "created_at",
    "finished_at",
    "steps_completed",
    "steps_total",
];
/// Hashes read in one round trip while listing.
const PART: usize = 256;

/// The store.
pub struct RedisStore {
    connection: ConnectionManager,
    retention_s: u64,
}

impl RedisStore {
    /// A store on the server of `url`; its first command connects.
    ///
    /// # Errors
    /// [`StoreError::Config`] when the URL is none for this client.
    pub async fn connect(url: &StoreUrl, retention: Duration) -> Result<Self, StoreError> {
        let config = |e: RedisError| StoreError::Config {
            detail: without_url(&e),
        };
        let client = Client::open(url.expose()).map_err(config)?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_secs(1));
        let connection =
            ConnectionManager::new_lazy_with_config(client, settings).map_err(config)?;
        Ok(Self {
            connection,
            // EXPIRE with 0 would delete at once what a client is about to ask for.
            retention_s: retention.as_secs().max(1),
        })
    }

    /// Runs `pipeline`; the first command after a lost connection fails, so it is tried again.
    async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let attempt = || async {
            let mut connection = self.connection.clone();
            pipeline.query_async::<T>(&mut connection).await
        };
        attempt
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(20))
                    .with_max_times(2),
            )
            .when(|e: &RedisError| e.is_io_error() || e.is_connection_dropped() || e.is_timeout())
            .await
            .map_err(|e| StoreError::Unavailable {
                detail: without_url(&e),
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
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("ZREVRANGEBYLEX")
            .arg(Self::index(query.owner.as_ref()))
            .arg(max)
            .arg("-")
            .arg("LIMIT")
            .arg(0)
            .arg(count);
        let (ids,): (Vec<String>,) = self.run(&pipeline).await?;
        Ok(ids.into_iter().filter_map(|id| id.parse().ok()).collect())
    }
}

#[async_trait]
impl RunStore for RedisStore {
    async fn create(&self, run: &RunRecord) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        let mut fields: Vec<(String, Vec<u8>)> = vec![
            ("plan".into(), json(&run.plan)),
            ("status".into(), run.status.as_str().into()),
            ("request".into(), json(&run.request)),
            // Apart from the request, since lists show it and requests can be large.
            ("task_type".into(), run.request.task_type.clone().into()),
            ("trace".into(), json(&run.trace)),
            ("created_at".into(), run.created_at.to_string().into()),
            ("deadline".into(), run.deadline.to_string().into()),
            ("steps_total".into(), run.steps.len().to_string().into()),
            ("steps_completed".into(), run.completed().to_string().into()),
        ];
        if let Some(owner) = &run.owner {
            fields.push(("owner".into(), json(owner)));
        }
        if let Some(assertion) = &run.assertion {
            fields.push(("assertion".into(), assertion.clone().into()));
        }
        for (step, record) in run.plan.execution_plan.iter().zip(&run.steps) {
            fields.push((step.id.redis_field(), json(record)));
        }
        let id = run.task_id.as_str();
        pipeline
            .hset_multiple(run.task_id.redis_key(), &fields)
            .ignore()
            .zadd(UNFINISHED, id, 0)
            .ignore()
            .zadd(ALL, id, 0)
            .ignore();
        if let Some(owner) = &run.owner {
            let index = Self::index(Some(owner));
            let life = self.retention_s + u64::from(MAX_TIMEOUT_S);
            pipeline
                .zadd(&index, id, 0)
                .ignore()
                .cmd("ZREMRANGEBYLEX")
                .arg(&index)
                .arg("-")
                .arg(forgotten(self.retention_s))
                .ignore()
                .expire(&index, seconds(life))
                .ignore();
        }
        self.run::<()>(&pipeline).await
    }

    async fn update(&self, run: &TaskId, change: &Change) -> Result<(), StoreError> {
        let key = run.redis_key();
        let mut fields: Vec<(String, Vec<u8>)> = vec![(
            "steps_completed".into(),
            change.completed.to_string().into(),
        )];
        for (_, step, record) in &change.steps {
            fields.push((step.redis_field(), json(record)));
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        if let Some(end) = &change.end {
            fields.push(("status".into(), end.status.as_str().into()));
            fields.push(("finished_at".into(), end.at.to_string().into()));
            if let Some(error) = &end.error {
                fields.push(("error".into(), json(error)));
            }
            pipeline
                .zrem(UNFINISHED, run.as_str())
                .ignore()
                .cmd("ZREMRANGEBYLEX")
                .arg(ALL)
                .arg("-")
                .arg(forgotten(self.retention_s))
                .ignore();
        }
        pipeline.hset_multiple(&key, &fields).ignore();
        if change.end.is_some() {
            pipeline.expire(&key, seconds(self.retention_s)).ignore();
        }
        self.run::<()>(&pipeline).await
    }

    async fn load(&self, run: &TaskId) -> Result<Option<RunRecord>, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.hgetall(run.redis_key());
        let (fields,): (HashMap<String, Vec<u8>>,) = self.run(&pipeline).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        read(run, &fields)
            .map(Some)
            .map_err(|detail| StoreError::Corrupt {
                task_id: run.clone(),
                detail,
            })
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
            for id in part {
                pipeline.hmget(id.redis_key(), &SUMMARY_FIELDS);
            }
            let rows: Vec<Vec<Option<String>>> = self.run(&pipeline).await?;
            for (id, row) in part.iter().zip(rows) {
                if tasks.len() == query.limit {
                    return Ok(Page { tasks, next: last });
                }
                last = Some(id.clone());
                // A hash may expire before its place in the index does.
                if let Some(summary) = summary(id, &row)
                    && query.status.is_none_or(|status| summary.status == status)
                {
                    tasks.push(summary);
                }
            }
        }
        let next = if ids.len() == count { last } else { None };
        Ok(Page { tasks, next })
    }

    async fn unfinished(&self) -> Result<Vec<TaskId>, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.zrange(UNFINISHED, 0, -1);
        let (ids,): (Vec<String>,) = self.run(&pipeline).await?;
        Ok(ids.into_iter().filter_map(|id| id.parse().ok()).collect())
    }
}

/// Upper end of the ids whose runs have expired for certain.
fn forgotten(retention_s: u64) -> String {
    let life_ms = (retention_s + u64::from(MAX_TIMEOUT_S)).saturating_mul(1000);
    let before = Timestamp::from_millis(Timestamp::now().millis().saturating_sub(life_ms));
    format!("({}", new_task_id_prefix(before))
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Records of texts, numbers and JSON values always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The client library writes the address, never the credentials, into its errors; the kind and the
/// detail are enough.
fn without_url(error: &RedisError) -> String {
    error.to_string()
}

fn read(id: &TaskId, fields: &HashMap<String, Vec<u8>>) -> Result<RunRecord, String> {
    let plan: Plan = parse(fields, "plan")?;
    let steps = plan
        .execution_plan
        .iter()
        .map(|step| parse::<StepRecord>(fields, &step.id.redis_field()))
        .collect::<Result<_, _>>()?;
    let status = text(fields, "status")?;
    Ok(RunRecord {
        task_id: id.clone(),
        request: parse(fields, "request")?,
        owner: optional(fields, "owner")?,
        assertion: match fields.get("assertion") {
            Some(_) => Some(text(fields, "assertion")?),
            None => None,
        },
        trace: parse(fields, "trace")?,
        created_at: time(fields, "created_at")?,
        deadline: time(fields, "deadline")?,
        status: TaskStatus::parse(&status).ok_or_else(|| format!("status is {status}"))?,
        finished_at: match fields.get("finished_at") {
            Some(_) => Some(time(fields, "finished_at")?),
            None => None,
        },
        error: optional(fields, "error")?,
        steps,
        plan,
    })
}

fn summary(id: &TaskId, row: &[Option<String>]) -> Option<Summary> {
    let field = |name: &str| {
        let place = SUMMARY_FIELDS.iter().position(|f| *f == name)?;
        row.get(place)?.as_deref()
    };
    Some(Summary {
        task_id: id.clone(),
        task_type: field("task_type")?.to_owned(),
        status: TaskStatus::parse(field("status")?)?,
        progress: progress(
            field("steps_completed")?.parse().ok()?,
            field("steps_total")?.parse().ok()?,
        ),
        created_at: field("created_at")?.parse().ok()?,
        finished_at: field("finished_at").and_then(|t| t.parse().ok()),
    })
}

fn parse<T: DeserializeOwned>(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<T, String> {
    let bytes = fields
        .get(name)
        .ok_or_else(|| format!("field {name} is missing"))?;
    serde_json::from_slice(bytes).map_err(|e| format!("field {name}: {e}"))
}

fn optional<T: DeserializeOwned>(
    fields: &HashMap<String, Vec<u8>>,
    name: &str,
) -> Result<Option<T>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(_) => parse(fields, name).map(Some),
    }
}

fn text(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<String, String> {
    let bytes = fields
        .get(name)
        .ok_or_else(|| format!("field {name} is missing"))?;
    String::from_utf8(bytes.clone()).map_err(|_| format!("field {name} is not UTF-8"))
}

fn time(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<Timestamp, String> {
    text(fields, name)?
        .parse()
        .map_err(|e| format!("field {name}: {e}"))
}
