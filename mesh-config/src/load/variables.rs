//! `${NAME}`, `${NAME:-default}` and `$$` in values.
//!
//! A value keeps what was written: a place that takes a secret wants the name and not the value, and nobody is to be
//! told of a missing variable whose value nobody reads here. So nothing is reported here, but by [`faults`] when
//! all was read.

use crate::finding::{Finding, Place};
use crate::schema::reader::join;
use crate::schema::tree::{Node, Value, Variables};
use crate::secret_names::{holds_secret, is_secret_name};
use crate::sources::Sources;
use std::collections::BTreeSet;

/// Longest value of a variable, in bytes.
const MAX_VALUE: usize = 64 * 1024;

/// Why a text has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The environment lacks the variable.
    Unset(String),
    /// Its value is longer than [`MAX_VALUE`].
    Long(String),
    /// `${` is not followed by a name and `}`.
    Malformed,
}

/// Puts in the values of variables everywhere but in environments that were not chosen.
pub(super) fn put_in(root: &mut Node, sources: &Sources, lookup: &dyn Fn(&str) -> Option<String>) {
    if let Value::Map(entries) = &mut root.value {
        for (key, node) in entries {
            if !matches!(key.text.as_str(), "environments" | "include") {
                walk(node, sources, lookup);
            }
        }
    }
}

fn walk(node: &mut Node, sources: &Sources, lookup: &dyn Fn(&str) -> Option<String>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|i| walk(i, sources, lookup)),
        Value::Map(entries) => {
            for (_, value) in entries {
                walk(value, sources, lookup);
            }
        }
        Value::Text(text) if text.contains('$') => {
            let written = std::mem::take(text);
            if !written.contains("${") {
                *text = written.replace("$$", "$");
                return;
            }
            let value = expand(&written, lookup);
            node.value = match &value {
                Err(_) => Value::Null,
                Ok(value) if is_plain(node, sources) => retyped(value),
                Ok(value) => Value::Text(value.clone()),
            };
            node.variables = Some(Box::new(Variables { written, value }));
        }
        _ => {}
    }
}

/// Whether a scalar stands without quotes, on one line.
fn is_plain(node: &Node, sources: &Sources) -> bool {
    let text = sources.text(node.defined.file);
    let written = node.bytes.clone().and_then(|bytes| text.get(bytes));
    written.is_some_and(|w| !w.trim_start().starts_with(['"', '\'', '|', '>']))
}

