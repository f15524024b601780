//! What was looked at, and how it is shown.

use crate::screen::{Paint, Screen, plain};
use serde::Serialize;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pass,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub state: State,
    /// Stable word for programs; none for what is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub fn pass(what: impl Into<String>) -> Self {
        Self {
            state: State::Pass,
            code: None,
            what: what.into(),
            mend: None,
        }
    }

    pub fn warn(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            state: State::Warn,
            code: Some(code),
            what: what.into(),
            mend: None,
        }
    }

    pub fn fail(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            state: State::Fail,
            ..Self::warn(code, what)
        }
    }

    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// Findings about one part of what the mesh rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    pub name: &'static str,
    pub findings: Vec<Finding>,
}

impl Group {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            findings: Vec::new(),
        }
    }

    pub fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    #[must_use]
    pub fn with(mut self, finding: Finding) -> Self {
        self.push(finding);
        self
    }

    /// With a mend for everything that is wrong: where a finding has none of its own, what `mesh explain` says of its
    /// code.
    #[must_use]
    pub fn with_mends(mut self) -> Self {
        for finding in &mut self.findings {
            if let (Some(code), None) = (finding.code, &finding.mend) {
                finding.mend = crate::explain::mend(code);
            }
        }
        self
    }

    pub fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|f| f.state == state).count()
    }

    pub fn fails(&self) -> bool {
        self.count(State::Fail) > 0
    }

    pub fn shown(&self, screen: &Screen) -> String {
        let mut lines = vec![screen.paint(Paint::Bold, self.name)];
        for finding in &self.findings {
            let mark = match finding.state {
                State::Pass => screen.paint(Paint::Good, "√"),
                State::Warn => screen.paint(Paint::Odd, "‼"),
                State::Fail => screen.paint(Paint::Bad, "×"),
            };
            let code = finding.code.map(|code| format!(" [{code}]"));
            let what = plain(&finding.what);
            lines.push(format!("  {mark} {what}{}", code.unwrap_or_default()));
            let mend = finding.mend.iter();
            lines.extend(mend.map(|mend| format!("      {}", plain(mend))));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
