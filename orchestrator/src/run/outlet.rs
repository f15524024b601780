//! The way out of the outbox: steps that are stored as dispatched go to the broker, until it has them.
//!
//! A step that is stored and not published is published by whoever takes its run up; one that is published
//! and not yet marked so may be published twice, under one idempotency key. So nothing is lost between the
//! store and the broker, and what is doubled does no harm.

use super::executor::{Executor, pauses};
use super::message::lifetime_ms;
use mesh_bus::{BusError, Message};
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::StepError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Longest pause before a step is published again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long the broker may confirm nothing, though something waits for it, before it counts as stalled: a
/// confirm takes milliseconds, some hundred of them on a busy disk.
const STALLED: Duration = Duration::from_secs(2);

/// What became of a step that was to be published.
pub(super) enum Sent {
    /// The broker has it, since that time.
    Confirmed(Timestamp),
    /// The broker never will have it.
    Undeliverable(StepError),
    /// Its time was up before the broker had it.
    Late,
}

/// Whether the broker takes what is published: it may be connected and yet take nothing, when an alarm
/// blocks it or its disk is slow.
pub(super) struct Pressure {
    start: Instant,
    waiting: AtomicUsize,
    /// Milliseconds from `start` to the last sign that the broker takes something.
    moved_ms: AtomicU64,
}

impl Pressure {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            waiting: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
        }
    }

    /// Whether something waits and nothing has moved for a while.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled_at(self.start.elapsed())
    }

    fn is_stalled_at(&self, now: Duration) -> bool {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        self.waiting.load(Ordering::Relaxed) > 0 && now.saturating_sub(moved) > STALLED
    }

    fn moved_at(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.fetch_max(now, Ordering::Relaxed);
    }

    fn wait_from(&self, now: Duration) -> Waiting<'_> {
        // Who waits first begins to count from here.
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.moved_at(now);
        }
        Waiting(self)
    }
}

/// A step that waits for the broker's confirm.
struct Waiting<'a>(&'a Pressure);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Publishes until the broker has the message, or the deadline.
///
/// Not while the lease is in doubt: the run may be another replica's by now.
pub(super) async fn deliver(
    executor: &Executor,
    mut message: Message,
    deadline: Timestamp,
) -> Sent {
    let context = executor.context();
    let mut ready = context.ready.clone();
    // While the queues are being declared, unroutable means nothing. The deadline ends the wait:
    // the run's clock fails the step, and this future is dropped or harmless.
    if ready.wait_for(|r| r.is_settled()).await.is_err() {
        return Sent::Late;
    }
    let pressure = executor.pressure();
    let _waiting = pressure.wait_from(pressure.start.elapsed());
    let mut pauses = pauses();
    loop {
        executor.tenure().held().await;
        let now = executor.clock().now();
        if now >= deadline {
            return Sent::Late;
        }
        message.properties.expiration_ms = Some(lifetime_ms(deadline, now));
        match context.bus.publish(message.clone()).await {
            Ok(()) => {
                pressure.moved_at(pressure.start.elapsed());
                return Sent::Confirmed(Timestamp::now());
            }
            Err(BusError::Unavailable { detail }) => {
                context.metrics.bus_error("unavailable");
                tracing::debug!(detail, "a step is not published, trying again");
            }
            Err(error @ BusError::Unroutable { .. }) => {
                context.metrics.bus_error("unroutable");
                let error = StepError::new("unroutable", error.to_string());
                return Sent::Undeliverable(error);
            }
            Err(error @ BusError::TooLarge { .. }) => {
                context.metrics.bus_error("too_large");
                let error = StepError::new("step_too_large", error.to_string());
                return Sent::Undeliverable(error);
            }
            Err(error) => {
                context.metrics.bus_error("refused");
                let error = StepError::new("broker_refused", error.to_string());
                return Sent::Undeliverable(error);
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_stalled_when_something_waits_and_nothing_moves() {
        let pressure = Pressure::new();
        // Nobody waits.
        assert!(!pressure.is_stalled_at(STALLED * 2));
        let first = pressure.wait_from(STALLED * 2);
        assert!(!pressure.is_stalled_at(STALLED * 2));
        let second = pressure.wait_from(STALLED * 3);
        assert!(pressure.is_stalled_at(STALLED * 4));
        pressure.moved_at(STALLED * 4);
        drop(first);
        assert!(!pressure.is_stalled_at(STALLED * 5));
        assert!(pressure.is_stalled_at(STALLED * 6));
        drop(second);
        assert!(!pressure.is_stalled_at(STALLED * 6));
    }
}
