//! How steps come off the bus and are handed over.

use super::Faults;
use mesh_bus::{BusConfig, DELIVERY_LIMIT, QueueKind, delays};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How steps come off the bus and are handed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The broker. `RABBITMQ_URL` in the environment overrides it.
    pub bus: BusConfig,
    /// How queues are declared; as the orchestrator declares them.
    pub queue_kind: QueueKind,
    /// Most messages that wait in the agent's queue, where it is bounded; as the orchestrator declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_length: Option<u32>,
    /// Most steps at the agent at the same time; also the prefetch.
    pub concurrency: u16,
    /// Time limit of one call, in milliseconds.
    pub timeout_ms: u64,
    /// Most calls for one step: 408, 429, 5xx, timeouts and refused connections are tried again.
    pub max_attempts: u32,
    /// Pause before the second call, in milliseconds; doubled for each further one, with jitter.
    pub retry_base_ms: u64,
    /// What becomes of a step whose calls all failed, or that ended its sidecar.
    pub delivery: Delivery,
    /// Longest answer that is read, in bytes.
    pub max_answer_bytes: usize,
    /// How long the broker waits for an acknowledgement before it takes a step back and closes the channel, in
    /// milliseconds: RabbitMQ's `consumer_timeout`, which no client can ask for. A step that is still at the agent
    /// when a tenth of it is left, or a minute, is given back and taken again.
    pub ack_deadline_ms: u64,
    /// Directory in which answers are kept until their step cannot come again: what is known then outlives the
    /// process. In memory alone without one. One sidecar each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
}

/// What becomes of a step whose calls all failed, or that ended its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// How often a step whose calls all failed is put off and tried anew, each time with as many calls. It waits in
    /// queues of the broker, and never past its own deadline.
    pub delayed_retries: u32,
    /// How long it waits the first time, in milliseconds; twice as long each further time. Between half of that and
    /// all of it, by chance.
    pub first_delay_ms: u64,
    /// The longest that it waits, in milliseconds.
    pub longest_delay_ms: u64,
    /// Statuses that fail a step at once though they could be tried again (408, 429, 5xx); others from 300 on do so
    /// anyhow.
    pub unrecoverable: Vec<u16>,
    /// How often a step may have ended whoever held it before it is a dead letter instead of being handed to the
    /// agent. Below the queue's own delivery limit, after which the broker takes it away and no one answers for it.
    pub max_crashes: u32,
    /// Whether a step that the agent refused is kept among the dead letters too, beside those whose tries are used up.
    pub keep_refused: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            delayed_retries: 3,
            first_delay_ms: 1_000,
            longest_delay_ms: 30_000,
            unrecoverable: Vec::new(),
            max_crashes: 5,
            keep_refused: false,
        }
    }
}

impl Delivery {
    /// Most delayed retries that can be configured.
    pub const MAX_RETRIES: u32 = 20;
    /// Most crashes that can be allowed: the broker's delivery limit comes right after.
    pub const MAX_CRASHES: u32 = DELIVERY_LIMIT - 1;

    /// The delays that queues are needed for, in milliseconds, shortest first.
    pub fn delays(&self) -> Vec<u32> {
        let delays = self.delayed_retries.checked_sub(1).map(|last| {
            // Half of the first delay is the shortest that chance makes of it.
            delays(self.first_delay_ms / 2, self.longest_wait_ms(last))
        });
        delays.unwrap_or_default()
    }

    /// The longest that a step waits that was put off so often before, in milliseconds.
    pub(crate) fn longest_wait_ms(&self, retries: u32) -> u64 {
        let doubled = 1_u64.checked_shl(retries).unwrap_or(u64::MAX);
        let full = self.first_delay_ms.saturating_mul(doubled);
        full.min(self.longest_delay_ms)
    }

    fn check(&self, faults: &mut Faults) {
        if self.delayed_retries > Self::MAX_RETRIES {
            let most = Self::MAX_RETRIES;
            faults.push(format!(
                "worker.delivery.delayed_retries must be at most {most}"
            ));
        }
        faults.millis("worker.delivery.first_delay_ms", self.first_delay_ms, false);
        faults.millis(
            "worker.delivery.longest_delay_ms",
            self.longest_delay_ms,
            false,
        );
        if self.longest_delay_ms < self.first_delay_ms {
            faults.push("worker.delivery.longest_delay_ms is below first_delay_ms");
        }
        if self.max_crashes == 0 || self.max_crashes > Self::MAX_CRASHES {
            faults.push(format!(
                "worker.delivery.max_crashes must be 1 to {}, below the queue's delivery limit",
                Self::MAX_CRASHES
            ));
        }
        let again = |status: &u16| matches!(status, 408 | 429 | 500..=599);
        if let Some(status) = self.unrecoverable.iter().find(|status| !again(status)) {
            faults.push(format!(
                "worker.delivery.unrecoverable: {status} is none that would be tried again"
            ));
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            bus: BusConfig::Memory,
            queue_kind: QueueKind::default(),
            max_queue_length: None,
            concurrency: 16,
            timeout_ms: 60_000,
            max_attempts: 3,
            retry_base_ms: 100,
            delivery: Delivery::default(),
            max_answer_bytes: 4 * 1024 * 1024,
            // RabbitMQ's default since 3.8.17.
            ack_deadline_ms: 1_800_000,
            state_dir: None,
        }
    }
}

impl Worker {
    pub(super) fn check(&self, faults: &mut Faults) {
        faults.some("worker.concurrency", self.concurrency.into());
        faults.some("worker.max_attempts", self.max_attempts.into());
        faults.some(
            "worker.max_answer_bytes",
            u64::try_from(self.max_answer_bytes).unwrap_or(u64::MAX),
        );
        faults.millis("worker.timeout_ms", self.timeout_ms, false);
        faults.millis("worker.retry_base_ms", self.retry_base_ms, true);
        faults.millis("worker.ack_deadline_ms", self.ack_deadline_ms, false);
        self.delivery.check(faults);
    }
}
