//! The choice; pure.
//!
//! An agent is expected to be done with one more step after `service × max(1, (queue + 1) / lanes)`, where lanes are its
//! instances times what each does at once. That, divided by its score, is its cost; the least cost wins. Costs within a
//! tenth of the least are the same: those take turns, so that figures of which one is a little old do not send
//! everything one way.
//!
//! An agent of which nothing is known counts as quick as the quickest, and one that was not heard of for a while comes to
//! do so: that is how it gets the work by which more is learnt.

use mesh_protocol::AgentId;
use mesh_protocol::plan::Why;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// An agent whose score is lower is passed over: two failures in a row of one that never failed, or most of the last.
pub const USABLE: f64 = 0.5;
/// Costs that differ by so much less are the same.
const SAME: f64 = 1.1;
/// After so long without an answer, half of what an agent was slower than the quickest is forgotten.
const FADES: Duration = Duration::from_secs(60);

/// What is known of one who could do it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The agent.
    pub agent: AgentId,
    /// Who consumes its queue; none where the broker was not heard.
    pub consumers: Option<u32>,
    /// Steps that each of them does at once.
    pub concurrency: u16,
    /// Steps before this one.
    pub queue: u64,
    /// What a step takes, in milliseconds, where one was measured.
    pub service: Option<f64>,
    /// How long ago that was.
    pub quiet: Duration,
    /// How well its last steps went, 0 to 1.
    pub score: f64,
}

impl Known {
    fn is_usable(&self) -> bool {
        self.consumers != Some(0) && self.score >= USABLE
    }

    /// How many turns of its lanes pass until one more step is done.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn turns(&self) -> f64 {
        let lanes =
            u64::from(self.consumers.unwrap_or(1).max(1)) * u64::from(self.concurrency.max(1));
        (self.queue.saturating_add(1) as f64 / lanes as f64).max(1.0)
    }
}

/// Who was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its place among those who could.
    pub place: usize,
    /// Why.
    pub why: Why,
    /// When each would be done, in milliseconds from now; none where nothing at all is known.
    pub expected: Vec<Option<f64>>,
    /// What was compared.
    pub costs: Vec<f64>,
}

/// Chooses one of `able`; `None` when there is none. `turn` counts choices, so that equals take turns.
pub fn choose(able: &[Known], sticky: Option<&str>, turn: u64) -> Option<Choice> {
    let quickest = able.iter().filter_map(|k| k.service).reduce(f64::min);
    let expected: Vec<Option<f64>> = able
        .iter()
        .map(|k| Some(service(k, quickest?) * k.turns()))
        .collect();
    let costs: Vec<f64> = able
        .iter()
        .zip(&expected)
        .map(|(known, expected)| {
            // While nothing is known, the shortest queue.
            let base = expected.map_or_else(|| queue_cost(known), |ms| ms.max(0.001));
            base / known.score.max(0.01)
        })
        .collect();
    let (place, why) = match sticky {
        _ if able.len() == 1 => (0, Why::Only),
        Some(key) => stick(able, key)?,
        None => least(able, &costs, turn)?,
    };
    Some(Choice {
        place,
        why,
        expected,
        costs,
    })
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn queue_cost(known: &Known) -> f64 {
    known.queue.saturating_add(1) as f64 / f64::from(known.consumers.unwrap_or(1).max(1))
}

fn service(known: &Known, quickest: f64) -> f64 {
    let Some(measured) = known.service else {
        return quickest;
    };
    let kept = 0.5_f64.powf(known.quiet.as_secs_f64() / FADES.as_secs_f64());
    quickest + (measured - quickest) * kept
}

fn least(able: &[Known], costs: &[f64], turn: u64) -> Option<(usize, Why)> {
    let pool: Vec<usize> = (0..able.len()).filter(|&p| able[p].is_usable()).collect();
    let none_usable = pool.is_empty();
    let pool = if none_usable {
        (0..able.len()).collect()
    } else {
        pool
    };
    let best = pool.iter().map(|&p| costs[p]).reduce(f64::min)?;
    let same: Vec<usize> = pool
        .into_iter()
        .filter(|&p| costs[p] <= best * SAME)
        .collect();
    let place = *same.get(usize::try_from(turn).unwrap_or(0) % same.len().max(1))?;
    let why = match (none_usable, same.len()) {
        (true, _) => Why::NoneUsable,
        (false, 1) => Why::Soonest,
        (false, _) => Why::Turn,
    };
    Some((place, why))
}

/// Rendezvous hashing: each key has an order of the agents, and an agent that comes or goes moves only the keys that are
/// its own.
fn stick(able: &[Known], key: &str) -> Option<(usize, Why)> {
    let mut order: Vec<usize> = (0..able.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(weight(key, &able[place].agent)));
    let first = *order.first()?;
    match order.into_iter().find(|&place| able[place].is_usable()) {
        None => Some((first, Why::NoneUsable)),
        Some(place) if place == first => Some((place, Why::Sticky)),
        Some(place) => Some((place, Why::StickyFallback)),
    }
}

fn weight(key: &str, agent: &AgentId) -> [u8; 32] {
    let mut hash = Sha256::new();
    // An id has no zero byte, so no two pairs are the same text.
    hash.update(agent.as_str());
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
