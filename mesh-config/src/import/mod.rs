//! An existing deployment as a mesh.yaml: Kong's kong.yml, RabbitMQ's definitions, a Compose file.
//!
//! Each reader takes what a mesh can say and names the rest with its place; nothing is dropped in silence.
//! What it made is compiled before it is handed out, and what mesh.yaml itself refuses is taken out and
//! named too, so that the text always passes `mesh validate`. Secrets become references to variables.
//!
//! ```text
//! text ─▶ tree with places ─▶ kong | rabbitmq | compose ─▶ written::File ─▶ settled ─▶ YAML, header first
//! ```

mod compose;
mod compose_mounts;
mod compose_values;
mod cursor;
mod found;
mod header;
mod interpolate;
mod kong;
mod kong_parts;
mod rabbitmq;
mod rabbitmq_own;
mod settled;
mod written;

use crate::schema::tree;
use cursor::Cursor;
use found::Found;

/// Longest file that is imported, in bytes: what is made of it must fit into a mesh.yaml of one MiB.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Kong's declarative configuration.
    Kong,
    /// RabbitMQ's definitions.
    Rabbitmq,
    /// A Compose file.
    Compose,
}

impl Format {
    /// Names on the command line.
    pub const ALL: [(&'static str, Self); 3] = [
        ("kong", Self::Kong),
        ("rabbitmq", Self::Rabbitmq),
        ("compose", Self::Compose),
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kong => "kong",
            Self::Rabbitmq => "rabbitmq",
            Self::Compose => "compose",
        }
    }
}

/// What could not be carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Where in the imported file, such as `services[0].client_certificate`.
    pub path: String,
    /// Line there, from 1; 0 where there is none.
    pub line: usize,
    /// Column there, in characters from 1; 0 where there is none.
    pub column: usize,
    /// Why, and what to do instead.
    pub reason: String,
}

/// A secret that became a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The variable that has to hold it.
    pub variable: String,
    /// Where it stood in the imported file.
    pub path: String,
}

/// A mesh.yaml, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Whose file it was.
    pub format: Format,
    /// The text; it passes `mesh validate`.
    pub text: String,
    /// What could not be carried over.
    pub lost: Vec<Lost>,
    /// What has to be set where the mesh runs.
    pub secrets: Vec<Secret>,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Longer than [`MAX_BYTES`].
    #[error("the file is longer than {MAX_BYTES} bytes")]
    TooLarge,
    /// No YAML and no JSON, or beyond what any deployment needs.
    #[error("line {line}, column {column}: {problem}")]
    Syntax {
        /// Line, from 1; 0 where there is none.
        line: usize,
        /// Column, from 1; 0 where there is none.
        column: usize,
        /// What is wrong; without the file's own text.
        problem: String,
    },
    /// Nobody's file.
    #[error("{0}")]
    Unrecognised(&'static str),
    /// Of a form that is not read here.
    #[error("{0}")]
    Form(String),
    /// What was made of it does not fit into a mesh.
    #[error("no mesh can be made of it: {0}")]
    Unusable(String),
}

/// Makes a mesh.yaml of `text`; `from` says whose file it is, where its content does not tell. `mesh` is the
/// name of the mesh, where the file has none.
///
/// # Errors
/// [`ImportError`], when there is nothing that could be written.
pub fn import(text: &str, from: Option<Format>, mesh: &str) -> Result<Imported, ImportError> {
    let root = cursor::parse(text, from)?;
    let root = Cursor::root(&root);
    let format = match from {
        Some(format) => format,
        None => recognise(&root)?,
    };
    let mut found = Found::new(text);
    let mut file = match format {
        Format::Kong => kong::read(&root, &mut found)?,
        Format::Rabbitmq => rabbitmq::read(&root, &mut found)?,
        Format::Compose => compose::read(&root, &mut found)?,
    };
    if file.mesh.is_empty() {
        file.mesh = mesh.to_owned();
    }
    let body = settled::settle(file, &mut found)?;
    let (lost, secrets, notes) = found.told();
    Ok(Imported {
        format,
        text: header::header(format, &lost, &secrets, &notes) + &body,
        lost,
        secrets,
        notes,
    })
}

/// Whose file it is, by its content.
fn recognise(root: &Cursor<'_>) -> Result<Format, ImportError> {
    let has = |name: &str| root.get(name).is_some();
    let kind = |name: &str| root.get(name).map(|at| at.kind());
    if has("_format_version") {
        return Ok(Format::Kong);
    }
    if has("mesh") && has("version") {
        return Err(ImportError::Unrecognised("this is a mesh.yaml already"));
    }
    let broker = ["queues", "exchanges", "bindings"]
        .iter()
        .any(|name| kind(name) == Some("a list"));
    if broker || has("rabbit_version") || has("rabbitmq_version") {
        return Ok(Format::Rabbitmq);
    }
    match kind("services") {
        Some("a mapping") => Ok(Format::Compose),
        // Kong would refuse it too, and says so by its version.
        Some("a list") => Ok(Format::Kong),
        _ => Err(ImportError::Unrecognised(
            "neither kong.yml (_format_version), RabbitMQ's definitions (queues, exchanges) nor a Compose file (services); --from says which, if it is one",
        )),
    }
}

/// Whether `error` says that the parser stands before too much.
fn is_too_large(finding: &crate::Finding) -> bool {
    finding.code == tree::too_large().code
}
