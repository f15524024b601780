//! The counter `requests`, by decision and reason, and the histogram `duration_us`, which every sixteenth
//! request is in, the first one among them: looking at the clock costs calls of the host.
//!
//! Proxy-Wasm metrics have no labels; gateways cut them out of the name by the patterns of the
//! `.meta.json`. With `_` alone in it, the name is a good one also where they do not.

use crate::host::{self, Metric};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Metrics that this filter has used. A host that counts nothing costs one attempt per name.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: RefCell<HashMap<(&'static str, &'static str), Option<Metric>>>,
    duration: Cell<Option<Option<Metric>>>,
    seen: Cell<u32>,
}

/// One of so many requests is timed.
const TIMED: u32 = 16;

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

    /// Whether the next request is to be timed.
    pub(crate) fn is_timed(&self) -> bool {
        let seen = self.seen.get();
        self.seen.set(seen.wrapping_add(1));
        seen % TIMED == 0
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
