//! Reads a tree field by field and keeps every fault.
//!
//! A reader function returns `None` after it has reported why; the caller goes on with the other
//! fields. Which keys are known follows from which were asked for, so the two cannot differ.

use super::tree::{Key, Node, Value};
use crate::finding::{Finding, Place, nearest};
use crate::snippet::Places;

/// A value that was read, and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    pub value: T,
    pub place: Place,
    pub path: String,
}

impl<T> At<T> {
    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: f(self.value),
            place: self.place,
            path: self.path,
        }
    }
}

/// Collects the faults, and what may be shown beside them.
pub(crate) struct Reader<'s> {
    source: &'s str,
    pub findings: Vec<Finding>,
    /// What was claimed as no secret.
    pub open: Places,
    /// Whether what is being read belongs to a secret.
    veiled: bool,
}

/// Where a value stands: its node and its path.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'n> {
    pub node: &'n Node,
    pub path: &'n str,
}

impl<'s> Reader<'s> {
    pub fn new(source: &'s str) -> Self {
        Self {
            source,
            findings: Vec::new(),
            open: Places::new(),
            veiled: false,
        }
    }

    /// Reads what belongs to a secret: nothing in it is shown or named.
    pub fn veiled<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.veiled, true);
        let out = read(self);
        self.veiled = outer;
        out
    }

    /// Claims a scalar as no secret.
    pub fn open(&mut self, node: &Node) {
        self.open_at(node.place);
    }

    /// Claims a key as no secret.
    pub fn open_at(&mut self, place: Place) {
        if !self.veiled {
            self.open.insert((place.line, place.column));
        }
    }

    pub fn error(&mut self, code: &'static str, spot: Spot<'_>, message: impl Into<String>) {
        self.push(Finding::error(code, spot.node.place, spot.path, message));
    }

    pub fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub fn wrong_type(&mut self, spot: Spot<'_>, wanted: &str) {
        let message = format!(
            "{} must be {wanted}, not {}",
            spot.path,
            spot.node.value.kind()
        );
        self.error("wrong_type", spot, message);
    }

    /// The text as it was written, for values that YAML reads as numbers.
    pub fn written(&self, node: &Node) -> Option<&'s str> {
        let source: &'s str = self.source;
        source.get(node.bytes.clone()?).map(str::trim)
    }

    /// The entries of a mapping; reports duplicate keys.
    pub fn fields<'n>(&mut self, spot: Spot<'n>) -> Option<Fields<'n>> {
        let Value::Map(entries) = &spot.node.value else {
            self.wrong_type(spot, "a mapping");
            return None;
        };
        let mut seen: Vec<&Key> = Vec::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(first) = seen.iter().find(|k| k.text == key.text) {
                let path = if self.veiled {
                    format!("a key of {}", spot.path)
                } else {
                    join(spot.path, &key.text)
                };
                let message = format!("{path} stands twice, first in line {}", first.place.line);
                self.push(Finding::error("duplicate_key", key.place, path, message));
            } else {
                seen.push(key);
            }
        }
        Some(Fields {
            spot,
            entries,
            known: Vec::new(),
        })
    }

    /// The items of a list, each read by `read`.
    pub fn list<T>(
        &mut self,
        spot: Spot<'_>,
        read: impl Fn(&mut Self, Spot<'_>) -> Option<T>,
    ) -> Option<Vec<At<T>>> {
        let Value::List(items) = &spot.node.value else {
            self.wrong_type(spot, "a list");
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        for (n, node) in items.iter().enumerate() {
            let path = format!("{}[{n}]", spot.path);
            let item = read(self, Spot { node, path: &path });
            if let Some(value) = item {
                out.push(At {
                    value,
                    place: node.place,
                    path,
                });
            }
        }
        Some(out)
    }
}

/// A mapping that is being read.
pub(crate) struct Fields<'n> {
    pub spot: Spot<'n>,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// A field that may be left out; `null` counts as left out.
    pub fn optional<T>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'_>, Spot<'_>) -> Option<T>,
    ) -> Option<At<T>> {
        self.known.push(name);
        let mut named = self.entries.iter().filter(|(key, _)| key.text == name);
        named.clone().for_each(|(key, _)| reader.open_at(key.place));
        let (_, node) = named.next()?;
        if matches!(node.value, Value::Null) {
            return None;
        }
        let path = join(self.spot.path, name);
        let value = read(reader, Spot { node, path: &path })?;
        Some(At {
            value,
            place: node.place,
            path,
        })
    }

    /// A field that must be there.
    pub fn required<T>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        example: &str,
        read: impl FnOnce(&mut Reader<'_>, Spot<'_>) -> Option<T>,
    ) -> Option<At<T>> {
        let absent = !self
            .entries
            .iter()
            .any(|(key, node)| key.text == name && !matches!(node.value, Value::Null));
        if absent {
            self.known.push(name);
            let path = join(self.spot.path, name);
            let message = format!("{path} is missing");
            let place = Place {
                width: 1,
                ..self.spot.node.place
            };
            reader.push(
                Finding::error("missing", place, path, message)
                    .hint(format!("add `{name}: {example}`")),
            );
            return None;
        }
        self.optional(reader, name, read)
    }

    /// The names that stand in the mapping.
    pub fn names(&self) -> impl Iterator<Item = &'n Key> + use<'n> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, node) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let near = nearest(&key.text, self.known.iter().copied());
            // `{hunter2}` is a value that YAML takes for a key.
            let value = near.is_none() && matches!(node.value, Value::Null);
            let (name, path) = if reader.veiled || value {
                (String::new(), self.spot.path.to_owned())
            } else {
                reader.open_at(key.place);
                (format!(" `{}`", key.text), join(self.spot.path, &key.text))
            };
            let place = match self.spot.path {
                "" => "at the top of the file".to_owned(),
                path => format!("in {path}"),
            };
            let message = format!("unknown key{name} {place}");
            let hint = match near {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            reader.push(Finding::error("unknown_key", key.place, path, message).hint(hint));
        }
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
