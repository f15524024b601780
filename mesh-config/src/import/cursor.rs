//! What an imported file holds, value by value with its place.

use super::{Format, ImportError, MAX_BYTES};
use crate::finding::Place;
use crate::schema::reader::join;
use crate::schema::tree::{self, Key, Node, Value};
use serde_json::Value as Json;

/// Reads YAML or JSON. Kong's reader is one of YAML 1.1, for which `yes` and `on` are true.
pub(super) fn parse(text: &str, from: Option<Format>) -> Result<Node, ImportError> {
    if text.len() > MAX_BYTES {
        return Err(ImportError::TooLarge);
    }
    let old_booleans = match from {
        Some(format) => format == Format::Kong,
        None => text.contains("_format_version"),
    };
    match tree::parse_foreign(text, old_booleans) {
        Ok(node) => Ok(node),
        // JSON that YAML does not take, such as a character in two escapes.
        Err(finding) => match serde_json::from_str::<Json>(text) {
            Ok(json) if !super::is_too_large(&finding) => Ok(node(json)),
            _ => Err(ImportError::Syntax {
                line: finding.place.line,
                column: finding.place.column,
                problem: finding.message,
            }),
        },
    }
}

fn node(json: Json) -> Node {
    let place = Place::default();
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::Int(number.into()),
            (_, Some(number)) => Value::Int(number.into()),
            _ => Value::Float,
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(node).collect()),
        Json::Object(entries) => {
            let entries = entries.into_iter();
            Value::Map(
                entries
                    .map(|(text, value)| (Key { text, place }, node(value)))
                    .collect(),
            )
        }
    };
    Node {
        value,
        place,
        defined: place,
        bytes: None,
        variables: None,
    }
}

/// A value of the file, and its path.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'n> {
    pub node: &'n Node,
    pub path: String,
}

impl<'n> Cursor<'n> {
    pub fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        self.node.value.kind()
    }

    /// A field of a mapping; null counts as absent.
    pub fn get(&self, name: &str) -> Option<Cursor<'n>> {
        self.entries()
            .find(|(key, at)| key.text == name && !at.is_null())
            .map(|(_, at)| at)
    }

    pub fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// Whether it is a list or a mapping that holds nothing.
    pub fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> impl Iterator<Item = (&'n Key, Cursor<'n>)> + use<'n> {
        let entries: &'n [(Key, Node)] = match &self.node.value {
            Value::Map(entries) => entries,
            _ => &[],
        };
        let path = self.path.clone();
        entries.iter().map(move |(key, node)| {
            let path = join(&path, &key.text);
            (key, Cursor { node, path })
        })
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> impl Iterator<Item = Cursor<'n>> + use<'n> {
        let items: &'n [Node] = match &self.node.value {
            Value::List(items) => items,
            _ => &[],
        };
        let path = self.path.clone();
        let each = items.iter().enumerate();
        each.map(move |(number, node)| Cursor {
            node,
            path: format!("{path}[{number}]"),
        })
    }

    /// The value at a path within, or the nearest one around it.
    pub fn within(&self, path: &str) -> Cursor<'n> {
        let mut at = self.clone();
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match part.strip_suffix(']').and_then(|n| n.parse::<usize>().ok()) {
                Some(number) => at.items().nth(number),
                None => at
                    .entries()
                    .find(|(key, _)| key.text == part)
                    .map(|(_, at)| at),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }
}
