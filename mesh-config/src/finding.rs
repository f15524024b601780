//! What is wrong in mesh.yaml: a stable code, the place, the mend.
//!
//! Findings are shown in the manner of a compiler, because that is how people look for a place in a
//! file. A snippet is a line of the file, and a line may hold a secret: [`masked`] blots it out.

use std::fmt;

/// Whether a finding stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and probably does not mean what it says.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in the file: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Place {
    /// Line, from 1; 0 where there is none.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters that are meant, at least one.
    pub width: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// Stable word for programs, such as `unknown_key`.
    pub code: &'static str,
    /// The field, as a path such as `agents[2].endpoint`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub hint: Option<String>,
    /// Where.
    pub place: Place,
}

impl Finding {
    /// An error at `place`.
    pub fn error(
        code: &'static str,
        place: Place,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            path: path.into(),
            message: message.into(),
            hint: None,
            place,
        }
    }

    /// A warning at `place`.
    pub fn warning(
        code: &'static str,
        place: Place,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, path, message)
        }
    }

    /// The same with a mend.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Everything that is wrong in one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Name of the file, as the reader knows it.
    pub file: String,
    /// Its text, for the snippets.
    text: String,
    /// What is wrong, in the order of the file.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(file: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (a.place, a.severity, a.code).cmp(&(b.place, b.severity, b.code)));
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            findings,
        }
    }

    /// Findings that stand in the way.
    pub fn errors(&self) -> usize {
        let error = |f: &&Finding| f.severity == Severity::Error;
        self.findings.iter().filter(error).count()
    }

    /// Findings that do not.
    pub fn warnings(&self) -> usize {
        self.findings.len() - self.errors()
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Place {
                line,
                column,
                width,
            } = finding.place;
            let (kind, code) = (finding.severity.as_str(), finding.code);
            writeln!(f, "{kind}[{code}]: {}", finding.message)?;
            let margin = line.to_string().len().max(2);
            let space = " ";
            if line == 0 {
                writeln!(f, "{space:margin$}--> {}", self.file)?;
            } else {
                writeln!(f, "{space:margin$}--> {}:{line}:{column}", self.file)?;
                if let Some(text) = self.text.lines().nth(line - 1) {
                    let shown = masked(text, finding);
                    let marks = "^".repeat(width.max(1));
                    let indent = column.saturating_sub(1);
                    writeln!(f, "{space:margin$} |")?;
                    writeln!(f, "{line:margin$} | {shown}")?;
                    writeln!(f, "{space:margin$} | {:indent$}{marks}", "")?;
                }
            }
            if let Some(hint) = &finding.hint {
                writeln!(f, "{space:margin$} = hint: {hint}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The line with everything blotted out that could be a secret.
///
/// An unknown key may be a misspelt `secret`, so its value is left out whatever it is called.
fn masked(line: &str, finding: &Finding) -> String {
    const LONGEST: usize = 160;
    let end = finding.place.column.saturating_sub(1) + finding.place.width;
    if matches!(finding.code, "unknown_key" | "duplicate_key") {
        let key: String = line.chars().take(end).collect();
        return format!("{key}: …");
    }
    let lower = line.to_ascii_lowercase();
    let secret = ["secret", "password", "private", "token", "signing"]
        .iter()
        .filter_map(|word| lower.find(word))
        .filter_map(|at| line.get(at..)?.find(':').map(|colon| at + colon + 1))
        .min();
    let credentials = lower
        .find("://")
        .filter(|at| lower.get(*at..).is_some_and(|rest| rest.contains('@')))
        .map(|at| at + 3);
    let cut = secret.into_iter().chain(credentials).min();
    let shown: String = match cut.and_then(|at| line.get(..at)) {
        Some(kept) => format!("{kept} …"),
        None => line.to_owned(),
    };
    if shown.chars().count() > LONGEST {
        shown.chars().take(LONGEST).chain(['…']).collect()
    } else {
        shown
    }
}

/// The known name that is meant by `name`, if one is close enough to be a slip of the hand.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|k| {
            let distance = strsim::damerau_levenshtein(&name, &k.replace('_', "-"));
            (distance, k)
        })
        .filter(|(distance, k)| *distance <= 1 + k.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_does_not() {
        let known = ["listen", "auth", "routes", "queue_kind"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("queuekind", known), Some("queue_kind"));
        assert_eq!(nearest("password", known), None);
    }

    #[test]
    fn a_snippet_shows_no_secret() {
        let at = |code, column, width| {
            let place = Place {
                line: 1,
                column,
                width,
            };
            Finding::error(code, place, "", "")
        };
        let shown = [
            masked("secert: hunter2", &at("unknown_key", 1, 6)),
            masked("- {id: a, secret: hunter2}", &at("wrong_type", 3, 5)),
            masked("url: amqp://user:hunter2@h/", &at("invalid_url", 6, 5)),
            masked("Secret: 'hunter2, x'", &at("too_short", 9, 5)),
        ];
        for line in shown {
            assert!(!line.contains("hunter2"), "{line}");
        }
    }
}
