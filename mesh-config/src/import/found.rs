//! What is said about an imported file, and its values on the way into types.

use super::cursor::Cursor;
use super::{Lost, Secret};
use crate::finding::Place;
use crate::schema::tree::{Node, Value};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// Most fields of one object that are taken out one by one because its type does not know them.
const MAX_UNKNOWN: usize = 64;

/// What was found out about a file.
pub(super) struct Found<'t> {
    text: &'t str,
    lost: Vec<Lost>,
    secrets: Vec<Secret>,
    variables: BTreeSet<String>,
    notes: Vec<String>,
}

impl<'t> Found<'t> {
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            lost: Vec::new(),
            secrets: Vec::new(),
            variables: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Names what cannot be carried over.
    pub fn lose(&mut self, at: &Cursor<'_>, reason: impl Into<String>) {
        self.lose_at(&at.path, at.node.place, reason);
    }

    pub fn lose_at(&mut self, path: &str, place: Place, reason: impl Into<String>) {
        self.lost.push(Lost {
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            reason: reason.into(),
        });
    }

    /// Says what is good to know, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// A variable of its own for the secret at `path`, made of `words`.
    pub fn secret(&mut self, words: &[&str], path: &str) -> String {
        let mut name = String::new();
        for c in words.join("_").chars() {
            match c {
                c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_uppercase()),
                _ if name.ends_with('_') => {}
                _ => name.push('_'),
            }
        }
        let name = name.trim_matches('_');
        let name = match name.chars().next() {
            Some(first) if !first.is_ascii_digit() => name.to_owned(),
            _ => format!("SECRET_{name}"),
        };
        let mut unique = name.clone();
        let mut number = 2;
        while !self.variables.insert(unique.clone()) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        self.refer(&unique, path);
        unique
    }

    /// Lists a variable that the file itself takes a secret from.
    pub fn refer(&mut self, variable: &str, path: &str) {
        self.variables.insert(variable.to_owned());
        self.secrets.push(Secret {
            variable: variable.to_owned(),
            path: path.to_owned(),
        });
    }

    /// What was said.
    pub fn told(self) -> (Vec<Lost>, Vec<Secret>, Vec<String>) {
        (self.lost, self.secrets, self.notes)
    }

    /// The text of a scalar, numbers and switches as they were written.
    pub fn scalar(&self, at: &Cursor<'_>) -> Option<String> {
        match &at.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(number) => Some(self.written(at.node).unwrap_or(number.to_string())),
            Value::Float => self.written(at.node),
            _ => None,
        }
    }

    fn written(&self, node: &Node) -> Option<String> {
        let bytes = node.bytes.clone()?;
        self.text.get(bytes).map(|text| text.trim().to_owned())
    }

    /// A value as JSON. What JSON does not have is named and left out.
    pub fn json(&mut self, at: &Cursor<'_>) -> Option<Json> {
        Some(match &at.node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::Int(number) => match (u64::try_from(*number), i64::try_from(*number)) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => {
                    self.lose(at, "the number is too large");
                    return None;
                }
            },
            Value::Float => {
                let written = self.written(at.node).and_then(|text| text.parse().ok());
                match written.and_then(serde_json::Number::from_f64) {
                    Some(number) => Json::Number(number),
                    None => {
                        self.lose(at, "the number has no form that JSON has");
                        return None;
                    }
                }
            }
            Value::List(_) => Json::Array(at.items().filter_map(|item| self.json(&item)).collect()),
            Value::Map(_) => Json::Object(self.object(at)),
        })
    }

    /// A mapping as JSON, without what stands in it a second time.
    pub fn object(&mut self, at: &Cursor<'_>) -> Map<String, Json> {
        let mut object = Map::new();
        for (key, value) in at.entries() {
            if object.contains_key(&key.text) {
                self.lose_at(&value.path, key.place, "the key stands there twice");
                continue;
            }
            if let Some(json) = self.json(&value) {
                object.insert(key.text.clone(), json);
            }
        }
        object
    }

    /// An object as a type. What the type does not know is named and left out; null counts as absent. None,
    /// and named as a whole, when a value has another form.
    pub fn typed<T: DeserializeOwned>(
        &mut self,
        mut object: Map<String, Json>,
        at: &Cursor<'_>,
    ) -> Option<T> {
        object.values_mut().for_each(without_nulls);
        object.retain(|_, value| !value.is_null());
        let mut json = Json::Object(object);
        for _ in 0..MAX_UNKNOWN {
            let error = match serde_path_to_error::deserialize::<_, T>(json.clone()) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let path = error.path().to_string();
            let inner = error.into_inner().to_string();
            let place = at.within(&path);
            if inner.starts_with("unknown field") && remove(&mut json, &path) {
                self.lose(&place, "it has no place in mesh.yaml");
                continue;
            }
            let said = crate::filters::said(&inner);
            self.lose(at, format!("{path} {said}, so all of it is left out"));
            return None;
        }
        self.lose(at, "it holds too much that is not known");
        None
    }
}

