//! From a file, or a text, to the checked mesh or everything that is wrong with it.

use super::{build, follow};
use crate::checks;
use crate::finding::{Finding, Place, Report, Severity};
use crate::load::{self, Directory, Loaded, Options};
use crate::mesh::Mesh;
use crate::schema;
use crate::schema::tree::{MAX_BYTES, too_large};
use crate::sources::Sources;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File as Open;
use std::io::{self, Read};
use std::path::Path;

/// A mesh that can be used, and what is odd about its file.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The checked mesh.
    pub mesh: Mesh,
    /// Warnings only.
    pub warnings: Report,
}

/// Checks a mesh.yaml with all that it includes.
///
/// # Errors
/// What the system said about the file itself; within, everything that is wrong, with file, line, column and mend.
pub fn compile_file(file: &Path, options: &Options<'_>) -> io::Result<Result<Compiled, Report>> {
    // One byte more than is allowed says that there is more, whatever the file's end is.
    let most = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    Open::open(file)?.take(most).read_to_end(&mut bytes)?;
    Ok(compile_read(file, bytes, options))
}

/// The same for a file that was read already, up to one byte more than [`MAX_BYTES`].
///
/// # Errors
/// Everything that is wrong, with file, line, column and mend.
pub fn compile_read(
    file: &Path,
    bytes: Vec<u8>,
    options: &Options<'_>,
) -> Result<Compiled, Report> {
    let name = file.display().to_string();
    let text = text(&name, bytes)?;
    // What comes from no directory, such as the standard input, can include nothing.
    let directory = Directory::of(file, options.outside).ok();
    checked(load::load(&name, text, directory.as_ref(), options))
}

/// Checks the text of a mesh.yaml, which can include no file and knows no variables; `file` is its name in messages.
///
/// # Errors
/// Everything that is wrong, with line, column and mend; warnings among it.
pub fn compile(file: &str, text: &str) -> Result<Compiled, Report> {
    checked(load::load(file, text.to_owned(), None, &Options::default()))
}

/// The same for a file as it was read: bytes that are no text have a place too.
///
/// # Errors
/// As [`compile`].
pub fn compile_bytes(file: &str, bytes: &[u8]) -> Result<Compiled, Report> {
    compile(file, &text(file, bytes.to_owned())?)
}

/// Codes of what is wrong because something is not there.
const ABSENCES: [&str; 9] = [
    "missing",
    "no_agents",
    "no_general_agent",
    "no_router",
    "unknown_agent",
    "unknown_consumer",
    "unknown_resource",
    "unknown_service",
    "unreachable_agent",
];

fn checked(mut loaded: Loaded) -> Result<Compiled, Report> {
    let raw = schema::read(&loaded);
    let mut findings = std::mem::take(&mut loaded.findings);
    findings.extend(raw.findings);
    // A file that could not be parsed has nothing that could be checked.
    let parsed = loaded.root.is_some() && !findings.iter().any(|f| f.code == "not_a_mesh");
    if parsed {
        findings.extend(checks::run(&raw.file));
    }
    if !raw.whole {
        // What is missing may stand in what could not be read.
        findings.retain(|f| !ABSENCES.contains(&f.code));
    }
    said_once(&mut findings);
    follow::once(&mut findings);
    for finding in &mut findings {
        for (value, written) in &raw.hidden {
            finding.hide(value, written);
        }
    }
    let report = Report::new(&loaded.sources, raw.tokens.as_ref(), findings);
    if report.errors() > 0 {
        return Err(report);
    }
    let mut decided = raw.decided;
    decided.extend(loaded.environment.map(|name| format!("environment {name}")));
    let mesh = build(raw.file, revision(&loaded.sources, &decided));
    Ok(Compiled {
        mesh,
        warnings: report,
    })
}

/// What is missing is not missing where it is there and wrong, or misspelt; and it is missing once.
fn said_once(findings: &mut Vec<Finding>) {
    let mut wrong: HashSet<String> = HashSet::new();
    let mut misspelt: Vec<String> = Vec::new();
    let mut placed: HashSet<String> = HashSet::new();
    for finding in findings.iter() {
        match finding.code {
            "missing" if finding.place.line > 0 => {
                placed.insert(finding.path.clone());
            }
            "missing" => {}
            "unknown_key" => misspelt.extend(meant(finding)),
            _ if finding.severity == Severity::Error => {
                // A fault of a field says that what holds it is there.
                let mut path = finding.path.as_str();
                while wrong.insert(path.to_owned()) {
                    let Some(end) = path.rfind(['.', '[']) else {
                        break;
                    };
                    path = path.get(..end).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    let within = |path: &str, outer: &str| {
        let rest = path.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    findings.retain(|finding| {
        let path = finding.path.as_str();
        let again = finding.place.line == 0 && placed.contains(path);
        let there = wrong.contains(path) || misspelt.iter().any(|outer| within(path, outer));
        finding.code != "missing" || !(again || there)
    });
}

/// The key that a misspelt one is taken for.
fn meant(finding: &Finding) -> Option<String> {
    let hint = finding.hint.as_deref()?;
    let name = hint.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    let parent = finding
        .path
        .rsplit_once('.')
        .map_or("", |(parent, _)| parent);
    Some(schema::reader::join(parent, name))
}

/// The text of a file as it was read.
fn text(file: &str, bytes: Vec<u8>) -> Result<String, Report> {
    let finding = if bytes.len() > MAX_BYTES {
        // Cut by whoever read it, perhaps within a character.
        too_large()
    } else {
        match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => not_utf8(error.as_bytes(), error.utf8_error()),
        }
    };
    Err(Report::new(&Sources::one(file, ""), None, vec![finding]))
}

/// The finding of bytes that are no text from a place on.
pub(crate) fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> Finding {
    let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let good = std::str::from_utf8(good).unwrap_or_default();
    let last = good.rsplit('\n').next().unwrap_or_default();
    let place = Place {
        file: 0,
        line: good.matches('\n').count() + 1,
        column: last.chars().count() + 1,
        width: 1,
    };
    Finding::error("not_utf8", place, "", "the file is not UTF-8 from here on")
        .hint("save it as UTF-8, without another encoding's bytes")
}

/// Of all that decides what the mesh is: every file, the environment that was chosen, values of variables.
fn revision(sources: &Sources, decided: &[String]) -> String {
    let mut hash = Sha256::new();
    for (n, text) in sources
        .texts()
        .chain(decided.iter().map(String::as_str))
        .enumerate()
    {
        if n > 0 {
            // Two parts are told from one that is both.
            hash.update([0]);
        }
        hash.update(text.as_bytes());
    }
    let digest = hash.finalize();
    let first = digest.iter().take(8);
    first.map(|byte| format!("{byte:02x}")).collect()
}
