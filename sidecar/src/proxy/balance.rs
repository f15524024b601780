//! Which instance gets the next request.
//!
//! Power of two choices (Mitzenmacher, 2001) by peak EWMA, as Finagle's `PeakEwma` has it and linkerd2-proxy and
//! tower after it: of two instances at random the one with the lower cost, which is its requests under way times the
//! peak of its response times, fading. What is added, and why tower's own is not used, is in
//! `docs/decisions/balancing.md`: weights, slow start, zones, ejection.
//!
//! ```text
//!  update(instances) ─┐
//!  ejected, returned ─┴─▶ members (locked, rarely) ──▶ plan (swapped) ◀── pick, for every request
//!                                                                            │
//!                              endpoint: under way, response times ◀── Picked: answered, dropped
//! ```
//!
//! All that follows from membership and standing is worked out when these change. A pick reads the plan, draws two
//! and compares them: it allocates nothing and takes no lock but those of two response times.

mod endpoint;
mod plan;

pub(crate) use endpoint::{Id, Picked};

use super::outlier::{Standing, most_out};
use crate::config;
use crate::registry::Instance;
use arc_swap::{ArcSwap, Guard};
use endpoint::Endpoint;
use plan::Plan;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Chooses among the instances of one service; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Balancer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: Arc<Rules>,
    zone: Option<String>,
    members: Mutex<Vec<Member>>,
    plan: ArcSwap<Plan>,
    random: Random,
}

/// What each endpoint needs too, in the form in which it is used for every request.
#[derive(Debug)]
struct Rules {
    /// In which a response time fades to a third, in seconds.
    decay: f64,
    slow_start: Duration,
    prefer_local: bool,
    outlier: config::Outlier,
    /// A failed try counts as no longer than this, in seconds.
    longest: f64,
}

/// An instance as it stands.
#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    weight: f64,
    near: bool,
    /// Since when it has been getting a growing share; `None` for one that has its full share from the start.
    warming: Option<Instant>,
    standing: Standing,
}

/// What happened to an instance, for log and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is left alone.
    Ejected {
        /// The instance.
        id: Id,
        /// For how long.
        length: Duration,
    },
    /// It answered while it was left alone, and is asked again.
    Returned {
        /// The instance.
        id: Id,
    },
}

/// How many instances there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that the registry names.
    pub(crate) all: usize,
    /// Of these, those that are left alone.
    pub(crate) out: usize,
}

impl Balancer {
    /// A balancer without instances, for a sidecar in `zone`.
    pub(crate) fn new(settings: &config::Settings, zone: Option<String>) -> Self {
        // The standard library's way to a random number without an error.
        Self::seeded(settings, zone, RandomState::new().hash_one(0))
    }

    /// The same with chosen randomness.
    pub(crate) fn seeded(settings: &config::Settings, zone: Option<String>, seed: u64) -> Self {
        let rules = Rules {
            decay: Duration::from_millis(settings.balance.decay_ms.max(1)).as_secs_f64(),
            slow_start: Duration::from_millis(settings.balance.slow_start_ms),
            prefer_local: settings.balance.prefer_local,
            outlier: settings.outlier.clone(),
            longest: Duration::from_millis(settings.response_timeout_ms).as_secs_f64(),
        };
        Self(Arc::new(Shared {
            rules: Arc::new(rules),
            zone,
            members: Mutex::default(),
            plan: ArcSwap::default(),
            random: Random(AtomicU64::new(seed)),
        }))
    }

    /// Takes over what the registry names. An instance whose id and address stay keeps what was measured of it.
    pub(crate) fn update(&self, instances: &[Instance], now: Instant) {
        let shared = &self.0;
        let mut members = shared.members();
        // Nobody is there to leave the load to while the first ones warm up.
        let warming = (!members.is_empty()).then_some(now);
        let mut before: HashMap<_, _> = members
            .drain(..)
            .map(|m| ((m.endpoint.id().clone(), m.endpoint.address()), m))
            .collect();
        for instance in instances {
            let key = (Id::from(instance.id.as_str()), instance.address);
            let (id, address) = key.clone();
            let mut member = before.remove(&key).unwrap_or_else(|| Member {
                endpoint: Arc::new(Endpoint::new(id, address, shared)),
                weight: 1.0,
                near: false,
                warming,
                standing: Standing::new(now),
            });
            member.weight = f64::from(instance.weight.max(1));
            member.near =
                shared.rules.prefer_local && shared.zone.is_some() && shared.zone == instance.zone;
            members.push(member);
        }
        shared.plan_anew(&members);
    }

