//! What mesh.yaml may hold, as JSON Schema (draft 2020-12): said by the readers themselves.
//!
//! A [`Reader`] that has a [`Shape`] reads nothing: every function that would read a value is called once, with a
//! value that is not there, and says what it would take. So the schema knows the same keys, words and ranges as
//! the reader, and cannot be forgotten. What no function can say of itself, what a key means, stands in `keys.txt`.

use super::reader::{Reader, Spot};
use super::tree::{Node, Value};
use crate::finding::Place;
use crate::sources::Sources;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// What keys mean, by the end of their path: `sidecar.listen` is that of every sidecar.
const KEYS: &str = include_str!("keys.txt");

/// Where the schema is, for editors.
pub const SCHEMA_ID: &str = "https://agent-mesh.example/mesh.schema.json";

/// One value's schema, in the making.
#[derive(Debug, Default, Clone)]
pub(crate) struct Shape {
    schema: Map<String, Json>,
    /// What is said of it beside what its key means, such as a range.
    notes: Vec<String>,
    /// The fields that are being named are there for one word of another one.
    variant: Option<Variant>,
}

/// Fields that are there where one field is one word.
#[derive(Debug, Clone)]
struct Variant {
    name: &'static str,
    word: &'static str,
    /// Those of every word.
    common: Vec<String>,
    own: Vec<String>,
    required: Vec<String>,
}

impl Shape {
    /// Says more of the value.
    fn say(&mut self, more: Json) {
        if let Json::Object(more) = more {
            self.schema.extend(more);
        }
    }

    pub(super) fn object(&mut self) {
        self.say(json!({"type": "object"}));
    }

    /// The fields that follow are there where `name` is `word`.
    pub(super) fn when(&mut self, name: &'static str, word: &'static str) {
        let common = match self.end_variant() {
            Some(variant) => variant.common,
            None => match self.schema.get("properties") {
                Some(Json::Object(all)) => all.keys().cloned().collect(),
                _ => Vec::new(),
            },
        };
        self.variant = Some(Variant {
            name,
            word,
            common,
            own: Vec::new(),
            required: Vec::new(),
        });
    }

    fn end_variant(&mut self) -> Option<Variant> {
        let variant = self.variant.take()?;
        let keys: Vec<&String> = variant.common.iter().chain(&variant.own).collect();
        let rule = json!({
            "if": {"properties": {variant.name: {"const": variant.word}}, "required": [variant.name]},
            "then": {"propertyNames": {"enum": keys}, "required": variant.required},
        });
        if let Json::Array(all) = self.entry("allOf", json!([])) {
            all.push(rule);
        }
        Some(variant)
    }

    /// No other keys than those that were named.
    pub(super) fn close_object(&mut self) {
        self.end_variant();
        self.say(json!({"additionalProperties": false}));
    }

    pub(super) fn open_object(&mut self, key: &str, value: Shape) {
        self.object();
        let value = value.finished(None);
        self.say(json!({"additionalProperties": value, "propertyNames": {"pattern": key}}));
    }

    pub(super) fn list(&mut self, item: Shape) {
        let item = item.finished(None);
        self.say(json!({"type": "array", "items": item}));
    }

    pub(super) fn field(&mut self, name: &str, path: &str, required: bool, shape: Shape) {
        let schema = shape.finished(Some(path));
        let mut required = required;
        if let Some(variant) = &mut self.variant {
            variant.own.push(name.to_owned());
            if std::mem::take(&mut required) {
                variant.required.push(name.to_owned());
            }
        }
        if let Json::Object(properties) = self.entry("properties", json!({})) {
            properties.insert(name.to_owned(), schema);
        }
        if required && let Json::Array(all) = self.entry("required", json!([])) {
            all.push(name.into());
        }
    }

    fn entry(&mut self, name: &str, usual: Json) -> &mut Json {
        self.schema.entry(name).or_insert(usual)
    }

    /// The schema of a value, of the key at `path`.
    fn finished(mut self, path: Option<&str>) -> Json {
        let described = path.map(|path| {
            let mut words = meaning(path).unwrap_or_default().1.to_owned();
            for note in &self.notes {
                words.push(' ');
                words.push_str(note);
            }
            words
        });
        // A scalar may come from the environment, whatever it is then.
        let scalar = |t: &Json| matches!(t.as_str(), Some("integer" | "boolean" | "string"));
        let narrow = ["enum", "const", "pattern", "minimum"]
            .iter()
            .any(|word| self.schema.contains_key(*word));
        let kind = self.schema.get("type");
        let boolean = kind.and_then(Json::as_str) == Some("boolean");
        if (narrow || boolean) && kind.is_none_or(scalar) {
            let own = std::mem::take(&mut self.schema);
            self.say(json!({"anyOf": [own, {"$ref": "#/$defs/variable"}]}));
        }
        if let Some(words) = described {
            self.schema.insert("description".to_owned(), words.into());
        }
        Json::Object(self.schema)
    }
}

