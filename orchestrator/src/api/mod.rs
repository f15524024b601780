//! The HTTP API.
//!
//! ```text
//!  serve (sockets, time limits) ──▶ trace ──▶ caller (who is it?) ──▶ route ──▶ problem+json where it fails
//! ```

mod agents;
mod body;
mod caller;
mod coordinate;
mod elsewhere;
mod events;
mod failure;
mod feed;
mod internal;
mod key;
mod models;
mod place;
mod prefer;
mod resources;
pub mod serve;
mod status;
mod submit;
mod tail;
mod tasks;
mod trace;
pub(crate) mod view;
mod ws;

pub use caller::{Caller, HEADER_PEER, is_local};
pub use failure::Failure;
pub use models::PATH as MODELS;
pub use prefer::Preferences;
pub use tasks::{Found, find};

use crate::config::{Config, InternalToken, Limits};
use crate::coordination::socket::Sockets;
use crate::metrics::Metrics;
use crate::ollama::Models;
use crate::planner::Planning;
use crate::quota::Quota;
use crate::run::executor::Executor;
use crate::submission::Submissions;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use mesh_trace::Tracer;
use std::sync::Arc;
use tail::Tail;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Clients that may follow tasks at the same time; each holds a connection.
pub const MAX_FOLLOWERS: usize = 256;

/// What the handlers share.
pub struct Api {
    pub(crate) executor: Arc<Executor>,
    pub(crate) models: Option<Arc<Models>>,
    pub(crate) planning: Arc<Planning>,
    pub(crate) submissions: Arc<Submissions>,
    pub(crate) tracer: Tracer,
    pub(crate) limits: Limits,
    pub(crate) internal_token: Option<InternalToken>,
    pub(crate) quota: Arc<dyn Quota>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) sockets: Arc<Sockets>,
    /// Whether the sidecar beside this orchestrator says who calls by its certificate.
    pub(crate) peers_by_certificate: bool,
    /// Cancelled when the API stops: long answers come to their end.
    pub(crate) stopping: CancellationToken,
}

/// What the API stands on beside runs.
pub struct Parts {
    /// Takes tasks.
    pub submissions: Arc<Submissions>,
    /// Keeps what gateways share.
    pub quota: Arc<dyn Quota>,
    /// Share a model server, where there is one.
    pub models: Option<Arc<Models>>,
    /// Connects agents.
    pub sockets: Arc<Sockets>,
    /// What `/metrics` shows.
    pub registry: prometheus::Registry,
}

impl Api {
    /// The API over `executor`.
    pub fn new(
        config: &Config,
        executor: Arc<Executor>,
        parts: Parts,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            tail: Tail::new(Arc::clone(&executor), stopping.clone()),
            tracer: executor.context().tracing.tracer().clone(),
            metrics: Arc::clone(&executor.context().metrics),
            executor,
            planning: Arc::clone(parts.submissions.planning()),
            submissions: parts.submissions,
            models: parts.models,
            limits: config.limits.clone(),
            internal_token: config.internal_token.clone(),
            quota: parts.quota,
            registry: parts.registry,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            sockets: parts.sockets,
            peers_by_certificate: config.peers_by_certificate,
            stopping,
        }
    }
}

/// The routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", post(submit::submit))
        .route("/orchestrate", post(submit::submit))
        .route("/task/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/task/{id}/events", get(events::follow))
        .route("/tasks", get(tasks::list))
        .route("/events", get(feed::follow))
        .route("/agents", get(agents::list))
        .route("/register", post(agents::register))
        .route("/coordinate", post(coordinate::coordinate))
        // The gateway strips no prefix here: `/` would be a task for the planner.
        .route("/ai/coordinate", post(coordinate::coordinate))
        .route("/ws/{agent}", get(ws::connect))
        .route("/models", get(models::show))
        .route("/resources", get(resources::show))
        .route("/resources/leases", post(resources::take))
        .route(
            "/resources/leases/{id}",
            put(resources::renew).delete(resources::give_back),
        )
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .fallback(async || Failure::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Failure::method())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api),
            caller::identify,
        ))
        .merge(internal(&api))
        .merge(models::router(&api))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), count))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api),
            trace::span,
        ))
        .with_state(api)
}

/// What filters ask: theirs is another way to show who they are.
fn internal(api: &Arc<Api>) -> Router<Arc<Api>> {
    Router::new()
        .route(mesh_protocol::quota::PATH, post(internal::quota))
        .route(mesh_protocol::load::PATH, get(internal::load))
        .method_not_allowed_fallback(async || Failure::method())
        .layer(middleware::from_fn_with_state(
            Arc::clone(api),
            internal::admit,
        ))
}

async fn count(
    axum::extract::State(api): axum::extract::State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    api.metrics.answer(response.status());
    response
}
