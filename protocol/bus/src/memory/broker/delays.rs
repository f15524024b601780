//! Messages that are put off: they lie in queues that lead to another one when their time has come.
//!
//! Nothing here has a clock that strikes. Whoever takes from the other queue, or looks at it, brings over what is
//! due, and a consumer that finds nothing sleeps until the next will be.

use super::State;
use crate::{BusError, DelayQueue, Queue};
use std::time::Duration;
use tokio::time::Instant;

/// When a queue that was full is looked at again.
const FULL: Duration = Duration::from_millis(100);

impl State {
    pub(super) fn declare_delay(&mut self, wanted: &DelayQueue) -> Result<(), BusError> {
        self.declare_queue(&Queue {
            name: wanted.name.clone(),
            kind: wanted.kind,
            dead_letters: false,
        })?;
        if let Some(stock) = self.queues.get_mut(&wanted.name) {
            let delay = Duration::from_millis(wanted.delay_ms.into());
            stock.delay = Some((delay, wanted.to.clone()));
        }
        let all = self.delays.entry(wanted.to.clone()).or_default();
        if !all.contains(&wanted.name) {
            all.push(wanted.name.clone());
        }
        Ok(())
    }

    /// Brings into `queue` what has waited for it long enough; says when the next will have.
    pub(super) fn ripen(&mut self, queue: &str) -> Option<Instant> {
        // Mostly there are none.
        let delays = self.delays.get(queue)?.clone();
        let now = Instant::now();
        let nexts = delays
            .iter()
            .filter_map(|name| self.empty(name, queue, now));
        nexts.min()
    }

    fn empty(&mut self, delay: &str, queue: &str, now: Instant) -> Option<Instant> {
        loop {
            let first = self.queues.get(delay)?.first()?;
            // Everything in such a queue has an end.
            let due = first.expires?;
            if due > now {
                return Some(due);
            }
            // As on a broker: it stays until there is room.
            if !self.queues.get(queue)?.has_room(&first.message) {
                return Some(now + FULL);
            }
            let mut stored = self.queues.get_mut(delay)?.next()?;
            self.last_number += 1;
            stored.number = self.last_number;
            stored.expires = None;
            stored.message.routing_key = queue.to_owned();
            self.queues.get_mut(queue)?.put(stored);
        }
    }
}
