//! One of several agents, by weight.
//!
//! The choice is a function of its inputs alone: the same key always goes to the same agent, in every
//! gateway, while that agent is there. When it is not, its requests (and no others) are dealt out anew.

use sha2::{Digest, Sha256};

/// Chooses among `weights` (number of the agent, weight) by `key`, passing over whom `is_there` does not
/// hold of; none where nobody is there.
pub(super) fn choose(
    weights: &[(usize, u32)],
    key: &[u8],
    is_there: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut left: Vec<(usize, u32)> = weights.iter().copied().filter(|(_, w)| *w > 0).collect();
    let mut draw = Sha256::digest(key);
    while !left.is_empty() {
        let total: u64 = left.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let drawn = u64::from_be_bytes(draw.first_chunk().copied().unwrap_or_default());
        let mut at = drawn.checked_rem(total)?;
        let place = left.iter().position(|(_, weight)| {
            let weight = u64::from(*weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })?;
        let (agent, _) = *left.get(place)?;
        if is_there(agent) {
            return Some(agent);
        }
        left.remove(place);
        draw = Sha256::digest(draw);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[(usize, u32)], is_there: impl Fn(usize) -> bool + Copy) -> Vec<u32> {
        let mut shares = vec![0; weights.len()];
        for number in 0..10_000_u32 {
            if let Some(agent) = choose(weights, &number.to_be_bytes(), is_there) {
                shares[agent] += 1;
            }
        }
        shares
    }

    #[test]
    fn shares_are_as_the_weights() {
        let shares = shares(&[(0, 95), (1, 5), (2, 0)], |_| true);
        assert!((9_350..=9_650).contains(&shares[0]), "{shares:?}");
        assert_eq!(shares[0] + shares[1], 10_000);
    }

    #[test]
    fn only_the_requests_of_whom_is_gone_move() {
        let weights = [(0, 1), (1, 1), (2, 2)];
        for number in 0..1_000_u32 {
            let key = number.to_be_bytes();
            let before = choose(&weights, &key, |_| true).unwrap();
            let after = choose(&weights, &key, |agent| agent != 1).unwrap();
            assert!(before == after || before == 1, "{number}");
            assert_ne!(after, 1);
        }
        assert_eq!(choose(&weights, b"", |_| false), None);
        assert_eq!(choose(&[], b"", |_| true), None);
        assert_eq!(choose(&[(0, 0)], b"", |_| true), None);
    }

    #[test]
    fn large_weights_are_summed() {
        let weights = [(0, u32::MAX), (1, u32::MAX), (2, u32::MAX)];
        let shares = shares(&weights, |_| true);
        assert!(shares.iter().all(|share| *share > 3_000), "{shares:?}");
    }
}
