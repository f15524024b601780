//! `POST /orchestrate`, and `POST /`, since the gateway strips `/ai/orchestrate`.

use super::failure::Failure;
use super::tasks::{Found, find};
use super::{Api, Caller, Preferences, body, elsewhere, key, trace, view};
use crate::planner::NoPlan;
use crate::run::admission::SubmitError;
use crate::run::executor::Submitted;
use crate::run::new_task_id;
use crate::store::{Earlier, RunRecord, StoreError, SubmissionKey};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use mesh_protocol::Timestamp;
use mesh_protocol::task::{RequestError, TaskRequest};
use mesh_trace::Kind;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Takes a task, plans it, keeps it, begins it, and answers at once unless asked to wait.
pub async fn submit(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let (arrived, deadline_from) = (Timestamp::now(), api.executor.clock().now());
    let (parts, request_body) = request.into_parts();
    let bytes = body::read(&parts.headers, request_body, api.limits.max_body_bytes).await?;
    let task = TaskRequest::from_json(&bytes).map_err(|e| match e {
        RequestError::NotJson(detail) => Failure::not_json(detail),
        RequestError::Fields(faults) => Failure::fields(faults),
    })?;
    let longest = Duration::from_secs(api.limits.max_wait_s.into());
    let preferences = Preferences::from_headers(&parts.headers, longest);
    let owner = caller.owner();
    let key = key::from_headers(&parts.headers)?
        .map(|key| SubmissionKey::new(owner.as_ref(), key, &task));
    // Before planning: a plan may cost a model's time. Before the question whether a new task could begin
    // now: this one may have begun.
    if let Some(key) = &key {
        let earlier = api.executor.context().store.submitted(key).await;
        if let Some(earlier) = earlier.map_err(|e| refusal(e.into()))? {
            return replay(&api, &caller, earlier, preferences).await;
        }
    }
    let slot = api.executor.admit(bytes.len()).await.map_err(refusal)?;
    let (id, place) = (new_task_id(), trace::of(&parts));
    let mut span = api
        .tracer
        .start(Kind::Internal, "plan task", Some(place.clone()));
    span.set("mesh.task.id", id.as_str());
    let planned = api.planning.plan(&task, &mut span).await;
    drop(span);
    let planned = planned.map_err(|e| match e {
        NoPlan::UnknownTaskType { known } => Failure::unknown_task_type(&task.task_type, &known),
        NoPlan::Rejected(findings) => Failure::no_plan(
            findings
                .iter()
                .map(|f| format!("{}: {}", f.code.as_str(), f.detail))
                .collect::<Vec<_>>()
                .join("; "),
        ),
    })?;
    let mut run = RunRecord::new(id, task, planned.plan, (&place).into(), arrived);
    run.deadline = deadline_from.plus(run.deadline.since(run.created_at));
    run.owner = owner;
    run.key = key;
    if let Caller::Asserted { assertion, .. } = &caller {
        run.assertion = Some(assertion.clone());
    }
    match api.executor.submit(run, slot).await.map_err(refusal)? {
        Submitted::Begun(handle) => Ok(answer(&api, Found::Live(handle), preferences).await),
        Submitted::Earlier(earlier) => replay(&api, &caller, earlier, preferences).await,
    }
}

/// Answers with the task that was submitted under the same key, as if it were the first time.
async fn replay(
    api: &Api,
    caller: &Caller,
    earlier: Earlier,
    preferences: Preferences,
) -> Result<Response, Failure> {
    if !earlier.same_body {
        return Err(Failure::key_reused());
    }
    // It is about to end, for its client heard that it is not accepted.
    if api.executor.is_withdrawing(&earlier.run) {
        return Err(Failure::unavailable(
            "the task cannot be kept at the moment",
        ));
    }
    let found = find(api, caller, &earlier.run).await?;
    let mut response = answer(api, found, preferences).await;
    response
        .headers_mut()
        .insert(key::REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

async fn answer(api: &Api, mut run: Found, preferences: Preferences) -> Response {
    let mut ended = false;
    if let Some(wait) = preferences.wait {
        let until = Instant::now() + wait;
        run = elsewhere::ended(api, run, until).await;
        ended = run.read(|run| run.status.is_ended());
    }
    let deferred = preferences.respond_async && !ended;
    let status = if deferred {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let (mut response, id) = run.read(|run| {
        let view = view::submitted(run, preferences.wait.is_some());
        (json(status, &view), run.task_id.clone())
    });
    let headers = response.headers_mut();
    if deferred && let Ok(location) = HeaderValue::try_from(format!("/task/{id}")) {
        headers.insert(LOCATION, location);
        headers.insert(
            "preference-applied",
            HeaderValue::from_static("respond-async"),
        );
    }
    if let Some(wait) = preferences.wait
        && let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs()))
    {
        headers.append("preference-applied", applied);
    }
    response
}

/// Why a task was not begun, as an answer.
pub fn refusal(error: SubmitError) -> Failure {
    match error {
        SubmitError::Busy => Failure::unavailable("as many tasks as allowed are in flight"),
        SubmitError::Broker => Failure::unavailable("steps cannot be handed out at the moment"),
        SubmitError::NoLease => Failure::unavailable("the task cannot be kept at the moment"),
        SubmitError::Store(StoreError::Unavailable { detail, .. }) => {
            tracing::warn!(detail, "a task was refused, since it cannot be kept");
            Failure::unavailable("the task cannot be kept at the moment")
        }
        SubmitError::Store(error) => {
            tracing::error!(%error, "a task was refused, since it cannot be kept");
            Failure::unavailable("the task cannot be kept at the moment")
        }
        SubmitError::Plan(detail) => Failure::no_plan(detail),
    }
}

/// An answer in JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
