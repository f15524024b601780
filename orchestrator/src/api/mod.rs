//! The HTTP API.
//!
//! ```text
//!  serve (sockets, time limits) ──▶ trace ──▶ caller (who is it?) ──▶ route ──▶ problem+json where it fails
//! ```

mod body;
mod caller;
mod elsewhere;
mod events;
mod failure;
mod internal;
mod key;
mod prefer;
mod resources;
pub mod serve;
mod status;
mod submit;
mod tasks;
mod trace;
mod view;

pub use caller::{Caller, is_local};
pub use prefer::Preferences;

use crate::config::{Config, InternalToken, Limits};
use crate::metrics::Metrics;
use crate::planner::Planning;
use crate::quota::Quota;
use crate::run::executor::Executor;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use failure::Failure;
use mesh_protocol::assertion::{AssertionError, PublicKey};
use mesh_trace::Tracer;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Clients that may follow tasks at the same time; each holds a connection.
pub const MAX_FOLLOWERS: usize = 256;

/// What the handlers share.
pub struct Api {
    pub(crate) executor: Arc<Executor>,
    pub(crate) planning: Planning,
    pub(crate) tracer: Tracer,
    pub(crate) limits: Limits,
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) audience: String,
    pub(crate) internal_token: Option<InternalToken>,
    pub(crate) quota: Arc<dyn Quota>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) followers: Arc<Semaphore>,
    /// Cancelled when the API stops: long answers come to their end.
    pub(crate) stopping: CancellationToken,
}

impl Api {
    /// The API over `executor`.
    ///
    /// # Errors
    /// An assertion key is none.
    pub fn new(
        config: &Config,
        executor: Arc<Executor>,
        planning: Planning,
        quota: Arc<dyn Quota>,
        registry: prometheus::Registry,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
    ) -> Result<Self, AssertionError> {
        let keys = config
            .assertions
            .keys
            .iter()
            .map(|k| PublicKey::from_base64(k.kid.clone(), &k.x))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tracer: executor.context().tracing.tracer().clone(),
            executor,
            planning,
            limits: config.limits.clone(),
            keys,
            audience: config.assertions.audience.clone(),
            internal_token: config.internal_token.clone(),
            quota,
            registry,
            metrics,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            stopping,
        })
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
        .route("/agents", get(status::agents))
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
