//! What a JSON value consists of: its paths and types, its texts, its numbers.
//!
//! Elements of an array share one path (`runs[].ms`), so a thousand records read like one.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most values looked at.
const MAX_VALUES: usize = 50_000;
/// Most different paths that are told apart.
const MAX_PATHS: usize = 200;
/// Most text that is collected, in bytes.
const MAX_TEXT: usize = 1024 * 1024;

/// What was found.
#[derive(Default)]
pub(super) struct Findings {
    paths: Vec<Path>,
    places: BTreeMap<(String, &'static str), usize>,
    seen: usize,
    /// All texts, one after another.
    pub(super) text: String,
    /// Figures by path.
    pub(super) numbers: BTreeMap<String, Sum>,
    /// Whether something was passed over.
    pub(super) cut: bool,
}

struct Path {
    path: String,
    kind: &'static str,
    size: Option<usize>,
    times: usize,
}

/// Running figures of the numbers at one path.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Findings {
    /// Takes `value` in under the name `path`. Depth is bounded by what the reader of the JSON allows.
    pub(super) fn look_at(&mut self, path: &str, value: &Value) {
        if self.seen >= MAX_VALUES {
            self.cut = true;
            return;
        }
        self.seen += 1;
        let (kind, size) = match value {
            Value::Null => ("null", None),
            Value::Bool(_) => ("boolean", None),
            Value::Number(n) if n.is_f64() => ("float", None),
            Value::Number(_) => ("integer", None),
            Value::String(text) => ("string", Some(text.chars().count())),
            Value::Array(items) => ("array", Some(items.len())),
            Value::Object(fields) => ("object", Some(fields.len())),
        };
        self.note(path, kind, size);
        match value {
            Value::Number(number) => self.add(path, number.as_f64()),
            Value::String(text) => self.append(text),
            Value::Array(items) => {
                let inner = format!("{path}[]");
                items.iter().for_each(|item| self.look_at(&inner, item));
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.look_at(&format!("{path}.{name}"), field);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn note(&mut self, path: &str, kind: &'static str, size: Option<usize>) {
        let key = (path.to_owned(), kind);
        if let Some(known) = self.places.get(&key).and_then(|at| self.paths.get_mut(*at)) {
            known.times += 1;
            known.size = known.size.max(size);
        } else if self.paths.len() < MAX_PATHS {
            self.places.insert(key, self.paths.len());
            self.paths.push(Path {
                path: path.to_owned(),
                kind,
                size,
                times: 1,
            });
        } else {
            self.cut = true;
        }
    }

    fn add(&mut self, path: &str, number: Option<f64>) {
        let Some(number) = number else { return };
        if self.numbers.len() >= MAX_PATHS && !self.numbers.contains_key(path) {
            self.cut = true;
            return;
        }
        let sum = self.numbers.entry(path.to_owned()).or_insert(Sum {
            count: 0,
            sum: 0.0,
            min: number,
            max: number,
        });
        sum.count += 1;
        sum.sum += number;
        sum.min = sum.min.min(number);
        sum.max = sum.max.max(number);
    }

    fn append(&mut self, text: &str) {
        // Single words are names and codes; sentences are what can be read.
        if !text.trim().contains(char::is_whitespace) {
            return;
        }
        if self.text.len() + text.len() > MAX_TEXT {
            self.cut = true;
            return;
        }
        self.text.push_str(text.trim());
        self.text.push('\n');
    }

    /// Paths with their types; `size` is the largest at that path.
    pub(super) fn structure(&self) -> Value {
        self.paths
            .iter()
            .map(|p| {
                let mut entry = json!({"path": p.path, "type": p.kind});
                if let Some(size) = p.size {
                    entry["size"] = json!(size);
                }
                if p.times > 1 {
                    entry["times"] = json!(p.times);
                }
                entry
            })
            .collect()
    }

    /// Sums, means and extremes by path.
    pub(super) fn arithmetic(&self) -> Value {
        let entry = |(path, s): (&String, &Sum)| {
            let mean = s.sum / s.count as f64;
            let figures =
                json!({"count": s.count, "sum": s.sum, "mean": mean, "min": s.min, "max": s.max});
            (path.clone(), figures)
        };
        Value::Object(self.numbers.iter().map(entry).collect())
    }
}
