//! The metrics that filters define: one store for all workers, so that a counter counts for the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most metrics of one process; a filter has a few dozen, one that invents names without end is stopped.
const MAX_METRICS: usize = 1024;

/// Kinds of metrics that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Counts values by size, see [`BUCKETS`].
    Histogram,
}

/// One metric and its value now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricValue {
    /// `pw_<filter>_<name>`, of characters that Prometheus takes.
    pub name: String,
    /// Kind.
    pub kind: MetricKind,
    /// Value; of a histogram the sum of what was recorded.
    pub value: u64,
    /// Of a histogram: how many values were at most as large as each of [`BUCKETS`], and how many in all.
    pub counts: Vec<u64>,
}

/// Upper bounds of a histogram's buckets, the same for all, since the ABI names none: from what a decision
/// takes in microseconds to what a slow service takes in milliseconds.
pub const BUCKETS: [u64; 13] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 100_000,
];

/// All metrics that filters have defined.
#[derive(Debug, Default)]
pub struct MetricStore {
    by_name: Mutex<HashMap<String, Arc<Metric>>>,
}

#[derive(Debug)]
pub(crate) struct Metric {
    pub kind: MetricKind,
    pub value: AtomicU64,
    /// Of a histogram: values in each bucket alone, and above the last.
    buckets: Vec<AtomicU64>,
}

impl Metric {
    /// Records a value in a histogram.
    pub fn observe(&self, value: u64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
            self.value.fetch_add(value, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.buckets
            .iter()
            .scan(0_u64, |sum, bucket| {
                *sum = sum.saturating_add(bucket.load(Ordering::Relaxed));
                Some(*sum)
            })
            .collect()
    }
}

impl MetricStore {
    /// The metric `name` of `filter`, made on its first mention. None when the store is full, or when the
    /// name stands for another kind already.
    pub(crate) fn define(&self, filter: &str, name: &str, kind: MetricKind) -> Option<Arc<Metric>> {
        let name = format!("pw_{}_{}", clean(filter), clean(name));
        let mut metrics = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if metrics.len() >= MAX_METRICS && !metrics.contains_key(&name) {
            return None;
        }
        let metric = metrics.entry(name).or_insert_with(|| {
            Arc::new(Metric {
                kind,
                value: AtomicU64::new(0),
                buckets: match kind {
                    MetricKind::Histogram => {
                        (0..=BUCKETS.len()).map(|_| AtomicU64::new(0)).collect()
                    }
                    MetricKind::Counter | MetricKind::Gauge => Vec::new(),
                },
            })
        });
        (metric.kind == kind).then(|| Arc::clone(metric))
    }

    /// All metrics and their values, by name.
    pub fn snapshot(&self) -> Vec<MetricValue> {
        let metrics = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = metrics
            .iter()
            .map(|(name, metric)| MetricValue {
                name: name.clone(),
                kind: metric.kind,
                value: metric.value.load(Ordering::Relaxed),
                counts: metric.counts(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn clean(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
