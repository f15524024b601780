//! What becomes of steps while the agent is away.
//!
//! A lane whose agent is gone fails steps faster than the lanes beside other instances of the agent carry them out,
//! and all of them take from one queue: one dead instance would fail most tasks. So a step that did not reach the
//! agent goes back where others take from the queue, and this lane takes no more until its agent is there again. It
//! goes on as well when nobody else is left, since a step has to end with somebody.
//!
//! ```text
//!  taking ──a step did not reach the agent, and others take──▶ resting
//!     ▲                                                           │
//!     └───────────── the agent is there, or nobody takes ─────────┘
//! ```

use super::Lane;
use super::invoke::Answer;
use backon::{BackoffBuilder, ConstantBuilder};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two looks at the agent and the queue, up to twice that: two lanes that rest do not both come back because
/// neither saw the other.
const LOOK: Duration = Duration::from_millis(250);

/// Whether the lane takes steps, and whether it should stop that.
#[derive(Debug, Default)]
pub(super) struct Absence {
    taking: AtomicBool,
    rest: Notify,
}

impl Absence {
    /// Says whether this lane is one of those that take from the queue.
    pub(super) fn takes(&self, taking: bool) {
        self.taking.store(taking, Ordering::Relaxed);
    }
}

impl Lane {
    /// Whether `answer` says no more than that the agent is away, and others take from the queue: the step is theirs,
    /// and this lane is to rest.
    pub(super) async fn is_for_others(&self, answer: &Answer) -> bool {
        if !answer.did_not_arrive() || !self.others_take().await {
            return false;
        }
        self.absence.rest.notify_one();
        true
    }

    /// As the broker sees it at this moment; nobody when it does not say.
    async fn others_take(&self) -> bool {
        let own = u32::from(self.absence.taking.load(Ordering::Relaxed));
        let depth = self.bus.depth(&self.agent.task_queue()).await;
        depth.is_ok_and(|depth| depth.consumers > own)
    }

    /// Ends when this lane is to rest.
    pub(super) async fn is_to_rest(&self) {
        loop {
            self.absence.rest.notified().await;
            // Said by a step that failed before the agent came back.
            if self.status.is_agent_away() {
                return;
            }
        }
    }

    /// Ends when the agent is there again, or nobody takes from the queue.
    pub(super) async fn rest(&self) {
        let looks = ConstantBuilder::default()
            .with_delay(LOOK)
            .with_jitter()
            .without_max_times();
        for pause in looks.build() {
            tokio::time::sleep(pause).await;
            if self.status.look_for_agent().await || !self.others_take().await {
                return;
            }
        }
    }
}
