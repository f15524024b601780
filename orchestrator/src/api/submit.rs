//! `POST /orchestrate`, and `POST /`, since the gateway strips `/ai/orchestrate`.

use super::failure::Failure;
use super::tasks::Found;
use super::{Api, Caller, Preferences, body, elsewhere, key, trace, view};
use crate::store::SubmissionKey;
use crate::submission::{Asked, wrong};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use mesh_protocol::task::TaskRequest;
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
    let arrival = api.submissions.arrival();
    let (parts, request_body) = request.into_parts();
    let limit = api.submissions.max_body_bytes;
    let bytes = body::read(&parts.headers, request_body, limit).await?;
    let task = TaskRequest::from_json(&bytes).map_err(wrong)?;
    let longest = Duration::from_secs(api.limits.max_wait_s.into());
    let preferences = Preferences::from_headers(&parts.headers, longest);
    let owner = caller.owner();
    let key = key::from_headers(&parts.headers)?
        .map(|key| SubmissionKey::new(owner.as_ref(), key, &task));
    let asked = Asked {
        task,
        bytes: bytes.len(),
        arrival,
        caller,
        key,
        place: trace::of(&parts),
        agent: None,
        reply: None,
        client_task_id: None,
    };
    let taken = api.submissions.submit(asked).await?;
    let mut response = answer(&api, taken.run, preferences).await;
    if taken.repeated {
        // As if it were the first time, but said.
        response
            .headers_mut()
            .insert(key::REPLAYED, HeaderValue::from_static("true"));
    }
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

/// An answer in JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
