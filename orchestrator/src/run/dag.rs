//! A checked graph of steps: indices in the order of the plan, no cycle, transitive questions answered.
//!
//! Plain adjacency lists rather than a graph crate: a plan has at most some hundred steps, and the
//! three questions asked of it (who waits for whom, who comes after, how wide is it) are short.

use std::collections::VecDeque;

/// A directed graph without cycles. Steps are numbered in the order of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag {
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    order: Vec<usize>,
}

/// Why edges are no DAG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// These steps wait for each other, or for steps that do.
    #[error("steps {0:?} wait for each other")]
    Cycle(Vec<usize>),
    /// An edge names a step that is not there.
    #[error("step {0} does not exist")]
    NoStep(usize),
}

impl Dag {
    /// A graph from the predecessors of each step; a predecessor named twice counts once.
    ///
    /// # Errors
    /// The steps on and behind a cycle, or an index out of range.
    pub fn new(mut before: Vec<Vec<usize>>) -> Result<Self, DagError> {
        let count = before.len();
        let mut after = vec![Vec::new(); count];
        for (step, predecessors) in before.iter_mut().enumerate() {
            predecessors.sort_unstable();
            predecessors.dedup();
            for &predecessor in predecessors.iter() {
                after
                    .get_mut(predecessor)
                    .ok_or(DagError::NoStep(predecessor))?
                    .push(step);
            }
        }
        let mut waits: Vec<usize> = before.iter().map(Vec::len).collect();
        let mut ready: VecDeque<usize> = (0..count).filter(|&s| before[s].is_empty()).collect();
        let mut order = Vec::with_capacity(count);
        while let Some(step) = ready.pop_front() {
            order.push(step);
            for &next in &after[step] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.push_back(next);
                }
            }
        }
        if order.len() < count {
            let stuck = (0..count).filter(|&s| waits[s] > 0).collect();
            return Err(DagError::Cycle(stuck));
        }
        Ok(Self {
            before,
            after,
            order,
        })
    }

    /// The steps in an order in which nobody comes before whom it waits for.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.before.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// The steps that `step` waits for.
    pub fn before(&self, step: usize) -> &[usize] {
        self.before.get(step).map_or(&[], Vec::as_slice)
    }

    /// The steps that wait for `step`.
    pub fn after(&self, step: usize) -> &[usize] {
        self.after.get(step).map_or(&[], Vec::as_slice)
    }

    /// The steps that nobody waits for: their results are the task's.
    pub fn last(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|&s| self.after(s).is_empty())
    }

    /// Most steps that can run at the same time: the largest set of which none waits for another.
    ///
    /// By Dilworth's theorem that is the number of steps less a largest matching in the transitive
    /// closure. Levels would be cheaper and too small: a step of a late level may run beside one of
    /// an early level.
    pub fn width(&self) -> usize {
        let count = self.len();
        // reach[s]: every step that comes after s.
        let mut reach = vec![vec![false; count]; count];
        for &step in self.order.iter().rev() {
            let mut row = vec![false; count];
            for &next in self.after(step) {
                row[next] = true;
                for (mine, theirs) in row.iter_mut().zip(&reach[next]) {
                    *mine |= *theirs;
                }
            }
            reach[step] = row;
        }
        let mut matched: Vec<Option<usize>> = vec![None; count];
        let pairs = (0..count)
            .filter(|&step| augment(step, &reach, &mut matched, &mut vec![false; count]))
            .count();
        count - pairs
    }
}

// Kuhn's algorithm. The depth is bounded by the number of steps, which the planner bounds.
fn augment(
    step: usize,
    reach: &[Vec<bool>],
    matched: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for next in 0..matched.len() {
        if !reach[step][next] || seen[next] {
            continue;
        }
        seen[next] = true;
        let free = match matched[next] {
            None => true,
            Some(holder) => augment(holder, reach, matched, seen),
        };
        if free {
            matched[next] = Some(step);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_ends() {
        let dag = Dag::new(vec![vec![], vec![0], vec![0, 0], vec![1, 2]]).unwrap();
        assert_eq!(dag.before(3), [1, 2]);
        assert_eq!(dag.after(0), [1, 2]);
        assert_eq!(dag.last().collect::<Vec<_>>(), [3]);
        assert_eq!(dag.width(), 2);
    }

    #[test]
    fn a_cycle_names_its_steps() {
        assert_eq!(
            Dag::new(vec![vec![], vec![2], vec![1]]),
            Err(DagError::Cycle(vec![1, 2]))
        );
        assert_eq!(Dag::new(vec![vec![0]]), Err(DagError::Cycle(vec![0])));
        assert_eq!(Dag::new(vec![vec![7]]), Err(DagError::NoStep(7)));
    }

    #[test]
    fn width_is_the_largest_antichain_not_the_widest_level() {
        // 0 -> 1 -> 2 beside 3 -> {4, 5}: levels hold {0, 3}, {1, 4, 5}, {2}; 2, 4 and 5 or 1, 4 and 5.
        let dag = Dag::new(vec![vec![], vec![0], vec![1], vec![], vec![3], vec![3]]).unwrap();
        assert_eq!(dag.width(), 3);
        // 0 -> {1, 2}, 1 -> 3 -> {4, 5}: 2, 4 and 5 can run together, no level holds three.
        let dag = Dag::new(vec![vec![], vec![0], vec![0], vec![1], vec![3], vec![3]]).unwrap();
        assert_eq!(dag.width(), 3);
        assert_eq!(Dag::new(vec![]).unwrap().width(), 0);
    }

    #[test]
    fn a_hundred_steps_ten_wide() {
        let before = (0..100usize)
            .map(|s| {
                if s < 10 {
                    vec![]
                } else {
                    (s / 10 * 10 - 10..s / 10 * 10).collect()
                }
            })
            .collect();
        assert_eq!(Dag::new(before).unwrap().width(), 10);
    }
}
