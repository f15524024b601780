//! The orchestrator as a library: bind, say where, run until told to stop, drain.
//!
//! ```text
//!  stop ─▶ API takes no more, answers and sockets end ─▶ intake, lane, runs and relay leave
//! ```
//!
//! Runs do not end with the process: they stay in the store as they are, and another replica or the next
//! process takes them up. The bus and the store belong to the caller.

use crate::api::{self, Api};
use crate::config::Config;
use crate::coordination::hub::Hub;
use crate::coordination::socket::Sockets;
use crate::intake;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::ollama::Models;
use crate::planner::Planning;
use crate::quota::Quota;
use crate::resources::{Arbiter, Desk, Times};
use crate::run::executor::{Context, Executor};
use crate::run::lane::{self, Parts, Ready};
use crate::run::relay;
use crate::run::trace::Tracing;
use crate::store::RunStore;
use crate::submission::Submissions;
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

/// Time for agents to hear that this replica stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the orchestrator does not make for itself.
pub struct Deps {
    /// Carries steps and results.
    pub bus: Arc<dyn Bus>,
    /// Keeps runs.
    pub store: Arc<dyn RunStore>,
    /// Keeps what gateways share.
    pub quota: Arc<dyn Quota>,
    /// Keeps what agents tell one another.
    pub hub: Arc<dyn Hub>,
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
    models: Option<Arc<Models>>,
    load: Arc<Load>,
    metrics: Arc<Metrics>,
    sockets: Arc<Sockets>,
    /// Cancelled when sockets are to close.
    leaving: CancellationToken,
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
    let models = match &config.planner.ollama {
        None => None,
        Some(ollama) => {
            let quota = Arc::clone(&deps.quota);
            let models = Models::new(ollama, &config.agents, quota, &deps.metrics);
            Some(models.map_err(BuildError::Config)?)
        }
    };
    let planning = Planning::new(
        &config.planner,
        &config.agents,
        &config.resources,
        models.as_ref(),
        Arc::clone(&metrics),
    );
    let agents = config.agents.iter().map(|a| a.id.clone()).collect();
    let load = Arc::new(Load::new(
        Arc::clone(&deps.bus),
        agents,
        Arc::clone(&metrics),
    ));
    let planning = planning.assigned_by(Arc::clone(&load));
    let leaving = CancellationToken::new();
    let sockets = Sockets::new(
        Arc::clone(&deps.hub),
        config.coordination.clone(),
        config.agents.iter().map(|a| a.id.clone()),
        &deps.metrics,
        leaving.clone(),
    )
    .map_err(|e| BuildError::Config(e.to_string()))?;
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
        models,
        load,
        metrics,
        sockets,
        leaving,
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
            written: Arc::default(),
            load: self.load,
            desk,
            steps: self.config.steps.clone(),
            max_runs: self.config.limits.max_runs,
            ready: ready_seen,
            tracing: Tracing::new(self.deps.tracer, self.config.bus.system()),
            plans: self.planning.cache().cloned(),
            halt: halt.clone(),
        });
        let planning = Arc::new(self.planning);
        let submissions = Submissions::new(&self.config, Arc::clone(&executor), planning);
        let submissions = match submissions {
            Ok(submissions) => Arc::new(submissions),
            // `build` has read the same keys.
            Err(error) => {
                tracing::error!(%error, "an assertion key cannot be read");
                return;
            }
        };
        let parts = api::Parts {
            submissions: Arc::clone(&submissions),
            models: self.models.clone(),
            quota: self.deps.quota,
            sockets: Arc::clone(&self.sockets),
            registry: self.deps.metrics,
        };
        let api = Api::new(&self.config, Arc::clone(&executor), parts, shutdown.clone());
        let api = Arc::new(api);
        tracing::info!(replica = %executor.replica(), "this replica");
        executor.start();
        if let Some(models) = self.models {
            executor.spawn("models", models.run(halt.clone()));
        }
        executor.spawn("relay", relay::publish(Arc::clone(&executor)));
        executor.spawn("intake", intake::run(Arc::clone(&executor), submissions));
        self.sockets.start();
        let (leaving, stop) = (self.leaving, shutdown.clone());
        tokio::spawn(async move {
            stop.cancelled().await;
            leaving.cancel();
        });
        executor.spawn(
            "lane",
            lane::run(Arc::clone(&executor), Parts::new(&self.config), ready),
        );
        tracing::info!(address = %self.address, "orchestrator listens");
        api::serve::serve(self.listener, api::router(api), shutdown).await;
        self.sockets.closed(FAREWELL).await;
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
