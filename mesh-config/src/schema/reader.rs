//! Reads a tree field by field and keeps every fault.
//!
//! A reader function returns `None` after it has reported why; the caller goes on with the other
//! fields. Which keys are known follows from which were asked for, so the two cannot differ.

use super::describe::Shape;
use super::tree::{Key, Node, Value};
use crate::finding::{Finding, Place, nearest};
use crate::secret::Vault;
use crate::snippet::{Places, at};
use crate::sources::Sources;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

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
    sources: &'s Sources,
    pub findings: Vec<Finding>,
    /// What was claimed as no secret.
    pub open: Places,
    /// Values that name the variable of a secret, which is not read here.
    pub secret: BTreeSet<Place>,
    /// Where secrets of `{vault: ...}` are, as the file says.
    pub vault: Option<Arc<Vault>>,
    /// Whether what is being read belongs to a secret.
    veiled: bool,
    /// What is being read looks like this, while nothing is read but described.
    pub(super) shape: Option<Shape>,
}

/// Where a value stands: its node and its path.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'n> {
    pub node: &'n Node,
    pub path: &'n str,
}

impl<'s> Reader<'s> {
    pub fn new(sources: &'s Sources) -> Self {
        Self {
            sources,
            findings: Vec::new(),
            open: Places::new(),
            secret: BTreeSet::new(),
            vault: None,
            veiled: false,
            shape: None,
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
            self.open.insert(at(place));
        }
    }

    pub fn error(&mut self, code: &'static str, spot: Spot<'_>, message: impl Into<String>) {
        self.push(Finding::error(code, spot.node.place, spot.path, message));
    }

    pub fn push(&mut self, finding: Finding) {
        if self.shape.is_none() {
            self.findings.push(finding);
        }
    }

    pub fn wrong_type(&mut self, spot: Spot<'_>, wanted: &str) {
        let kind = match spot.node.variables {
            Some(_) => "the value of its variable",
            None => spot.node.value.kind(),
        };
        let message = format!("{} must be {wanted}, not {kind}", spot.path);
        self.error("wrong_type", spot, message);
    }

    /// The text as it was written, for values that YAML reads as numbers; with the values of variables.
    pub fn written(&self, node: &Node) -> Option<String> {
        if let Some(variables) = &node.variables {
            return variables.value.clone().ok();
        }
        let source = self.sources.text(node.defined.file);
        let written = source.get(node.bytes.clone()?)?;
        Some(written.trim().to_owned())
    }

