//! Side-by-side measurements, one table out.
//!
//! Every figure of ours is taken from the real binaries in processes of their own, next to a peer that
//! does the same work under the same conditions, in turns (A B A B …), so that what else happens on the
//! machine hits both. A row is the median of its rounds. A goal that is missed is printed as missed; it
//! never fails the run, since a time on one machine proves nothing on another.
//!
//! The one binary also plays the small parts around a measurement, each in a process of its own: the
//! agent, the model, the bare loop (see [`parts`]).

pub mod certificates;
pub mod chain;
pub mod consul;
pub mod gateways;
pub mod lane;
pub mod load;
pub mod machine;
pub mod mesh;
pub mod nginx;
pub mod pairs;
pub mod parts;
pub mod process;
pub mod python;
pub mod report;
pub mod row;
pub mod rows;
pub mod servers;
pub mod tls;
pub mod wrk;

/// The middle of `values`; the mean of the two middle ones where their number is even.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = sorted
        .get((sorted.len() / 2).saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

/// The value below which `share` (0.0 to 1.0) of `values` lie.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    // A share of a length below 2^52 is exact enough, and never negative.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index.min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_tail() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