    /// The instance for a request: one that is not in `exclude` (it was tried already) unless there is no other, and
    /// not left alone unless all are. `None` when the service has no instance.
    pub(crate) fn pick(&self, exclude: &[Id], now: Instant) -> Option<Picked> {
        let shared = &self.0;
        let plan = shared.plan(now);
        let endpoint = plan.choose(exclude, now, &shared.random)?;
        Some(Picked::new(Arc::clone(endpoint), now))
    }

    /// How many instances there are at `now`.
    pub(crate) fn counts(&self, now: Instant) -> Counts {
        self.0.plan(now).counts
    }
}

impl Shared {
    // Every change leaves the members whole.
    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan of this moment.
    fn plan(&self, now: Instant) -> Guard<Arc<Plan>> {
        let plan = self.plan.load();
        if plan.stale.is_none_or(|at| now < at) {
            return plan;
        }
        drop(plan);
        let mut members = self.members();
        for member in members.iter_mut() {
            if let Some(at) = member.standing.end(now) {
                // One failure is enough now: nothing shows yet that it is well.
                let left = self.rules.outlier.consecutive_failures.saturating_sub(1);
                member.endpoint.back(left);
                member.warming = Some(at);
            }
        }
        self.plan_anew(&members);
        drop(members);
        self.plan.load()
    }

    fn plan_anew(&self, members: &[Member]) {
        let plan = Plan::new(members, self.rules.slow_start);
        self.plan.store(Arc::new(plan));
    }

    /// A try at `endpoint` that was begun at `begun` failed, and others before it did.
    fn failed(&self, endpoint: &Arc<Endpoint>, begun: Instant, now: Instant) -> Option<Event> {
        let mut members = self.members();
        let out = members.iter().filter(|m| m.standing.is_out()).count();
        if out >= most_out(members.len(), self.rules.outlier.max_ejected_percent) {
            return None;
        }
        let member = find(&mut members, endpoint)?;
        let length = member.standing.eject(&self.rules.outlier, begun, now)?;
        endpoint.leave_alone();
        self.plan_anew(&members);
        let id = endpoint.id().clone();
        Some(Event::Ejected { id, length })
    }

    /// `endpoint`, which was left alone, answered a try that was begun at `begun`.
    fn answered(&self, endpoint: &Arc<Endpoint>, begun: Instant, now: Instant) -> Option<Event> {
        let mut members = self.members();
        let member = find(&mut members, endpoint)?;
        if !member.standing.answered(begun, now) {
            return None;
        }
        endpoint.back(0);
        member.warming = Some(now);
        self.plan_anew(&members);
        let id = endpoint.id().clone();
        Some(Event::Returned { id })
    }
}

fn find<'a>(members: &'a mut [Member], endpoint: &Arc<Endpoint>) -> Option<&'a mut Member> {
    members
        .iter_mut()
        .find(|m| Arc::ptr_eq(&m.endpoint, endpoint))
}

/// Random numbers that threads draw without a lock, and that a test can choose: SplitMix64 (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014). Nobody gains by guessing them.
#[derive(Debug)]
struct Random(AtomicU64);

impl Random {
    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .0
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    fn below(&self, bound: usize) -> usize {
        // Multiplied and shifted (Lemire, 2019); the bias is below 2⁻⁵⁰ for any number of instances.
        let wide = u128::from(self.next()) * u128::try_from(bound).unwrap_or(0);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from 0 up to, not including, 1.
    fn unit(&self) -> f64 {
        const STEPS: u32 = 1 << 31;
        let step = u32::try_from(self.next() >> 33).unwrap_or(0);
        f64::from(step) / f64::from(STEPS)
    }
}

#[cfg(test)]
mod tests;
