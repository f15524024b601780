//! The model server, shared by the planner and the mesh's agents: one client, one line, one breaker, one budget
//! for each consumer.
//!
//! ```text
//!  planner ─┐             is it    tokens   breaker   turn                    tokens counted,
//!           ├──▶ begin ──▶ there? ─▶ left? ─▶ shut? ─▶ (line) ──▶ Call ──▶ server ──▶ breaker told
//!  agents ──┘                │        │        │         │
//!  (api::models)             └────────┴────────┴─────────┴──▶ Refused: the rules plan, an agent hears it
//! ```
//!
//! The server may be any that speaks Ollama's API (docs/api.md as of 0.12); nothing of it is needed but
//! `POST /api/chat` for plans.

pub mod breaker;
pub mod budget;
pub mod cache;
mod call;
pub mod client;
mod metrics;
mod pull;
pub mod readiness;
mod shape;
pub mod turn;

pub use call::Call;
pub use metrics::Metrics;

use crate::config;
use crate::quota::Quota;
use breaker::{Breaker, Permit, State as BreakerState};
use budget::Ledger;
use client::Client;
use readiness::{Readiness, Rules, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use turn::{NoTurn, Turn, Turns};

/// Calls that were given up and whose tokens wait to be counted: more than can be under way.
const GIVEN_UP: usize = 1_024;

/// Who asks the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumer {
    /// The orchestrator, for a plan.
    Planner,
    /// A program on this machine, past the sidecar.
    Local,
    /// A service of the mesh, by its certificate.
    Service(String),
}

impl Consumer {
    /// Its name in budgets and in the line.
    pub fn name(&self) -> &str {
        match self {
            Self::Planner => "planner",
            Self::Local => "local",
            Self::Service(name) => name,
        }
    }
}

/// Why a call is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The mesh does not share this model.
    #[error("model {0:?} is not shared by this mesh")]
    NotShared(String),
    /// The server does not have it yet.
    #[error("the model is not there: {}", .0.describe())]
    NotThere(State),
    /// Its consumer has used up its tokens.
    #[error("the tokens of {consumer} are used up for another {} s", seconds(*.wait))]
    Exhausted {
        /// Whose.
        consumer: String,
        /// Until there are some again.
        wait: Duration,
    },
    /// The server failed too often.
    #[error("too many calls failed, the model is left alone for another {} s", seconds(*.left))]
    Open {
        /// For how long at least.
        left: Duration,
    },
    /// No turn.
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
}

impl Refused {
    /// The stable word for it, in metrics and problem types.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotShared(_) => "not_shared",
            Self::NotThere(_) => "not_there",
            Self::Exhausted { .. } => "budget_exhausted",
            Self::Open { .. } => "breaker_open",
            Self::NoTurn(NoTurn::Full) => "queue_full",
            Self::NoTurn(NoTurn::Late) => "queue_timeout",
        }
    }

    /// When it is worth trying again, in whole seconds; `None` when it is not.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NotShared(_) => None,
            Self::Exhausted { wait, .. } => Some(seconds(*wait)),
            Self::Open { left } => Some(seconds(*left)),
            Self::NotThere(_) => Some(10),
            Self::NoTurn(_) => Some(1),
        }
    }
}

/// Rounded up, at least one.
fn seconds(duration: Duration) -> u64 {
    duration
        .as_millis()
        .div_ceil(1_000)
        .try_into()
        .map_or(u64::MAX, |s: u64| s.max(1))
}

/// The shared model server.
pub struct Models {
    client: Client,
    config: config::Ollama,
    turns: Arc<Turns>,
    breaker: Breaker,
    ledger: Ledger,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    /// Services that metrics name.
    agents: Vec<String>,
    given_up: mpsc::Sender<(String, u64)>,
    to_count: std::sync::Mutex<Option<mpsc::Receiver<(String, u64)>>>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").finish_non_exhaustive()
    }
}

/// What clients are told of the models.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    models: BTreeMap<&'a str, State>,
    breaker: &'static str,
    under_way: i64,
    waiting: i64,
    concurrency: usize,
}

