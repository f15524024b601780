//! What is compared: resources by name, each as normalised JSON, and what is different about them.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Whose resources, in the order in which they are applied: the ways that tasks travel before what lets them in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// RabbitMQ's management API
    Rabbitmq,
    /// Consul's agent
    Consul,
    /// Kong's admin API
    Kong,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Consul => "consul",
            Self::Kong => "kong",
        })
    }
}

/// One resource. Keys are in the order of dependency: what others need comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub part: Part,
    /// Place among the kinds of its part.
    rank: u8,
    /// Such as `queue`.
    pub kind: &'static str,
    pub name: String,
}

impl Key {
    pub fn new(part: Part, (rank, kind): (u8, &'static str), name: impl Into<String>) -> Self {
        Self {
            part,
            rank,
            kind,
            name: name.into(),
        }
    }
}

impl Key {
    /// Its place among what goes, the highest first: what others need goes last. A queue goes before its bindings, and
    /// takes them along: one that has to stay, since it holds messages, keeps them.
    fn going(&self) -> u16 {
        match self.kind {
            "binding" => 25,
            _ => u16::from(self.rank) * 10,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.part, self.kind, self.name)
    }
}

/// Resources with their normalised form.
pub type Resources = BTreeMap<Key, Value>;

/// What has to be done for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    Created,
    Updated,
    Deleted,
}

/// A difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub key: Key,
    pub action: Action,
    /// As it is held; may hold secrets.
    pub before: Option<Value>,
    /// As mesh.yaml wants it; may hold secrets.
    pub after: Option<Value>,
    /// What is to be known before it is done.
    pub note: Option<String>,
}

/// Everything that is different, part by part: what is missing or different in the order of dependency, then what is
/// too much in the opposite order.
pub fn changes(wanted: &Resources, held: &Resources) -> Vec<Change> {
    let change = |key: &Key, action, before: Option<&Value>, after: Option<&Value>| Change {
        key: key.clone(),
        action,
        before: before.cloned(),
        after: after.cloned(),
        note: None,
    };
    let mut all = Vec::new();
    for part in [Part::Rabbitmq, Part::Consul, Part::Kong] {
        for (key, after) in wanted.iter().filter(|(key, _)| key.part == part) {
            match held.get(key) {
                None => all.push(change(key, Action::Created, None, Some(after))),
                Some(before) if before != after => {
                    all.push(change(key, Action::Updated, Some(before), Some(after)));
                }
                Some(_) => {}
            }
        }
        let surplus = held.iter().filter(|(key, _)| key.part == part);
        let mut surplus: Vec<_> = surplus
            .filter(|(key, _)| !wanted.contains_key(key))
            .collect();
        surplus.sort_by_key(|(key, _)| std::cmp::Reverse(key.going()));
        let gone = surplus.into_iter();
        all.extend(gone.map(|(key, before)| change(key, Action::Deleted, Some(before), None)));
    }
    all
}

/// `value` without what says nothing: null, empty texts, lists and mappings, at any depth.
pub fn pruned(value: Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, pruned(value)))
            .filter(|(_, value)| says(value))
            .collect(),
        Value::Array(items) => items.into_iter().map(pruned).filter(says).collect(),
        other => other,
    }
}

/// A text of `value`, empty where there is none.
pub fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_come_in_the_order_in_which_they_can_be_mended() {
        let (queue, binding) = ((3, "queue"), (4, "binding"));
        let key = |kind, name: &str| Key::new(Part::Rabbitmq, kind, name);
        let consul = Key::new(Part::Consul, (1, "service"), "s");
        let wanted = Resources::from([
            (key(binding, "new"), json!(1)),
            (key(queue, "new"), json!(1)),
            (key(queue, "same"), json!({"a": 1})),
            (key(queue, "other"), json!(1)),
            (consul.clone(), json!(1)),
        ]);
        let held = Resources::from([
            (key(queue, "same"), json!({"a": 1})),
            (key(queue, "other"), json!(2)),
            (key(queue, "old"), json!(1)),
            (key(binding, "old"), json!(1)),
        ]);
        let all = changes(&wanted, &held);
        let said: Vec<_> = all.iter().map(|c| (c.key.clone(), c.action)).collect();
        assert_eq!(
            said,
            [
                (key(queue, "new"), Action::Created),
                (key(queue, "other"), Action::Updated),
                (key(binding, "new"), Action::Created),
                (key(queue, "old"), Action::Deleted),
                (key(binding, "old"), Action::Deleted),
                (consul, Action::Created),
            ]
        );
    }

    #[test]
    fn what_says_nothing_is_no_difference() {
        let value = json!({"a": {"b": [], "c": ""}, "d": [null, {"e": 0}], "f": false});
        assert_eq!(pruned(value), json!({"d": [{"e": 0}], "f": false}));
    }
}
