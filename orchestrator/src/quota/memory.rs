//! Quotas in this process: for one-process meshes and tests. All buckets are full after a restart.

use super::{
    MAX_GATEWAYS, MAX_INTERVAL_MS, Quota, QuotaError, ago_us, cost_us, life_us, max_debt_us,
};
use async_trait::async_trait;
use mesh_protocol::quota::{MAX_INTERVALS_AGO, Standings, Usage};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Most buckets with debt; the ones that are full soonest make room. Each costs some 200 bytes.
const MAX_BUCKETS: usize = 200_000;

/// How long a bucket is kept after it is full, in microseconds: as long as a gateway that tells every minute
/// may tell of what passed before.
const KEPT_US: u64 = 180_000_000;

/// Gateways tell of what passed before this process began: the longest that counts, in microseconds.
const BEFORE_US: u64 = MAX_INTERVAL_MS * MAX_INTERVALS_AGO * 1_000;

/// The quotas.
pub struct MemoryQuota {
    begun: Instant,
    inner: Mutex<Inner>,
}

/// Times are microseconds since [`BEFORE_US`] before the beginning.
struct Inner {
    buckets: Leaving,
    gateways: Leaving,
}

impl MemoryQuota {
    /// No debts, no gateways.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            inner: Mutex::new(Inner {
                buckets: Leaving::new(MAX_BUCKETS),
                gateways: Leaving::new(MAX_GATEWAYS),
            }),
        }
    }
}

impl Default for MemoryQuota {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Quota for MemoryQuota {
    async fn exchange(&self, usage: &Usage) -> Result<Standings, QuotaError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let now = elapsed.saturating_add(BEFORE_US);
        Ok(inner.exchange(usage, now))
    }
}

impl Inner {
    fn exchange(&mut self, usage: &Usage, now: u64) -> Standings {
        self.gateways.forget(now);
        let until = now.saturating_add(life_us(usage));
        if !usage.gateway.is_empty() {
            self.gateways.set(&usage.gateway, until);
        }
        self.buckets.forget(now.saturating_sub(KEPT_US));
        let debts_ns = usage.used.iter().map(|used| {
            let begun = now.saturating_sub(ago_us(used, usage));
            let before = self.buckets.get(&used.key).unwrap_or(begun).max(begun);
            let cost = cost_us(used);
            let full = before
                .saturating_add(cost)
                .min(now.saturating_add(max_debt_us()));
            if cost > 0 {
                self.buckets.set(&used.key, full);
            }
            full.saturating_sub(now).saturating_mul(1_000)
        });
        let debts_ns = debts_ns.collect();
        Standings {
            gateways: u32::try_from(self.gateways.len()).unwrap_or(u32::MAX),
            debts_ns,
        }
    }
}

/// Names that leave at a time each, at most so many.
struct Leaving {
    most: usize,
    times: HashMap<Arc<str>, u64>,
    order: BTreeSet<(u64, Arc<str>)>,
}

impl Leaving {
    fn new(most: usize) -> Self {
        Self {
            most,
            times: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    fn len(&self) -> usize {
        self.times.len()
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.times.get(name).copied()
    }

    fn set(&mut self, name: &str, at: u64) {
        let name: Arc<str> = match self.times.remove_entry(name) {
            Some((name, before)) => {
                self.order.remove(&(before, Arc::clone(&name)));
                name
            }
            None => name.into(),
        };
        self.times.insert(Arc::clone(&name), at);
        self.order.insert((at, name));
        while self.times.len() > self.most {
            self.drop_first();
        }
    }

    /// Lets go of those whose time has come.
    fn forget(&mut self, now: u64) {
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, name)) = self.order.pop_first() {
            self.times.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_protocol::quota::Used;

    fn inner(most: usize) -> Inner {
        Inner {
            buckets: Leaving::new(most),
            gateways: Leaving::new(MAX_GATEWAYS),
        }
    }

    fn usage(key: &str, units: u64) -> Usage {
        Usage {
            gateway: "g".to_owned(),
            interval_ms: 1_000,
            used: vec![Used {
                key: key.to_owned(),
                emission_ns: 1_000_000,
                units,
                first_ago_ns: 0,
            }],
        }
    }

    #[test]
    fn debt_is_paid_off_by_time_and_then_leaves() {
        let mut inner = inner(10);
        assert_eq!(inner.exchange(&usage("a", 5), 0).debts_ns, [5_000_000]);
        assert_eq!(inner.exchange(&usage("a", 1), 2_000).debts_ns, [4_000_000]);
        assert_eq!(inner.exchange(&usage("a", 0), 5_999).debts_ns, [1_000]);
        assert_eq!(inner.buckets.len(), 1);
        assert_eq!(inner.exchange(&usage("a", 0), 6_000).debts_ns, [0]);
        // From now, not from where it was.
        assert_eq!(inner.exchange(&usage("a", 1), 99_000).debts_ns, [1_000_000]);
        assert_eq!(inner.buckets.len(), 1);
        inner.exchange(&usage("b", 0), 100_000 + KEPT_US);
        assert_eq!(inner.buckets.len(), 0);
    }

    #[test]
    fn those_with_the_least_debt_make_room() {
        let mut inner = inner(3);
        for (key, units) in [("a", 9), ("b", 2), ("c", 5), ("d", 3)] {
            inner.exchange(&usage(key, units), 0);
        }
        assert_eq!(inner.buckets.len(), 3);
        assert_eq!(inner.buckets.order.len(), 3);
        assert_eq!(inner.exchange(&usage("b", 0), 0).debts_ns, [0]);
        assert_eq!(inner.exchange(&usage("a", 0), 0).debts_ns, [9_000_000]);
    }

    #[tokio::test]
    async fn passes_the_contract() {
        super::super::contract::all(async || Arc::new(MemoryQuota::new()) as Arc<dyn Quota>).await;
    }
}
