//! One row of the table.

use serde::{Deserialize, Serialize};

/// One measurement, as it stands in `target/bench.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name, as `--only` takes it.
    pub name: String,
    /// Unit of `ours` and `peer`.
    pub unit: String,
    /// Our figure: the median of the rounds.
    pub ours: f64,
    /// The peer's figure: the median of the same rounds.
    pub peer: Option<f64>,
    /// Who the peer is.
    pub peer_name: Option<String>,
    /// Ours by the peer's; the median of the rounds' own ratios.
    pub ratio: Option<f64>,
    /// What is wanted, in words: `ratio >= 0.90`, `<= 5`.
    pub goal: Option<String>,
    /// Whether it was reached; absent without a goal.
    pub holds: Option<bool>,
    /// What else was seen: every round, tails, processor time.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Figures behind the row, the heads of their columns first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub table: Vec<Vec<String>>,
    /// When, in UTC.
    #[serde(default)]
    pub measured: String,
}

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Our figure is at most this.
    AtMost(f64),
    /// Our figure by the peer's is at least this.
    RatioAtLeast(f64),
    /// Our figure by the peer's is at most this.
    RatioAtMost(f64),
}

impl Row {
    /// A row without a peer.
    pub fn alone(name: &str, unit: &str, rounds: &[f64]) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            ours: crate::median(rounds),
            peer: None,
            peer_name: None,
            ratio: None,
            goal: None,
            holds: None,
            notes: vec![format!("rounds: {}", list(rounds))],
            table: Vec::new(),
            measured: crate::machine::now(),
        }
    }

    /// A row beside a peer; `rounds` holds ours and the peer's of each round.
    pub fn beside(name: &str, unit: &str, peer_name: &str, rounds: &[(f64, f64)]) -> Self {
        let (ours, peers): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
        let ratios: Vec<f64> = rounds.iter().map(|(ours, peer)| ours / peer).collect();
        let mut row = Self::alone(name, unit, &ours);
        row.peer = Some(crate::median(&peers));
        row.peer_name = Some(peer_name.to_owned());
        row.ratio = Some(crate::median(&ratios));
        row.notes.push(format!("peer's rounds: {}", list(&peers)));
        row.notes.push(format!("ratios: {}", list(&ratios)));
        row
    }

    /// The same with a goal, judged.
    #[must_use]
    pub fn with_goal(mut self, goal: Goal) -> Self {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        let (text, holds) = match goal {
            Goal::AtMost(most) => (format!("<= {most}"), self.ours <= most),
            Goal::RatioAtLeast(least) => (format!("ratio >= {least}"), ratio >= least),
            Goal::RatioAtMost(most) => (format!("ratio <= {most}"), ratio <= most),
        };
        self.goal = Some(text);
        self.holds = Some(holds);
        self
    }

    /// The same with figures behind it, the heads of their columns first.
    #[must_use]
    pub fn with_table(mut self, table: Vec<Vec<String>>) -> Self {
        self.table = table;
        self
    }

    /// The same with one more thing said.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// A figure with as many digits as it can bear.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn list(values: &[f64]) -> String {
    values
        .iter()
        .map(|v| figure(*v))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_what_it_names() {
        let beside = Row::beside(
            "a",
            "x/s",
            "peer",
            &[(9.0, 10.0), (8.0, 10.0), (10.0, 10.0)],
        );
        assert_eq!(beside.ratio, Some(0.9));
        assert_eq!(
            beside.clone().with_goal(Goal::RatioAtLeast(0.9)).holds,
            Some(true)
        );
        assert_eq!(
            beside.with_goal(Goal::RatioAtLeast(0.95)).holds,
            Some(false)
        );
        let alone = Row::alone("b", "ms", &[4.0, 6.0, 5.0]);
        assert_eq!(alone.clone().with_goal(Goal::AtMost(5.0)).holds, Some(true));
        assert_eq!(
            alone.clone().with_goal(Goal::AtMost(4.9)).holds,
            Some(false)
        );
        // What was not measured is never reached.
        assert_eq!(alone.with_goal(Goal::RatioAtMost(1.1)).holds, Some(false));
    }

    #[test]
    fn figures() {
        assert_eq!(figure(17_755.4), "17755");
        assert_eq!(figure(11.94), "11.9");
        assert_eq!(figure(0.904), "0.90");
    }
}
