//! `POST /orchestrate`, and `POST /`, since the gateway strips `/ai/orchestrate`.

use super::failure::Failure;
use super::{Api, Caller, Preferences, body, trace, view};
use crate::planner::NoPlan;
use crate::run::executor::SubmitError;
use crate::run::new_task_id;
use crate::run::shown::RunHandle;
use crate::store::{RunRecord, StoreError};
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

/// Takes a task, plans it, keeps it, begins it, and answers at once unless asked to wait.
pub async fn submit(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let arrived = Timestamp::now();
    let (parts, request_body) = request.into_parts();
    let bytes = body::read(&parts.headers, request_body, api.limits.max_body_bytes).await?;
    let task = TaskRequest::from_json(&bytes).map_err(|e| match e {
        RequestError::NotJson(detail) => Failure::not_json(detail),
        RequestError::Fields(faults) => Failure::fields(faults),
    })?;
    let longest = Duration::from_secs(api.limits.max_wait_s.into());
    let preferences = Preferences::from_headers(&parts.headers, longest);
    // Before planning: a plan may cost a model's time.
    let slot = api.executor.reserve(bytes.len()).map_err(refusal)?;
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
    run.owner = caller.owner();
    if let Caller::Asserted { assertion, .. } = caller {
        run.assertion = Some(assertion);
    }
    let handle = api.executor.submit(run, slot).await.map_err(refusal)?;
    Ok(answer(&api, &handle, preferences).await)
}

async fn answer(api: &Api, handle: &RunHandle, preferences: Preferences) -> Response {
    let mut ended = false;
    if let Some(wait) = preferences.wait {
        let mut versions = handle.versions();
        let end = versions.wait_for(|_| handle.read(|run| run.status.is_ended()));
        tokio::select! {
            _ = end => {}
            () = tokio::time::sleep(wait) => {}
            () = api.stopping.cancelled() => {}
        }
        ended = handle.read(|run| run.status.is_ended());
    }
    let deferred = preferences.respond_async && !ended;
    let status = if deferred {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let (mut response, id) = handle.read(|run| {
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

fn refusal(error: SubmitError) -> Failure {
    match error {
        SubmitError::Busy => Failure::unavailable("as many tasks as allowed are in flight"),
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
