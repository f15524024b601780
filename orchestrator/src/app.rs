//! The orchestrator as a library: bind, say where, run until told to stop, drain.
//!
//! ```text
//!  stop ─▶ API takes no more, answers end ─▶ lane and runs leave ─▶ events
//! ```
//!
//! Runs do not end with the process: they stay in the store as they are, and another replica or the next
//! process takes them up. The bus and the store belong to the caller.

use crate::api::{self, Api};
use crate::config::Config;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::planner::Planning;
use crate::quota::Quota;
use crate::resources::{Arbiter, Desk, Times};
use crate::run::events::{self, Events};
use crate::run::executor::{Context, Executor};
use crate::run::lane::{self, Parts, Ready};
use crate::run::trace::Tracing;
use crate::store::RunStore;
use mesh_bus::Bus;
use mesh_trace::Tracer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time for runs to store what they are storing when the process leaves.
const LEAVE: Duration = Duration::from_secs(10);

/// What the orchestrator does not make for itself.
pub struct Deps {
    /// Carries steps and results.
    pub bus: Arc<dyn Bus>,
    /// Keeps runs.
    pub store: Arc<dyn RunStore>,
    /// Keeps what gateways share.
    pub quota: Arc<dyn Quota>,
    /// Keeps what steps share; asked only where the configuration declares resources.
    pub arbiter: Arc<dyn Arbiter>,
    /// Begins spans.
    pub tracer: Tracer,
    /// Takes the metrics, and is what `/metrics` shows.
    pub metrics: prometheus::Registry,
}

/// Why the orchestrator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// An orchestrator that listens, and does not serve yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    deps: Deps,
    planning: Planning,
    load: Arc<Load>,
    metrics: Arc<Metrics>,
}

/// Checks the configuration and listens.
///
/// # Errors
/// [`BuildError`].
pub async fn build(config: Config, deps: Deps) -> Result<Bound, BuildError> {
    let metrics = Metrics::new(&deps.metrics)
        .and_then(|metrics| deps.tracer.register(&deps.metrics).map(|()| metrics))
        .map_err(|e| BuildError::Config(e.to_string()))?;
    let metrics = Arc::new(metrics);
    let planning = Planning::new(
        &config.planner,
        &config.agents,
        &config.resources,
        Arc::clone(&metrics),
    )
    .map_err(BuildError::Config)?;
    let agents = config.agents.iter().map(|a| a.id.clone()).collect();
    let load = Arc::new(Load::new(
        Arc::clone(&deps.bus),
        agents,
        Arc::clone(&metrics),
    ));
    let planning = planning.assigned_by(Arc::clone(&load));
    for key in &config.assertions.keys {
        mesh_protocol::assertion::PublicKey::from_base64(key.kid.clone(), &key.x).map_err(
            |_| BuildError::Config(format!("assertion key {} is no Ed25519 key", key.kid)),
        )?;
    }
    let bind = |source| BuildError::Bind {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    Ok(Bound {
        listener,
        address,
        config,
        deps,
        planning,
        load,
        metrics,
    })
}

impl Bound {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `shutdown`, then drains.
    pub async fn run(self, shutdown: CancellationToken) {
        let halt = CancellationToken::new();
        let (ready, ready_seen) = watch::channel(Ready::Waiting("not declared yet".to_owned()));
        let (events, queue) = Events::new(Arc::clone(&self.metrics));
        let desk = (!self.config.resources.is_empty()).then(|| {
            Arc::new(Desk::new(
                self.deps.arbiter,
                self.config.resources.clone(),
                Times::default(),
                Arc::clone(&self.metrics),
            ))
        });
        let executor = Executor::new(Context {
            bus: Arc::clone(&self.deps.bus),
            store: self.deps.store,
            metrics: Arc::clone(&self.metrics),
            events,
            load: self.load,
            desk,
            steps: self.config.steps.clone(),
            max_runs: self.config.limits.max_runs,
            ready: ready_seen,
            tracing: Tracing::new(self.deps.tracer, self.config.bus.system()),
            halt: halt.clone(),
        });
        let api = Api::new(
            &self.config,
            Arc::clone(&executor),
            self.planning,
            self.deps.quota,
            self.deps.metrics,
            Arc::clone(&self.metrics),
            shutdown.clone(),
        );
        let api = match api {
            Ok(api) => Arc::new(api),
            // `build` has read the same keys.
            Err(error) => {
                tracing::error!(%error, "an assertion key cannot be read");
                return;
            }
        };
        tracing::info!(replica = %executor.replica(), "this replica");
        executor.start();
        executor.spawn(
            "events",
            events::publish(self.deps.bus, queue, self.metrics, halt.clone()),
        );
        executor.spawn(
            "lane",
            lane::run(Arc::clone(&executor), Parts::new(&self.config), ready),
        );
        tracing::info!(address = %self.address, "orchestrator listens");
        api::serve::serve(self.listener, api::router(api), shutdown).await;
        halt.cancel();
        if tokio::time::timeout(LEAVE, executor.drained())
            .await
            .is_err()
        {
            let runs = executor.in_flight();
            tracing::warn!(
                runs,
                "cut off what does not leave; others take up the runs once the lease has run out"
            );
        }
    }
}
