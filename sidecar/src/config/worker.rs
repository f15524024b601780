//! How steps come off the bus and are handed over.

use super::Faults;
use mesh_bus::{BusConfig, QueueKind};
use serde::{Deserialize, Serialize};

/// How steps come off the bus and are handed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The broker. `RABBITMQ_URL` in the environment overrides it.
    pub bus: BusConfig,
    /// How queues are declared; as the orchestrator declares them.
    pub queue_kind: QueueKind,
    /// Most steps at the agent at the same time; also the prefetch.
    pub concurrency: u16,
    /// Time limit of one call, in milliseconds.
    pub timeout_ms: u64,
    /// Most calls for one step: 408, 429, 5xx, timeouts and refused connections are tried again.
    pub max_attempts: u32,
    /// Pause before the second call, in milliseconds; doubled for each further one, with jitter.
    pub retry_base_ms: u64,
    /// Longest answer that is read, in bytes.
    pub max_answer_bytes: usize,
    /// How long the broker waits for an acknowledgement before it takes a step back and closes the channel, in
    /// milliseconds: RabbitMQ's `consumer_timeout`, which no client can ask for.
    pub ack_deadline_ms: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            bus: BusConfig::Memory,
            queue_kind: QueueKind::default(),
            concurrency: 16,
            timeout_ms: 60_000,
            max_attempts: 3,
            retry_base_ms: 100,
            max_answer_bytes: 4 * 1024 * 1024,
            // RabbitMQ's default since 3.8.17.
            ack_deadline_ms: 1_800_000,
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
    }
}
