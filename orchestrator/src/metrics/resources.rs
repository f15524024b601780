//! What is counted of resources. Labels are names of the configuration.

use crate::resources::{Amounts, Stand};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Opts, Registry};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The metrics.
#[derive(Debug)]
pub(crate) struct ResourceMetrics {
    capacity: IntGaugeVec,
    in_use: IntGaugeVec,
    waiting: IntGaugeVec,
    wait: HistogramVec,
    expiries: IntCounter,
    /// The store's count as it was last seen, and one; zero before.
    seen: AtomicU64,
    /// Calls that failed.
    pub(crate) errors: IntCounter,
}

impl ResourceMetrics {
    /// Registers everything in `registry`.
    ///
    /// # Errors
    /// A name is taken.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["resource"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let wait = HistogramVec::new(
            HistogramOpts::new(
                "orchestrator_resource_wait_seconds",
                "Time from asking for a resource to its grant",
            )
            .buckets(vec![
                0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0,
            ]),
            &["resource"],
        )?;
        registry.register(Box::new(wait.clone()))?;
        Ok(Self {
            capacity: gauges(
                "orchestrator_resource_capacity",
                "How much of a resource there is",
            )?,
            in_use: gauges(
                "orchestrator_resource_in_use",
                "How much of a resource is held, by all replicas",
            )?,
            waiting: gauges(
                "orchestrator_resource_waiting",
                "How many wait for some of a resource, at all replicas",
            )?,
            wait,
            expiries: counter(
                "orchestrator_resource_expiries_total",
                "Leases that expired, of all replicas, since this one looked first",
            )?,
            seen: AtomicU64::new(0),
            errors: counter(
                "orchestrator_resource_errors_total",
                "Calls of the arbiter that failed",
            )?,
        })
    }

    /// Some of each of `needs` was granted, after that wait.
    pub(crate) fn granted(&self, needs: &Amounts, wait: Duration) {
        for name in needs.keys() {
            self.wait
                .with_label_values(&[name.as_str()])
                .observe(wait.as_secs_f64());
        }
    }

    /// How things stand.
    pub(crate) fn stand(&self, resources: &BTreeMap<String, Stand>, expired: u64) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (name, stand) in resources {
            let name = [name.as_str()];
            self.capacity
                .with_label_values(&name)
                .set(signed(stand.capacity));
            self.in_use
                .with_label_values(&name)
                .set(signed(stand.in_use));
            self.waiting
                .with_label_values(&name)
                .set(signed(stand.waiting));
        }
        // A store that was emptied begins anew.
        let before = self.seen.swap(expired + 1, Ordering::Relaxed);
        if before > 0 {
            self.expiries.inc_by((expired + 1).saturating_sub(before));
        }
    }
}
