//! The counter `requests`, by decision and reason.
//!
//! Proxy-Wasm metrics have no labels; gateways cut them out of the name by the patterns of the
//! `.meta.json`. With `_` alone in it, the name is a good one also where they do not.

use crate::host::{self, Metric};
use std::cell::RefCell;
use std::collections::HashMap;

/// Counters that this filter has used. A host that counts nothing costs one attempt per name.
#[derive(Default)]
pub(crate) struct Counters(RefCell<HashMap<(&'static str, &'static str), Option<Metric>>>);

impl Counters {
    pub(crate) fn count(&self, decision: &'static str, reason: &'static str) {
        let Ok(mut known) = self.0.try_borrow_mut() else {
            return;
        };
        let metric = known.entry((decision, reason)).or_insert_with(|| {
            host::define_counter(&format!("requests_decision_{decision}_reason_{reason}"))
        });
        if let Some(metric) = metric {
            host::increment(*metric);
        }
    }
}
