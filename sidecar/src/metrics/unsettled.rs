//! Deliveries that are taken and not settled, and how long the broker will wait for the oldest.
//!
//! A broker that has waited too long closes the channel, and every delivery on it comes again: so how much
//! time is left is worth a look before it is none. Computed when it is asked for, since time passes by itself.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The deliveries; clones are the same.
#[derive(Clone)]
pub(crate) struct Unsettled {
    deadline: Duration,
    gauge: Gauge,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    last: u64,
    /// By the order in which they were taken; twice as many as the worker's concurrency at most.
    since: BTreeMap<u64, Instant>,
}

/// A delivery that is not settled, until this is dropped.
pub(crate) struct Taken<'a> {
    unsettled: &'a Unsettled,
    number: u64,
}

impl Unsettled {
    pub(super) fn new(agent: &str, deadline: Duration) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "sidecar_ack_deadline_left_seconds",
            "Until the broker takes back the oldest delivery that is not settled; all its time when there is none",
        );
        Ok(Self {
            deadline,
            gauge: Gauge::with_opts(opts.const_label("agent", agent))?,
            table: Arc::default(),
        })
    }

    // Every change leaves the table whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery was taken just now.
    pub(crate) fn take(&self) -> Taken<'_> {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.since.insert(number, Instant::now());
        Taken {
            unsettled: self,
            number,
        }
    }

    /// Seconds that are left at `now`; fewer than none when the deadline has passed.
    fn left(&self, now: Instant) -> f64 {
        let oldest = self.table().since.first_key_value().map(|(_, at)| *at);
        let age = oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.deadline.as_secs_f64() - age.as_secs_f64()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.unsettled.table().since.remove(&self.number);
    }
}

impl Collector for Unsettled {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.left(Instant::now()));
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts() {
        let minute = Duration::from_secs(60);
        let unsettled = Unsettled::new("a", minute).unwrap();
        assert_eq!(unsettled.left(Instant::now()), 60.0);
        let first = unsettled.take();
        let second = unsettled.take();
        let later = Instant::now() + minute;
        let with_first = unsettled.left(later);
        assert!(with_first < 0.0);
        drop(first);
        let with_second = unsettled.left(later);
        assert!(with_first <= with_second && with_second <= 0.0);
        drop(second);
        assert_eq!(unsettled.left(later), 60.0);
        let family = unsettled.collect().remove(0);
        assert_eq!(family.name(), "sidecar_ack_deadline_left_seconds");
    }
}