impl Models {
    /// The server of `config`, for the mesh's `agents`; budgets are kept in `quota`.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(
        config: &config::Ollama,
        agents: &[config::Agent],
        quota: Arc<dyn Quota>,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, String> {
        let metrics = Arc::new(Metrics::new(registry).map_err(|e| e.to_string())?);
        metrics.breaker(BreakerState::Closed);
        let (given_up, to_count) = mpsc::channel(GIVEN_UP);
        Ok(Arc::new(Self {
            client: Client::new(config)?,
            turns: Turns::new(
                config.concurrency,
                config.queue.max,
                Duration::from_millis(config.queue.wait_ms),
                metrics.waiting.clone(),
                metrics.under_way.clone(),
            ),
            breaker: Breaker::default(),
            ledger: Ledger::new(config.budgets.clone(), quota),
            readiness: Readiness::new(config.shared(), Arc::clone(&metrics)),
            metrics,
            agents: agents.iter().map(|agent| agent.id.to_string()).collect(),
            config: config.clone(),
            given_up,
            to_count: std::sync::Mutex::new(Some(to_count)),
        }))
    }

    /// The client, for questions that cost the model nothing; all others take their turn ([`Models::begin`]).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it was made from.
    pub fn config(&self) -> &config::Ollama {
        &self.config
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The name by which a model is shared that is asked for as `name`: `x` and `x:latest` are the same.
    pub fn shared(&self, name: &str) -> Option<&str> {
        let wanted = readiness::full(name);
        self.config
            .shared()
            .find(|model| readiness::full(model) == wanted)
    }

    /// Looks after the models and counts what was given up, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let rules = Rules {
            pull: self.config.pull,
            preload: self.config.preload.then(|| self.config.model.clone()),
            keep_alive_s: self.config.keep_alive_s,
        };
        let to_count = self.to_count.lock().map_or(None, |mut taken| taken.take());
        let counting = async {
            let Some(mut given_up) = to_count else { return };
            while let Some((consumer, tokens)) = given_up.recv().await {
                self.count(&consumer, tokens).await;
            }
        };
        let readiness = self
            .readiness
            .run(&self.client, &self.turns, &rules, stop.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(readiness, counting) } => {}
        }
    }

    /// A call for `consumer` to `model`, once it is its turn; the higher `priority` (0 to 10), the sooner.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub async fn begin(
        self: &Arc<Self>,
        consumer: Consumer,
        priority: u8,
        model: &str,
    ) -> Result<Call, Refused> {
        let begun = self.admit(&consumer, priority, model).await;
        if let Err(refused) = &begun {
            self.metrics.called(self.class(&consumer), refused.code());
        }
        let (turn, permit) = begun?;
        Ok(Call::new(self, consumer, model, turn, permit))
    }

    async fn admit(
        &self,
        consumer: &Consumer,
        priority: u8,
        model: &str,
    ) -> Result<(Turn, Permit), Refused> {
        match self.readiness.of(model) {
            None => return Err(Refused::NotShared(model.to_owned())),
            Some(state) if !state.is_usable() => return Err(Refused::NotThere(state)),
            Some(_) => {}
        }
        self.afford(consumer).await?;
        // Before the line: nobody is to wait for nothing.
        if let Some(left) = self.breaker.left(Instant::now()) {
            return Err(Refused::Open { left });
        }
        let asked = Instant::now();
        let turn = self.turns.take(consumer.name(), priority).await;
        self.metrics.waited(asked.elapsed());
        let turn = turn?;
        // Those of the same consumer that were before it in the line may have used up what there was.
        if turn.was_waited_for() {
            self.afford(consumer).await?;
        }
        let permit = self.breaker.admit(Instant::now());
        self.metrics.breaker(self.breaker.state());
        let permit = permit.map_err(|left| Refused::Open { left })?;
        Ok((turn, permit))
    }

    /// Whether `consumer` has tokens left.
    async fn afford(&self, consumer: &Consumer) -> Result<(), Refused> {
        match self.ledger.exhausted(consumer.name()).await {
            Ok(None) => Ok(()),
            Ok(Some(wait)) => {
                let consumer = consumer.name().to_owned();
                Err(Refused::Exhausted { consumer, wait })
            }
            Err(error) => {
                self.unkept(&error);
                Ok(())
            }
        }
    }

    /// What clients are told.
    pub fn view(&self) -> View<'_> {
        let (under_way, waiting) = self.turns.counts();
        View {
            models: self.readiness.all(),
            breaker: self.breaker.state().as_str(),
            under_way,
            waiting,
            concurrency: self.config.concurrency,
        }
    }

    fn class<'a>(&self, consumer: &'a Consumer) -> &'a str {
        match consumer {
            Consumer::Service(name) if !self.agents.contains(name) => "other",
            known => known.name(),
        }
    }

    async fn count(&self, consumer: &str, tokens: u64) {
        if let Err(error) = self.ledger.used(consumer, tokens).await {
            self.unkept(&error);
        }
    }

    fn unkept(&self, error: &crate::quota::QuotaError) {
        self.metrics.budgets_unavailable.inc();
        tracing::warn!(%error, "a budget of tokens is not kept");
    }
}