fn without_nulls(value: &mut Json) {
    match value {
        Json::Object(entries) => {
            entries.values_mut().for_each(without_nulls);
            entries.retain(|_, value| !value.is_null());
        }
        Json::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Takes the value at `path` out.
fn remove(json: &mut Json, path: &str) -> bool {
    let (outer, name) = match path.rsplit_once('.') {
        Some((outer, name)) => (outer, name),
        None => ("", path),
    };
    let pointer: String = outer
        .split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| format!("/{}", part.trim_end_matches(']')))
        .collect();
    let object = json.pointer_mut(&pointer).and_then(Json::as_object_mut);
    object.is_some_and(|object| object.remove(name).is_some())
}

/// The fields of a mapping, of which each is asked for or named.
pub(super) struct Entity<'n> {
    pub at: Cursor<'n>,
    left: BTreeMap<String, (Place, Cursor<'n>)>,
}

impl<'n> Entity<'n> {
    /// None, and named, for what is no mapping.
    pub fn of(at: &Cursor<'n>, found: &mut Found<'_>) -> Option<Self> {
        if !matches!(at.node.value, Value::Map(_)) {
            found.lose(
                at,
                format!("it is {}, where a mapping is wanted", at.kind()),
            );
            return None;
        }
        let mut left: BTreeMap<String, (Place, Cursor<'n>)> = BTreeMap::new();
        for (key, value) in at.entries() {
            if left.contains_key(&key.text) {
                found.lose_at(&value.path, key.place, "the key stands there twice");
            } else {
                left.insert(key.text.clone(), (key.place, value));
            }
        }
        Some(Self {
            at: at.clone(),
            left,
        })
    }

    /// A field, which is then no longer left; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Cursor<'n>> {
        let (_, at) = self.left.remove(name)?;
        (!at.is_null()).then_some(at)
    }

    /// A field that is text.
    pub fn take_text(&mut self, name: &str, found: &mut Found<'_>) -> Option<String> {
        let at = self.take(name)?;
        let text = found.scalar(&at);
        if text.is_none() {
            found.lose(&at, format!("it is {}, where text is wanted", at.kind()));
        }
        text
    }

    /// The items of a field that is a list.
    pub fn take_list(&mut self, name: &str, found: &mut Found<'_>) -> Vec<Cursor<'n>> {
        let Some(at) = self.take(name) else {
            return Vec::new();
        };
        if !matches!(at.node.value, Value::List(_)) {
            found.lose(&at, format!("it is {}, where a list is wanted", at.kind()));
        }
        at.items().collect()
    }

    /// What nobody asked for, with its key's place, nulls left out.
    pub fn rest(self) -> impl Iterator<Item = (String, Cursor<'n>)> {
        let rest = self.left.into_iter();
        rest.filter(|(_, (_, at))| !at.is_null())
            .map(|(name, (_, at))| (name, at))
    }

    /// Names what nobody asked for.
    pub fn finish(self, found: &mut Found<'_>, reason: &dyn Fn(&str) -> Option<&'static str>) {
        for (name, at) in self.rest() {
            if at.is_empty() {
                continue;
            }
            let reason = reason(&name).unwrap_or("it has no place in mesh.yaml");
            found.lose(&at, reason);
        }
    }
}
