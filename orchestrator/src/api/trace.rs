//! The span of a request, and the place in its trace from which what it begins goes on.

use super::Api;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use mesh_protocol::names::POLLED;
use mesh_trace::{Context, Kind, method_name};
use std::sync::Arc;
use tracing::Instrument;

/// The place of a request's span.
#[derive(Clone)]
struct Place(Context);

/// Begins a request's span, and ends it with the head of the answer.
pub async fn span(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if !api.tracer.is_on() {
        return next.run(request).await;
    }
    let parent = Context::from_headers(request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let quiet = route.as_ref().is_none_or(|r| POLLED.contains(&r.as_str()));
    if parent.is_none() && quiet {
        return next.run(request).await;
    }
    let mut span = api
        .tracer
        .start(Kind::Server, method_name(request.method()), parent);
    span.http_request(request.method(), "http", request.uri().path());
    if let Some(route) = route {
        span.set("http.route", route.as_str());
    }
    if let Some(context) = span.context() {
        request.extensions_mut().insert(Place(context.clone()));
    }
    let response = next.run(request).instrument(span.log_span()).await;
    span.http_answer(response.status());
    response
}

/// Where a task that a request submits belongs: to the request's trace, or to a new one, so that its steps
/// are of one trace in any case.
pub fn of(request: &Parts) -> Context {
    let place = request.extensions.get::<Place>().map(|p| p.0.clone());
    place
        .or_else(|| Context::from_headers(&request.headers))
        .unwrap_or_else(Context::fresh)
}
