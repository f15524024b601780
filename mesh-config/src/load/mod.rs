//! From a file's name to one tree: what it includes, the environment that was asked for, the variables it names.
//!
//! ```text
//!  mesh.yaml ─┬─ include ─▶ files ─▶ trees ─▶ merge ─▶ environments.NAME ─▶ ${NAME} ─▶ one tree
//!             └─ every value keeps the file, line and column where it stands
//! ```
//!
//! What reads files and variables comes in, so that a text alone can be checked without either.

mod files;
mod merge;
mod variables;

pub(crate) use files::Directory;
pub(crate) use variables::{Fault, alone, is_name, names_secret, said};

use crate::finding::{Finding, Place, nearest};
use crate::schema::tree::{Key, Node, Value};
use crate::snippet::{Places, Standing};
use crate::sources::Sources;

/// What is outside the file.
pub struct Options<'a> {
    /// Which of its `environments` is laid over it.
    pub environment: Option<&'a str>,
    /// Values of variables, for `${NAME}`.
    pub variables: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `include` may lead out of the directory of the file.
    pub outside: bool,
}

impl Default for Options<'_> {
    /// No environment, no variables, nothing outside.
    fn default() -> Self {
        Self {
            environment: None,
            variables: &|_| None,
            outside: false,
        }
    }
}

/// One tree of all files, and what was found on the way.
#[derive(Default)]
pub(crate) struct Loaded {
    pub root: Option<Node>,
    pub sources: Sources,
    pub standing: Standing,
    /// What of it names files, and may be shown.
    pub open: Places,
    pub findings: Vec<Finding>,
    /// Whether every file that was named could be parsed; otherwise what is missing may stand in one that could not.
    pub whole: bool,
    /// The environment that was asked for.
    pub environment: Option<String>,
}

/// Loads the text of the named file; `directory` finds what it includes.
pub(crate) fn load(
    name: &str,
    text: String,
    directory: Option<&Directory>,
    options: &Options<'_>,
) -> Loaded {
    let mut loaded = Loaded {
        whole: true,
        ..Loaded::default()
    };
    let root = files::read(&mut loaded, name, text, directory);
    let Some(mut root) = root else {
        return loaded;
    };
    loaded.environment = options.environment.map(str::to_owned);
    environment(&mut loaded, &mut root, options.environment);
    variables::put_in(&mut root, &loaded.sources, options.variables);
    loaded.root = Some(root);
    loaded
}

/// Lays `environments.NAME` over the rest.
fn environment(loaded: &mut Loaded, root: &mut Node, name: Option<&str>) {
    let Value::Map(entries) = &root.value else {
        return;
    };
    let declared = entries.iter().find(|(key, _)| key.text == "environments");
    let known: &[(Key, Node)] = match declared.map(|(_, node)| &node.value) {
        Some(Value::Map(known)) => known,
        _ => &[],
    };
    let Some(name) = name else { return };
    let Some((_, overlay)) = known.iter().find(|(key, _)| key.text == name) else {
        let place = declared.map_or_else(Place::default, |(key, _)| key.place);
        let names: Vec<&str> = known.iter().map(|(key, _)| key.text.as_str()).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if names.is_empty() => {
                format!("add `environments: {{{name}: {{...}}}}`, or leave --env and MESH_ENV out")
            }
            None => format!("environments here: {}", names.join(", ")),
        };
        let message = format!("there is no environment {name}");
        let finding = Finding::error("unknown_environment", place, "environments", message);
        loaded.findings.push(finding.hint(hint));
        return;
    };
    if matches!(overlay.value, Value::Map(_)) {
        let overlay = overlay.clone();
        merge::over(root, overlay, &mut loaded.findings);
    }
}
