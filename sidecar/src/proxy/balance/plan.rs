//! Who may be asked, worked out ahead; and the choice between two of them.

use super::endpoint::{Endpoint, Id};
use super::{Counts, Member, Random};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Share that an instance has when its slow start begins; less would leave it unknown for too long.
const FIRST_SHARE: f64 = 0.1;
/// As long as this share of the near instances is well (1 / 1.4), they get all requests, then fewer: the factor by
/// which Envoy lets a locality be overprovisioned.
const OVERPROVISIONED: f64 = 1.4;
/// Response times that differ by less than this factor count as equal. Peaks of equal instances do; without this the
/// one with the latest peak would get nothing, and weights would mean nothing to a service with little to do.
const NOISE: f64 = 2.0;
/// Draws that may be thrown away before the candidates are counted through.
const DRAWS: usize = 8;

/// Who may be asked.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The near ones first.
    candidates: Vec<Candidate>,
    near: usize,
    /// Share of the requests that go to the near ones.
    near_share: f64,
    /// Full weight of the heaviest.
    heaviest: f64,
    /// Whether all have the same full weight.
    even: bool,
    slow_start: Duration,
    /// Until when one of them has less than its full weight.
    warming: Option<Instant>,
    /// When one that is left alone comes back.
    pub(super) stale: Option<Instant>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
struct Candidate {
    endpoint: Arc<Endpoint>,
    weight: f64,
    warming: Option<Instant>,
}

impl Plan {
    pub(super) fn new(members: &[Member], slow_start: Duration) -> Self {
        let well = |m: &&Member| !m.standing.is_out();
        let all = members.len();
        let out = all - members.iter().filter(well).count();
        // Where all are left alone, one of them is still better than none, and any zone as good as another.
        let everyone = out == all;
        let asked = |near: bool| {
            let of = move |m: &&Member| m.near == near && (everyone || !m.standing.is_out());
            members.iter().filter(of)
        };
        let near = if everyone { 0 } else { asked(true).count() };
        let near_all = members.iter().filter(|m| m.near).count();
        let candidates: Vec<_> = asked(true)
            .chain(asked(false))
            .map(|m| Candidate {
                endpoint: Arc::clone(&m.endpoint),
                weight: m.weight,
                warming: m.warming,
            })
            .collect();
        let share = |part: usize, whole: usize| {
            let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
            number(part) / number(whole.max(1))
        };
        let heaviest = candidates.iter().map(|c| c.weight).fold(1.0, f64::max);
        Self {
            near,
            near_share: (share(near, near_all) * OVERPROVISIONED).min(1.0),
            even: candidates.iter().all(|c| c.weight >= heaviest),
            heaviest,
            slow_start,
            warming: candidates
                .iter()
                .filter_map(|c| c.warming)
                .max()
                .map(|since| since + slow_start),
            stale: members.iter().filter_map(|m| m.standing.until()).min(),
            counts: Counts { all, out },
            candidates,
        }
    }

    /// The instance for a request.
    pub(super) fn choose(
        &self,
        exclude: &[Id],
        now: Instant,
        random: &Random,
    ) -> Option<&Arc<Endpoint>> {
        let all = 0..self.candidates.len();
        let group = if self.near == 0 || self.near == all.end {
            all.clone()
        } else if random.unit() < self.near_share {
            0..self.near
        } else {
            self.near..all.end
        };
        // Rather a far one than one that was tried already.
        for (range, exclude) in [(group, exclude), (all.clone(), exclude), (all, &[])] {
            let draw = Draw {
                plan: self,
                range,
                exclude,
                now,
                random,
            };
            if let Some(first) = draw.one(None) {
                let chosen = match draw.one(Some(first)) {
                    Some(second) => self.cheaper(first, second, now),
                    None => first,
                };
                return self.candidates.get(chosen).map(|c| &c.endpoint);
            }
        }
        None
    }

    /// The cheaper of two; the one that was drawn first, and so by its weight, when neither is.
    fn cheaper(&self, first: usize, second: usize, now: Instant) -> usize {
        let (Some(a), Some(b)) = (self.candidates.get(first), self.candidates.get(second)) else {
            return first;
        };
        let (time_a, time_b) = match (a.endpoint.expected(now), b.endpoint.expected(now)) {
            (Some(a), Some(b)) if a.max(b) > a.min(b) * NOISE => (a, b),
            // What is not known yet is not held against anyone.
            _ => (1.0, 1.0),
        };
        // Under way for each share: one with twice the weight may have twice as many.
        let load = |c: &Candidate, weight: f64| {
            1.0 + f64::from(c.endpoint.under_way()) * self.heaviest / weight
        };
        let cost_a = time_a * load(a, self.weight(a, now));
        let cost_b = time_b * load(b, self.weight(b, now));
        if cost_b < cost_a { second } else { first }
    }

    /// Whether all have the same weight at `now`.
    fn is_even(&self, now: Instant) -> bool {
        self.even && self.warming.is_none_or(|until| now >= until)
    }

    /// The weight of a candidate at `now`.
    fn weight(&self, candidate: &Candidate, now: Instant) -> f64 {
        let Some(since) = candidate.warming.filter(|_| !self.slow_start.is_zero()) else {
            return candidate.weight;
        };
        let warm =
            now.saturating_duration_since(since).as_secs_f64() / self.slow_start.as_secs_f64();
        candidate.weight * warm.clamp(FIRST_SHARE, 1.0)
    }
}

/// Draws candidates of a range at random, by weight.
struct Draw<'a> {
    plan: &'a Plan,
    range: Range<usize>,
    exclude: &'a [Id],
    now: Instant,
    random: &'a Random,
}

impl Draw<'_> {
    /// One of them, but not `drawn`; `None` when there is no other.
    fn one(&self, drawn: Option<usize>) -> Option<usize> {
        if self.range.len() <= usize::from(drawn.is_some()) {
            return None;
        }
        let even = self.plan.is_even(self.now);
        for _ in 0..DRAWS {
            let number = self.range.start + self.random.below(self.range.len());
            if let Some(weight) = self.weight(number, drawn)
                && (even || self.random.unit() * self.plan.heaviest < weight)
            {
                return Some(number);
            }
        }
        // Few are left, or light ones among heavy ones.
        let candidates = || {
            let of = |number| Some((number, self.weight(number, drawn)?));
            self.range.clone().filter_map(of)
        };
        let sum: f64 = candidates().map(|(_, weight)| weight).sum();
        let mut left = self.random.unit() * sum;
        let mut last = None;
        for (number, weight) in candidates() {
            last = Some(number);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// The weight of a candidate that may be drawn.
    fn weight(&self, number: usize, drawn: Option<usize>) -> Option<f64> {
        let candidate = self.plan.candidates.get(number)?;
        let may = drawn != Some(number) && !self.exclude.contains(candidate.endpoint.id());
        may.then(|| self.plan.weight(candidate, self.now))
    }
}
