//! When what goes wrong: each fault in turn, then pairs by chance, until the load is over.

use crate::fault::Fault;
use fastrand::Rng;
use std::collections::VecDeque;
use std::time::Duration;

/// Faults that happen at the same time, how long, and how long it is quiet afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// One or two.
    pub faults: Vec<Fault>,
    /// How long they last.
    pub lasts: Duration,
    /// Quiet until the next.
    pub quiet: Duration,
}

/// The acts, without an end.
#[derive(Debug)]
pub struct Schedule {
    first: VecDeque<Fault>,
    faults: Vec<Fault>,
    chance: Rng,
}

impl Schedule {
    /// All of `faults` in turn, then pairs, by a chance that begins with `seed`.
    pub fn new(faults: Vec<Fault>, seed: u64) -> Self {
        Self {
            first: faults.clone().into(),
            faults,
            chance: Rng::with_seed(seed),
        }
    }

    fn pair(&mut self) -> Vec<Fault> {
        let Some(&one) = self.chance.choice(&self.faults) else {
            return Vec::new();
        };
        let others = self.faults.iter().filter(|f| f.part() != one.part());
        let others: Vec<Fault> = others.copied().collect();
        let other = self.chance.choice(others);
        std::iter::once(one).chain(other).collect()
    }
}

impl Iterator for Schedule {
    type Item = Act;

    fn next(&mut self) -> Option<Act> {
        let faults = match self.first.pop_front() {
            Some(fault) => vec![fault],
            None => self.pair(),
        };
        Some(Act {
            faults,
            lasts: Duration::from_millis(self.chance.u64(2_000..4_000)),
            quiet: Duration::from_millis(self.chance.u64(1_000..4_000)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_alone_then_pairs_of_different_parts() {
        let mut schedule = Schedule::new(Fault::ALL.to_vec(), 7);
        for fault in Fault::ALL {
            assert_eq!(schedule.next().unwrap().faults, [fault]);
        }
        for act in schedule.take(500) {
            let [one, other] = act.faults.as_slice() else {
                panic!("{act:?}");
            };
            assert_ne!(one.part(), other.part());
        }
    }

    #[test]
    fn the_same_seed_is_the_same_play() {
        let play = |seed| {
            Schedule::new(Fault::ALL.to_vec(), seed)
                .take(100)
                .collect::<Vec<_>>()
        };
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
    }
}
