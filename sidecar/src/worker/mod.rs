//! The lane from the queue to the agent and back.
//!
//! ```text
//!            ┌─ consume ──────────────┐   one task per delivery, at most 2 × concurrency
//!  queue ───▶│ declare, consume, take │──▶ step: wire::read ▶ policy ▶ recent ▶ invoke ▶ reply ▶ ack
//!            └────────────────────────┘              │          │        │         │   tries used up: dead letter after it
//!     ▲                               no task: dead letter      │        │         └─ publish, again after a
//!                                     not allowed: reply, then dead      │             reconnect, never ack before
//!                                     letter                       known, or at the
//!     │                                                            agent: no second call
//!     └── delay queues ◀── calls failed, tries left: put off (again)
//! ```
//!
//! A step's task owns its delivery and settles it exactly once. If the task fails, its delivery stays
//! unsettled and the broker hands it out again; nothing else depends on the task. All of them are on
//! one tracker, which the drain waits for.

mod absence;
mod again;
mod announce;
mod consume;
mod invoke;
mod journal;
mod recent;
mod reply;
mod step;
mod trace;
mod verdict;
mod wire;

use crate::config;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::status::Status;
use mesh_bus::{Bus, Topology};
use mesh_protocol::AgentId;
use mesh_trace::Tracer;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long before the broker takes a delivery back it is given back, at most; a tenth of the time where that is less.
/// The broker looks once a minute.
const MARGIN: Duration = Duration::from_secs(60);

/// Takes steps until it is told to stop, then drains.
pub(crate) struct Worker {
    lane: Arc<Lane>,
    topology: Topology,
    concurrency: u16,
    drain: Duration,
}

/// What the steps of one agent share.
struct Lane {
    agent: AgentId,
    bus: Arc<dyn Bus>,
    invoker: invoke::Invoker,
    recent: recent::Recent,
    again: again::Policy,
    /// How long after it was taken a delivery goes back to the broker before that takes it.
    give_back_after: Duration,
    absence: absence::Absence,
    tracing: Arc<trace::Tracing>,
    policy: Option<Arc<Policy>>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    /// Cancelled when the drain has lasted long enough: what is left is given back.
    give_up: CancellationToken,
}

/// What a worker is given besides its settings.
pub(crate) struct Given {
    pub(crate) bus: Arc<dyn Bus>,
    /// Whose steps are taken; everybody's without one.
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Arc<Status>,
}

impl Worker {
    pub(crate) fn new(
        settings: &config::Worker,
        agent: AgentId,
        drain_ms: u64,
        process_uri: http::Uri,
        given: Given,
    ) -> std::io::Result<Self> {
        let Given {
            bus,
            policy,
            tracer,
            metrics,
            status,
        } = given;
        let tracing = Arc::new(trace::Tracing::new(tracer, settings.bus.system()));
        let invoker = invoke::Invoker::new(
            settings,
            process_uri,
            Arc::clone(&tracing),
            Arc::clone(&metrics),
            Arc::clone(&status),
        );
        let again = again::Policy::new(&settings.delivery);
        let recent = match &settings.state_dir {
            Some(directory) => recent::Recent::kept_in(directory)?,
            None => recent::Recent::default(),
        };
        let deadline = Duration::from_millis(settings.ack_deadline_ms);
        Ok(Self {
            topology: settings.topology(&agent),
            concurrency: settings.concurrency,
            drain: Duration::from_millis(drain_ms),
            lane: Arc::new(Lane {
                agent,
                bus,
                invoker,
                recent,
                again,
                give_back_after: deadline - (deadline / 10).min(MARGIN),
                absence: absence::Absence::default(),
                tracing,
                policy,
                metrics,
                status,
                give_up: CancellationToken::new(),
            }),
        })
    }

    /// Works until `shutdown` is cancelled and every step is settled or given back.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let lane = Arc::clone(&self.lane);
        let done = CancellationToken::new();
        let work = async {
            consume::run(self, shutdown).await;
            done.cancel();
        };
        let watch = async {
            tokio::select! {
                () = lane.watch_connection() => {}
                () = done.cancelled() => {}
            }
        };
        tokio::join!(work, watch);
    }
}

impl Lane {
    /// Shows in the metrics whether the broker can be reached; ends when the bus is gone.
    async fn watch_connection(&self) {
        let mut connected = self.bus.connected();
        loop {
            let now = *connected.borrow_and_update();
            self.metrics.connected(now);
            if connected.changed().await.is_err() {
                return;
            }
        }
    }
}
