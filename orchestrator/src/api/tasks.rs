//! `GET /task/{id}`, `DELETE /task/{id}`, `GET /tasks`.

use super::failure::Failure;
use super::submit::json;
use super::{Api, Caller, view};
use crate::metrics::Metrics;
use crate::run::executor::Executor;
use crate::run::shown::RunHandle;
use crate::store::{Query, RunRecord, StoreError, Summary, TaskStatus};
use axum::Extension;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use http::request::Parts;
use http::{StatusCode, Uri};
use mesh_protocol::TaskId;
use mesh_protocol::problem::FieldError;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_LIMIT: usize = 50;
/// Most tasks of one answer.
const MAX_LIMIT: usize = 200;
/// How long a cancel waits for its effect; it stands in the store by then, or the store is away.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// A run, wherever it is.
pub enum Found {
    /// Goes on here.
    Live(Arc<RunHandle>),
    /// As it was stored.
    Stored(Box<RunRecord>),
}

impl Found {
    /// Looks at the record.
    pub fn read<T>(&self, look: impl FnOnce(&RunRecord) -> T) -> T {
        match self {
            Self::Live(handle) => handle.read(look),
            Self::Stored(run) => look(run),
        }
    }
}

/// The task that a path names; what is no id names none.
pub struct TaskPath(pub TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(id) = Path::<TaskId>::from_request_parts(parts, state)
            .await
            .map_err(|_| Failure::no_task())?;
        Ok(Self(id))
    }
}

/// The run of that id, if the caller may look at it.
///
/// # Errors
/// 404 also for what belongs to others: that it exists is theirs to know.
pub async fn find(executor: &Executor, caller: &Caller, id: &TaskId) -> Result<Found, Failure> {
    let live = executor.find(id).filter(|handle| !handle.has_left());
    let found = match live {
        Some(handle) => Found::Live(handle),
        None => match executor.context().store.load(id).await {
            Ok(Some(run)) => Found::Stored(Box::new(run)),
            Ok(None) => return Err(Failure::no_task()),
            Err(error) => return Err(store_failure(&executor.context().metrics, &error)),
        },
    };
    if found.read(|run| caller.may_read(run.owner.as_ref())) {
        Ok(found)
    } else {
        Err(Failure::no_task())
    }
}

/// What a client hears when the store was asked in vain.
pub fn store_failure(metrics: &Metrics, error: &StoreError) -> Failure {
    metrics.store_errors.inc();
    tracing::warn!(%error, "the store was asked in vain");
    match error {
        StoreError::Corrupt { .. } => Failure::corrupt(),
        StoreError::Unavailable { .. } | StoreError::Config { .. } => {
            Failure::unavailable("tasks cannot be looked up at the moment")
        }
    }
}

/// The task and its steps.
pub async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    TaskPath(id): TaskPath,
) -> Result<Response, Failure> {
    let found = find(&api.executor, &caller, &id).await?;
    Ok(found.read(|run| json(StatusCode::OK, &view::shown(run))))
}

/// Calls the task off; 409 when it has ended.
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    TaskPath(id): TaskPath,
) -> Result<Response, Failure> {
    let found = find(&api.executor, &caller, &id).await?;
    if !found.read(|run| caller.may_change(run.owner.as_ref())) {
        return Err(Failure::forbidden());
    }
    let status = found.read(|run| run.status);
    if status.is_ended() {
        return Err(Failure::ended(status.as_str()));
    }
    let handle = match found {
        Found::Live(handle) => handle,
        Found::Stored(_) if !api.executor.has_taken_up() => {
            return Err(Failure::unavailable("the task is not taken up yet"));
        }
        // Nobody runs it, or not here.
        Found::Stored(run) => {
            let kept = api.executor.call_off(&run).await;
            if !kept.unwrap_or(false) {
                return Err(Failure::unavailable("the cancel could not be kept yet"));
            }
            let found = find(&api.executor, &caller, &id).await?;
            return found.read(|run| match run.status {
                TaskStatus::Cancelled => Ok(json(StatusCode::OK, &view::shown(run))),
                other => Err(Failure::ended(other.as_str())),
            });
        }
    };
    let task_id = handle.read(|run| run.task_id.clone());
    api.executor.cancel(&task_id).await;
    let mut versions = handle.versions();
    let end = versions.wait_for(|_| handle.read(|run| run.status.is_ended()));
    if tokio::time::timeout(CANCEL_WAIT, end).await.is_err() {
        return Err(Failure::unavailable("the cancel could not be kept yet"));
    }
    match handle.read(|run| run.status) {
        TaskStatus::Cancelled => Ok(handle.read(|run| json(StatusCode::OK, &view::shown(run)))),
        // It ended by itself in the meantime.
        other => Err(Failure::ended(other.as_str())),
    }
}

#[derive(Serialize)]
struct Listed {
    tasks: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<TaskId>,
}

/// Tasks, newest first: `?status=…&limit=…&cursor=…`.
pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Failure> {
    let mut query = parameters(uri.query().unwrap_or_default()).map_err(Failure::fields)?;
    if !caller.reads_all() {
        query.owner = caller.owner();
    }
    let page = api
        .executor
        .context()
        .store
        .list(&query)
        .await
        .map_err(|e| store_failure(&api.metrics, &e))?;
    let listed = Listed {
        tasks: page.tasks,
        next_cursor: page.next,
    };
    Ok(json(StatusCode::OK, &listed))
}

fn parameters(query: &str) -> Result<Query, Vec<FieldError>> {
    let mut read = Query {
        owner: None,
        status: None,
        before: None,
        limit: DEFAULT_LIMIT,
    };
    let mut faults = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "status" => match TaskStatus::parse(&value) {
                Some(status) => read.status = Some(status),
                None => faults.push(FieldError::new(
                    "status",
                    "invalid",
                    format!(
                        "status must be one of {}",
                        TaskStatus::ALL.map(TaskStatus::as_str).join(", ")
                    ),
                )),
            },
            "limit" => match value.parse::<usize>() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => read.limit = limit,
                _ => faults.push(FieldError::new(
                    "limit",
                    "out_of_range",
                    format!("limit must be an integer from 1 to {MAX_LIMIT}"),
                )),
            },
            "cursor" => match value.parse() {
                Ok(id) => read.before = Some(id),
                Err(_) => faults.push(FieldError::new(
                    "cursor",
                    "invalid",
                    "cursor must be the next_cursor of an earlier answer",
                )),
            },
            _ => {}
        }
    }
    if faults.is_empty() {
        Ok(read)
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_their_faults() {
        let query = parameters("status=in_progress&limit=7&cursor=task_1&x=y").unwrap();
        assert_eq!(query.status, Some(TaskStatus::InProgress));
        assert_eq!(query.limit, 7);
        assert_eq!(query.before, Some("task_1".parse().unwrap()));
        let faults = parameters("status=odd&limit=0&cursor=a/b").unwrap_err();
        let fields: Vec<_> = faults.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["status", "limit", "cursor"]);
    }
}
