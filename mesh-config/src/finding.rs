//! What is wrong in mesh.yaml: a stable code, the place, the mend.
//!
//! Findings are shown in the manner of a compiler, because that is how people look for a place in a
//! file. A snippet is a line of the file, and a line may hold a secret: [`crate::snippet`] decides what of
//! it is shown, and a report keeps nothing else of the file.

use crate::snippet::{Lines, Snippet, Tokens};
use crate::sources::Sources;
use serde_json::{Value, json};
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

/// A place in a file: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Place {
    /// Which file: 0 for the one that was named, then those that it includes, in their order.
    pub file: u32,
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

    /// What a reader is shown of it in words.
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let always = [&mut self.message, &mut self.path];
        always.into_iter().chain(&mut self.hint)
    }

    /// Shows `written` wherever `value` would be quoted.
    pub(crate) fn hide(&mut self, value: &str, written: &str) {
        // What is shorter stands in any message by chance.
        if value.len() < 3 {
            return;
        }
        // A path is quoted as it is, what a message shows may be blotted or without what moves a cursor.
        for text in self.texts() {
            if text.contains(value) {
                *text = text.replace(value, written);
            }
        }
    }

    /// The same with a mend.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Everything that is wrong in one mesh.yaml and what it includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Name of the file, as the reader knows it.
    pub file: String,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
    /// Names of all files, by [`Place::file`].
    files: Vec<String>,
    /// A line beside each finding, where one may be shown.
    snippets: Vec<Option<Snippet>>,
    /// Errors and warnings beyond [`MOST`].
    left_out: (usize, usize),
}

/// Most findings of one report: nobody reads more at a time, and the file may be something else altogether.
pub const MOST: usize = 500;

impl Report {
    /// Without `tokens` no line is shown: of a text that is no YAML nobody knows what in it is a secret.
    pub(crate) fn new(
        sources: &Sources,
        tokens: Option<&Tokens>,
        mut findings: Vec<Finding>,
    ) -> Self {
        for finding in &mut findings {
            for text in finding.texts() {
                if let Some(shown) = without_credentials(text) {
                    *text = shown;
                }
            }
        }
        findings.sort_by(|a, b| (a.place, a.severity, a.code).cmp(&(b.place, b.severity, b.code)));
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let all = (count(Severity::Error), count(Severity::Warning));
        if findings.len() > MOST {
            // No warning in an error's place.
            findings.sort_by_key(|finding| finding.severity);
            findings.truncate(MOST);
            findings.sort_by_key(|finding| (finding.place, finding.severity));
        }
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let kept = (count(Severity::Error), count(Severity::Warning));
        let mut lines = Lines::of(sources);
        let snippet = |finding: &Finding| tokens?.snippet(&mut lines, finding.place);
        let files: Vec<String> = sources.names().map(str::to_owned).collect();
        Self {
            file: files.first().cloned().unwrap_or_default(),
            snippets: findings.iter().map(snippet).collect(),
            findings,
            files,
            left_out: (all.0 - kept.0, all.1 - kept.1),
        }
    }

    /// Name of the file that a place is in.
    pub fn name(&self, place: Place) -> &str {
        let file = usize::try_from(place.file).ok();
        file.and_then(|file| self.files.get(file))
            .map_or(&self.file, |name| name)
    }

    /// For programs: every finding with its severity, code, file, line, column (from 1; 0 where there is none),
    /// path, message and mend.
    pub fn to_json(&self) -> Value {
        let finding = |f: &Finding| {
            json!({
                "severity": f.severity.as_str(),
                "code": f.code,
                "file": self.name(f.place),
                "line": f.place.line,
                "column": f.place.column,
                "width": f.place.width,
                "path": f.path,
                "message": f.message,
                "mend": f.hint,
            })
        };
        self.findings.iter().map(finding).collect()
    }

    /// Findings that stand in the way.
    pub fn errors(&self) -> usize {
        let error = |f: &&Finding| f.severity == Severity::Error;
        self.findings.iter().filter(error).count() + self.left_out.0
    }

    /// Findings that do not.
    pub fn warnings(&self) -> usize {
        let warning = |f: &&Finding| f.severity == Severity::Warning;
        self.findings.iter().filter(warning).count() + self.left_out.1
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snippets = self.snippets.iter().chain(std::iter::repeat(&None));
        for (finding, snippet) in self.findings.iter().zip(snippets) {
            let Place { line, column, .. } = finding.place;
            let (kind, code) = (finding.severity.as_str(), finding.code);
            // A quoted value can hold what moves a terminal's cursor.
            let message = finding.message.replace(char::is_control, " ");
            writeln!(f, "{kind}[{code}]: {message}")?;
            let margin = line.to_string().len().max(2);
            let space = " ";
            if line == 0 {
                writeln!(f, "{space:margin$}--> {}", self.name(finding.place))?;
            } else {
                let file = self.name(finding.place);
                writeln!(f, "{space:margin$}--> {file}:{line}:{column}")?;
            }
            if let Some(snippet) = snippet {
                let (shown, indent) = (&snippet.line, snippet.indent);
                let marks = "^".repeat(snippet.width);
                writeln!(f, "{space:margin$} |")?;
                writeln!(f, "{line:margin$} | {shown}")?;
                writeln!(f, "{space:margin$} | {:indent$}{marks}", "")?;
            }
            if let Some(hint) = &finding.hint {
                writeln!(f, "{space:margin$} = hint: {hint}")?;
            }
            writeln!(f)?;
        }
        let more = self.left_out.0 + self.left_out.1;
        if more > 0 {
            writeln!(f, "{more} more are left out: mend these first\n")?;
        }
        Ok(())
    }
}

/// A text in which every URL has lost the name and the password of its user; none where there is no such URL.
fn without_credentials(text: &str) -> Option<String> {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after
            .find([' ', '`', '"', '\'', '\n', ','])
            .unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        // A password may hold anything: what stands before the last `@` is not shown.
        match url.rfind('@') {
            Some(user) => {
                shown.push('…');
                shown.push_str(url.get(user..).unwrap_or_default());
            }
            None => shown.push_str(url),
        }
        rest = behind;
    }
    shown.push_str(rest);
    (shown != text).then_some(shown)
}

/// The known name that is meant by `name`, if one is close enough to be a slip of the hand.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|k| {
            let distance = strsim::damerau_levenshtein(&name, &k.replace('_', "-"));
            (distance, k)
        })
        .filter(|(distance, k)| {
            let length = k.chars().count();
            // Of a single letter nothing would be left.
            *distance < length && *distance <= 1 + length / 4
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_users() {
        for (text, shown) in [
            (
                "`amqp://u:p@h:1/x` is no duration",
                "`amqp://…@h:1/x` is no duration",
            ),
            ("a://u:p@h, b://c and d://e@f", "a://…@h, b://c and d://…@f"),
            ("redis://:p@ss/w@h", "redis://…@h"),
        ] {
            assert_eq!(without_credentials(text).as_deref(), Some(shown));
        }
        for text in ["http://a/b", "a@b", "://"] {
            assert_eq!(without_credentials(text), None, "{text}");
        }
    }

    #[test]
    fn a_slip_finds_its_name_and_another_word_does_not() {
        let known = ["listen", "auth", "routes", "queue_kind"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("queuekind", known), Some("queue_kind"));
        assert_eq!(nearest("password", known), None);
    }
}
