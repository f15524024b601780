//! The counter `requests`, by decision and reason, and the histogram `duration_us`.
//!
//! Every request is counted. How long its decision took is recorded of one in [`EACH`]: two readings of the
//! host's clock per callback and a record are a third of the calls that a filter makes of its host.
//!
//! Proxy-Wasm metrics have no labels; gateways cut them out of the name by the patterns of the
//! `.meta.json`. With `_` alone in it, the name is a good one also where they do not.

use crate::host::{self, Metric};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Of so many requests, the first is timed.
const EACH: u8 = 16;

/// Metrics that this filter has used. A host that counts nothing costs one attempt per name.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: RefCell<HashMap<(&'static str, &'static str), Option<Metric>>>,
    duration: Cell<Option<Option<Metric>>>,
    /// Requests since the last that was timed.
    since: Cell<u8>,
}

impl Metrics {
    /// Counts a decision.
    pub(crate) fn count(&self, decision: &'static str, reason: &'static str) {
        let Ok(mut known) = self.requests.try_borrow_mut() else {
            return;
        };
        let metric = known.entry((decision, reason)).or_insert_with(|| {
            host::define_counter(&format!("requests_decision_{decision}_reason_{reason}"))
        });
        if let Some(metric) = metric {
            host::increment(*metric);
        }
    }

    /// Whether the request that begins is one of those that are timed.
    pub(crate) fn times_this(&self) -> bool {
        let since = self.since.get();
        self.since.set(since.saturating_add(1) % EACH);
        since == 0
    }

    /// Records how long a decision took.
    pub(crate) fn took(&self, ns: u64) {
        let metric = self.duration.get().unwrap_or_else(|| {
            let metric = host::define_histogram("duration_us");
            self.duration.set(Some(metric));
            metric
        });
        if let Some(metric) = metric {
            host::record(metric, ns / 1000);
        }
    }
}