    /// The entries of a mapping; reports duplicate keys.
    pub fn fields<'n>(&mut self, spot: Spot<'n>) -> Option<Fields<'n>> {
        if let Some(shape) = &mut self.shape {
            shape.object();
            return Some(Fields::new(spot, &[]));
        }
        let Value::Map(entries) = &spot.node.value else {
            self.wrong_type(spot, "a mapping");
            return None;
        };
        let mut seen: HashMap<&str, Place> = HashMap::with_capacity(entries.len());
        for (key, _) in entries {
            if key.text.len() > LONGEST_KEY {
                let message = format!(
                    "a key of {} is longer than {LONGEST_KEY} bytes",
                    place(spot.path)
                );
                let finding = Finding::error("invalid_name", key.place, spot.path, message);
                self.push(finding.hint("write a shorter one; or a quote or a colon is missing"));
            }
            if let Some(first) = seen.get(key.text.as_str()) {
                let path = if self.veiled {
                    format!("a key of {}", spot.path)
                } else {
                    join(spot.path, &key.text)
                };
                let message = format!("{path} stands twice, first in line {}", first.line);
                self.push(
                    Finding::error("duplicate_key", key.place, path, message)
                        .hint("remove one of them"),
                );
            } else {
                seen.insert(&key.text, key.place);
            }
        }
        Some(Fields::new(spot, entries))
    }

    /// The entries of a mapping whose keys are the user's own, each read by `read`; reports duplicate keys. Its keys
    /// look like `key`, a regular expression.
    pub fn entries<T>(
        &mut self,
        spot: Spot<'_>,
        key: &'static str,
        mut read: impl FnMut(&mut Self, &Key, Spot<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if self.shape.is_some() {
            let dummy = Key {
                text: String::new(),
                place: Place::default(),
            };
            let path = join(spot.path, "*");
            let shape = self.described(&path, |reader, spot| {
                read(reader, &dummy, spot);
            });
            if let Some(own) = &mut self.shape {
                own.open_object(key, shape);
            }
            return None;
        }
        self.fields(spot)?;
        let Value::Map(entries) = &spot.node.value else {
            return None;
        };
        let mut out = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = join(spot.path, &key.text);
            out.extend(read(self, key, Spot { node, path: &path }));
        }
        Some(out)
    }

    /// The items of a list, each read by `read`.
    pub fn list<T>(
        &mut self,
        spot: Spot<'_>,
        read: impl Fn(&mut Self, Spot<'_>) -> Option<T>,
    ) -> Option<Vec<At<T>>> {
        if self.shape.is_some() {
            let path = format!("{}[]", spot.path);
            let shape = self.described(&path, |reader, spot| {
                read(reader, spot);
            });
            if let Some(own) = &mut self.shape {
                own.list(shape);
            }
            return None;
        }
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
    fn new(spot: Spot<'n>, entries: &'n [(Key, Node)]) -> Self {
        Self {
            spot,
            entries,
            known: Vec::new(),
        }
    }

    /// Describes a field.
    fn described<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &'static str,
        required: bool,
        read: impl FnOnce(&mut Reader<'_>, Spot<'_>) -> Option<T>,
    ) {
        let path = join(self.spot.path, name);
        let shape = reader.described(&path, |reader, spot| {
            read(reader, spot);
        });
        if let Some(own) = &mut reader.shape {
            own.field(name, &path, required, shape);
        }
    }

    /// A field that may be left out; `null` counts as left out.
    pub fn optional<T>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'_>, Spot<'_>) -> Option<T>,
    ) -> Option<At<T>> {
        self.known.push(name);
        if reader.shape.is_some() {
            self.described(reader, name, false, read);
            return None;
        }
        let mut named = self.entries.iter().filter(|(key, _)| key.text == name);
        named.clone().for_each(|(key, _)| reader.open_at(key.place));
        let (_, node) = named.next()?;
        if matches!(node.value, Value::Null) && !node.is_unset() {
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
        if reader.shape.is_some() {
            self.known.push(name);
            self.described(reader, name, true, read);
            return None;
        }
        let there = |node: &Node| !matches!(node.value, Value::Null) || node.is_unset();
        let absent = !self
            .entries
            .iter()
            .any(|(key, node)| key.text == name && there(node));
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

    /// Whether the fields that follow are there: where `name`, which was read as `found`, is `word`. They are until the
    /// next of these words.
    pub fn when(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        word: &'static str,
        found: &str,
    ) -> bool {
        if let Some(shape) = &mut reader.shape {
            shape.when(name, word);
            return true;
        }
        found == word
    }

    /// The names that stand in the mapping.
    pub fn names(&self) -> impl Iterator<Item = &'n Key> + use<'n> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// Whether one of these keys says something: no list or mapping without anything in it, and not `null`.
    pub fn holds(&self, names: &[&str]) -> bool {
        let said = |node: &Node| match &node.value {
            Value::Null => node.is_unset(),
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            _ => true,
        };
        let mut named = self.entries.iter();
        named.any(|(key, node)| names.contains(&key.text.as_str()) && said(node))
    }

    /// How many of the keys that were asked for stand in the mapping.
    pub fn given(&self) -> usize {
        let asked = |entry: &&(Key, Node)| self.known.contains(&entry.0.text.as_str());
        self.entries.iter().filter(asked).count()
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        if let Some(shape) = &mut reader.shape {
            shape.close_object();
            return;
        }
        for (key, node) in self.entries {
            // One that is too long was reported.
            if self.known.contains(&key.text.as_str()) || key.text.len() > LONGEST_KEY {
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
            let blank = |c: char| c.is_whitespace() && !c.is_ascii();
            let hint = match near {
                Some(name) => format!("did you mean `{name}`?"),
                None if key.text.contains(blank) => {
                    "there is a space in it that is not YAML's, such as a no-break space: type it anew".to_owned()
                }
                None => format!("known here: {}", self.known.join(", ")),
            };
            reader.push(Finding::error("unknown_key", key.place, path, message).hint(hint));
        }
    }
}

/// Longest key, in bytes.
const LONGEST_KEY: usize = 256;

/// A path in words.
fn place(path: &str) -> &str {
    if path.is_empty() { "the file" } else { path }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
