//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;

/// One thing that was not as expected.
#[derive(Debug)]
pub struct Failure {
    /// File and name of the case, and the step where there are several.
    pub case: String,
    /// Who was asked.
    pub gateway: &'static str,
    /// In which way it was not.
    pub found: Vec<String>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases by their directory.
    pub cases: BTreeMap<String, usize>,
    /// Cases that each gateway was asked, and the requests that it took.
    pub asked: BTreeMap<&'static str, (usize, usize)>,
    /// Cases in which a gateway answers otherwise by itself: gateway, case, reason.
    pub differing: Vec<(&'static str, String, String)>,
    /// What was not as expected.
    pub failures: Vec<Failure>,
}

impl Report {
    /// How many cases there are.
    pub fn total(&self) -> usize {
        self.cases.values().sum()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (name, (cases, requests)) in other.asked {
            let asked = self.asked.entry(name).or_default();
            asked.0 += cases;
            asked.1 += requests;
        }
        self.differing.extend(other.differing);
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{}: {}", failure.gateway, failure.case)?;
            for found in &failure.found {
                writeln!(f, "    {found}")?;
            }
        }
        let mut differing: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (gateway, case, reason) in &self.differing {
            differing.entry((gateway, reason)).or_default().push(case);
        }
        for ((gateway, reason), cases) in differing {
            let others = cases.len() - 1;
            write!(
                f,
                "{gateway} is different by itself: {reason} ({}",
                cases[0]
            )?;
            match others {
                0 => writeln!(f, ")")?,
                _ => writeln!(f, " and {others} more)")?,
            }
        }
        let list = |parts: Vec<String>| parts.join(", ");
        let cases = self.cases.iter().map(|(name, n)| format!("{name} {n}"));
        let asked = self
            .asked
            .iter()
            .map(|(name, (cases, requests))| format!("{name} {cases} ({requests} requests)"));
        write!(
            f,
            "verdicts: {} cases ({}); asked: {}; {} differences",
            self.total(),
            list(cases.collect()),
            list(asked.collect()),
            self.failures.len()
        )
    }
}