/// A function that describes one of several forms of a value.
type Way<'w, R> = &'w dyn Fn(&mut R, Spot<'_>);

impl Reader<'_> {
    /// Whether nothing is read but described.
    pub fn describes(&self) -> bool {
        self.shape.is_some()
    }

    /// Says what the value at hand looks like, in words of JSON Schema.
    pub fn say(&mut self, words: impl FnOnce() -> Json) {
        if let Some(shape) = &mut self.shape {
            shape.say(words());
        }
    }

    /// Says something of the value that JSON Schema has no word for.
    pub fn note(&mut self, words: impl FnOnce() -> String) {
        if let Some(shape) = &mut self.shape {
            shape.notes.push(words());
        }
    }

    /// Says that the value looks like one of these.
    pub fn either(&mut self, spot: Spot<'_>, ways: &[Way<'_, Self>]) {
        if self.describes() {
            let each = |way: &Way<'_, Self>| {
                let shape = self.described(spot.path, way);
                shape.finished(None)
            };
            let all: Vec<Json> = ways.iter().map(each).collect();
            self.say(|| json!({ "anyOf": all }));
        }
    }

    /// What `read` says of a value at `path`.
    pub(super) fn described(
        &mut self,
        path: &str,
        read: impl FnOnce(&mut Self, Spot<'_>),
    ) -> Shape {
        let outer = self.shape.replace(Shape::default());
        let node = Node::made(Value::Null, Place::default());
        read(self, Spot { node: &node, path });
        std::mem::replace(&mut self.shape, outer).unwrap_or_default()
    }
}

/// The path without indexes and names of the user's own, as `keys.txt` has it.
fn plain(path: &str) -> String {
    let inner = path.replace("[]", "").replace(".*.", ".");
    let path = inner.strip_suffix(".*").unwrap_or(&inner);
    // What is said of a part's container is what is said of any.
    let mut parts = path.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("deploy"), Some(part), Some(rest)) if part != "kubernetes" => {
            format!("container.{rest}")
        }
        (Some("deploy"), Some(part), None)
            if !matches!(part, "kubernetes" | "publish" | "external_network") =>
        {
            "deploy.PART".to_owned()
        }
        _ => path.to_owned(),
    }
}

/// What a key means, with the line that says so: the longest end of its path that is described.
fn meaning(path: &str) -> Option<(&'static str, &'static str)> {
    let path = plain(path);
    let mut rest = path.as_str();
    loop {
        let found = lines().find(|(key, _)| *key == rest);
        // One word alone is that of a section at the top.
        if found.is_some() && (rest.contains('.') || rest.len() == path.len()) {
            return found;
        }
        let Some((_, shorter)) = rest.split_once('.') else {
            let any = |(key, _): &(&str, &str)| key.strip_prefix("*.") == Some(rest);
            return lines().find(any);
        };
        rest = shorter;
    }
}

fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    let said = KEYS.lines().filter(|line| !line.starts_with('#'));
    said.filter_map(|line| line.split_once(": "))
}

/// The schema of mesh.yaml.
pub fn schema() -> Json {
    let sources = Sources::default();
    let mut reader = Reader::new(&sources);
    let shape = reader.described("", |reader, spot| {
        super::file(reader, spot);
    });
    let Json::Object(mut schema) = shape.finished(None) else {
        return Json::Null;
    };
    let mut defs = super::filters::described();
    defs.insert(
        "variable".to_owned(),
        json!({
            "type": "string",
            "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}",
            "description": "A value of the environment: ${NAME}, or ${NAME:-default}.",
        }),
    );
    schema.insert("$defs".to_owned(), Json::Object(defs));
    schema.insert("title".to_owned(), "mesh.yaml".into());
    let uri = "https://json-schema.org/draft/2020-12/schema";
    schema.insert("$schema".to_owned(), uri.into());
    schema.insert("$id".to_owned(), SCHEMA_ID.into());
    Json::Object(schema)
}

/// Every key of the file with its path (`agents[].id`), in the order of their names.
pub(crate) fn keys(schema: &Json) -> BTreeMap<String, &Json> {
    let mut all = BTreeMap::new();
    collect(schema, "", &mut all);
    all
}

fn collect<'s>(schema: &'s Json, path: &str, all: &mut BTreeMap<String, &'s Json>) {
    for (name, key) in schema["properties"].as_object().into_iter().flatten() {
        let path = super::reader::join(path, name);
        collect(key, &path, all);
        all.insert(path, key);
    }
    for way in schema["anyOf"].as_array().into_iter().flatten() {
        collect(way, path, all);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), all);
    }
    if schema["additionalProperties"].is_object() {
        let path = super::reader::join(path, "*");
        collect(&schema["additionalProperties"], &path, all);
    }
}

/// Keys that nobody described, and lines of `keys.txt` that describe nothing.
pub fn undescribed() -> (Vec<String>, Vec<String>) {
    let schema = schema();
    let keys = keys(&schema);
    let bare = keys.keys().filter(|path| meaning(path).is_none());
    let bare = bare.cloned().collect();
    let used: BTreeSet<&str> = keys.keys().filter_map(|p| Some(meaning(p)?.0)).collect();
    let idle = lines().filter(|(key, _)| !used.contains(key));
    (bare, idle.map(|(key, _)| key.to_owned()).collect())
}