/// A plain scalar as YAML's core schema types it (YAML 1.2.2, 10.3.2).
fn retyped(text: &str) -> Value {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits(unsigned)
        && let Ok(number) = text.parse()
    {
        return Value::Int(number);
    }
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if float && unsigned.contains(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok() {
        return Value::Float;
    }
    Value::Text(text.to_owned())
}

/// `written` with values put in.
fn expand(written: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let mut out = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        out.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(after) = rest.strip_prefix('{') else {
            out.push('$');
            continue;
        };
        let (inner, after) = after.split_once('}').ok_or(Fault::Malformed)?;
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_name(name) {
            return Err(Fault::Malformed);
        }
        // As a shell has it, `:-` stands in for an empty value, too.
        let value = lookup(name).filter(|v| default.is_none() || !v.is_empty());
        match (&value, default) {
            (Some(value), _) if value.len() > MAX_VALUE => {
                return Err(Fault::Long(name.to_owned()));
            }
            (Some(value), _) => out.push_str(value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(Fault::Unset(name.to_owned())),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a variable may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The one variable that a text is, and nothing else.
pub(crate) fn alone(written: &str) -> Option<&str> {
    let name = written.trim().strip_prefix("${")?.strip_suffix('}')?;
    is_name(name).then_some(name)
}

/// Whether one of the variables of a text is a secret by its name.
pub(crate) fn names_secret(written: &str) -> bool {
    secrets_in(written).next().is_some()
}

/// The variables of a text whose names are those of secrets.
fn secrets_in(written: &str) -> impl Iterator<Item = &str> {
    names_in(written).filter(|name| is_secret_name(name))
}

/// The variables of a text.
fn names_in(written: &str) -> impl Iterator<Item = &str> {
    let plain = |at: usize| {
        let dollars = written.get(..at).unwrap_or_default().bytes().rev();
        dollars.take_while(|b| *b == b'$').count().is_multiple_of(2)
    };
    written.match_indices("${").filter_map(move |(at, _)| {
        let (inner, _) = written.get(at + 2..)?.split_once('}')?;
        let name = inner.split_once(":-").map_or(inner, |(name, _)| name);
        (plain(at) && is_name(name)).then_some(name)
    })
}

/// What is to be said of variables when all was read.
#[derive(Default)]
pub(crate) struct Said {
    /// Every one that has no value and was read as something else than the name of a secret.
    pub findings: Vec<Finding>,
    /// Where they stand.
    pub places: BTreeSet<Place>,
    /// What was written, with what came of it: it decides what the mesh is.
    pub decided: Vec<String>,
    /// Values that no message may quote, each with what was written for it.
    pub hidden: Vec<(String, String)>,
}

/// Whether a value is a secret that was put where none is taken.
fn is_told(written: &str, value: &str) -> bool {
    names_secret(written) || holds_secret(value)
}

/// Looks at every variable but those at `secret`.
pub(crate) fn said(root: &Node, secret: &BTreeSet<Place>) -> Said {
    let mut said = Said::default();
    look(root, "", secret, &mut said);
    said
}

fn look(node: &Node, path: &str, secret: &BTreeSet<Place>, said: &mut Said) {
    match &node.value {
        Value::List(items) => {
            for (n, item) in items.iter().enumerate() {
                look(item, &format!("{path}[{n}]"), secret, said);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                look(value, &join(path, &key.text), secret, said);
            }
        }
        _ => {}
    }
    let Some(variables) = &node.variables else {
        return;
    };
    if secret.contains(&node.place) {
        return;
    }
    let fault = match &variables.value {
        Ok(value) => {
            if let Some(name) = secrets_in(&variables.written).next() {
                let message = format!("{path} would show the value of {name} to whoever reads it");
                let finding = Finding::error("variable_in_the_open", node.place, path, message);
                said.findings.push(finding.hint(
                    "where a secret is taken, write {env: NAME}; what is none has a variable with another name",
                ));
            }
            if is_told(&variables.written, value) {
                let names = names_in(&variables.written).map(|name| format!("${{{name}}}"));
                said.hidden.push((value.clone(), names.collect()));
            }
            said.decided.push(format!("{}={value}", variables.written));
            return;
        }
        Err(fault) => fault,
    };
    let error = |code, message: String, hint: String| {
        Finding::error(code, node.place, path, message).hint(hint)
    };
    said.places.insert(node.place);
    said.findings.push(match fault {
        Fault::Unset(name) => error(
            "variable_unset",
            format!("{path}: the environment has no {name}"),
            format!("set it, or give it a default: ${{{name}:-VALUE}}"),
        ),
        Fault::Long(name) => error(
            "too_large",
            format!("{path}: the value of {name} is longer than {MAX_VALUE} bytes"),
            "put it into a file of its own".to_owned(),
        ),
        Fault::Malformed => error(
            "invalid_variable",
            format!("{path} names no variable"),
            "write ${NAME} or ${NAME:-default}, of letters, digits and _; $${ for the characters ${".to_owned(),
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(written: &str) -> Result<String, Fault> {
        expand(written, &|name| match name {
            "HOST" => Some("example".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn names_defaults_and_dollars() {
        for (written, wanted) in [
            ("${HOST}:80", "example:80"),
            ("${NONE:-local}host", "localhost"),
            ("${EMPTY:-x}${EMPTY}", "x"),
            ("${NONE:-}", ""),
            ("a$b $$ $${HOST} $1", "a$b $ ${HOST} $1"),
            ("${NESTED}", "${HOST}"),
            ("~/x$", "~/x$"),
        ] {
            assert_eq!(value(written).as_deref(), Ok(wanted), "{written}");
        }
        assert_eq!(value("a${NONE}"), Err(Fault::Unset("NONE".to_owned())));
        for bad in ["${HOST", "${}", "${A B}", "${1A}", "${:-x}", "${HOST-x}"] {
            assert_eq!(value(bad), Err(Fault::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_value_is_typed_as_yaml_types_it() {
        assert!(matches!(retyped("10005"), Value::Int(10005)));
        assert!(matches!(retyped("-3"), Value::Int(-3)));
        assert!(matches!(retyped("true"), Value::Bool(true)));
        assert!(matches!(retyped("1.5"), Value::Float));
        assert!(matches!(retyped(""), Value::Null));
        for text in ["yes", "0x", "30s", "127.0.0.1", "inf", "-", "1.2.3"] {
            assert!(matches!(retyped(text), Value::Text(_)), "{text}");
        }
    }

    #[test]
    fn variables_that_are_secrets_by_their_names() {
        for secret in ["${API_TOKEN}", "a ${X}${DB_PASSWORD:-b}", "$$${JWT_SECRET}"] {
            assert!(names_secret(secret), "{secret}");
        }
        for other in [
            "${HOST}",
            "$${API_TOKEN}",
            "API_TOKEN",
            "${API_TOKEN",
            "$API_TOKEN",
        ] {
            assert!(!names_secret(other), "{other}");
        }
    }

    #[test]
    fn a_variable_alone_is_told_from_one_among_others() {
        assert_eq!(alone(" ${A_1} "), Some("A_1"));
        for other in ["${A}b", "${A:-b}", "${A}${B}", "A", "${}"] {
            assert_eq!(alone(other), None, "{other}");
        }
    }
}
