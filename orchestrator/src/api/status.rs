//! `/health`, `/ready`, `/metrics`: about the orchestrator itself.

use super::Api;
use super::submit::json;
use crate::run::admission::SubmitError;
use crate::run::lane::Ready;
use crate::run::new_task_id;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// How long the store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    capabilities: [&'static str; 4],
}

/// That the process lives; open to everyone, in the plan's form.
pub async fn health() -> Response {
    json(
        StatusCode::OK,
        &Health {
            status: "healthy",
            service: "ai-agent-orchestrator",
            version: env!("CARGO_PKG_VERSION"),
            capabilities: [
                "task_analysis",
                "multi_agent_coordination",
                "intelligent_routing",
                "execution_monitoring",
            ],
        },
    )
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
    /// What is worth knowing, and does not stand in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// Whether a task that is submitted now would be run, and what is missing if not.
pub async fn ready(State(api): State<Arc<Api>>) -> Response {
    let context = api.executor.context();
    let mut reasons = Vec::new();
    if !*context.bus.connected().borrow() {
        reasons.push("bus: not connected".to_owned());
    }
    match &*context.ready.borrow() {
        Ready::Declared => {}
        Ready::Waiting(why) => reasons.push(format!("topology: {why}")),
        Ready::Mismatch(faults) => {
            reasons.extend(faults.iter().map(|f| format!("topology: {f}")));
        }
    }
    // A load that finds nothing is the lightest question that a store really answers.
    let probe = new_task_id();
    let load = context.store.load(&probe);
    match tokio::time::timeout(STORE_PATIENCE, load).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => reasons.push(format!("store: {error}")),
        Err(_) => reasons.push("store: no answer in time".to_owned()),
    }
    match api.executor.obstacle() {
        Some(SubmitError::Broker) if *context.bus.connected().borrow() => {
            reasons.push("bus: takes nothing at the moment".to_owned());
        }
        Some(SubmitError::NoLease) => reasons.push("store: the lease is not renewed".to_owned()),
        _ => {}
    }
    let emptied = api.executor.emptied();
    let notes =
        emptied.map(|at| format!("store: found emptied at {at}, tasks of before may be lost"));
    if !api.executor.has_taken_up() {
        reasons.push("unfinished tasks are not taken up yet".to_owned());
    }
    if api.stopping.is_cancelled() {
        reasons.push("stopping".to_owned());
    }
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let readiness = Readiness {
        ready,
        reasons,
        notes: notes.into_iter().collect(),
    };
    let mut response = json(status, &readiness);
    if !ready {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The registry in Prometheus' text form.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&api.registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
