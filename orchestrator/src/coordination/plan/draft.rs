//! A proposed collaboration, as loose as clients and models write it; nothing in it has been checked.
//!
//! What has one meaning is read, however it is written; what has none is kept as a fault, since a plan without
//! it is another plan.

use super::finding::{Code, Findings};
use crate::planner::draft::{Usage, clip};
use serde_json::Value;

/// Most parts of one list that are read: the check refuses longer lists anyhow.
const MAX_READ: usize = 10_000;

/// A proposed collaboration.
#[derive(Debug, Default)]
pub struct Draft {
    /// Who does what.
    pub(super) nodes: Vec<DraftNode>,
    /// What flows.
    pub(super) edges: Vec<DraftEdge>,
    /// Who waits.
    pub(super) points: Vec<DraftPoint>,
    /// In seconds.
    pub(super) estimated_time: f64,
    /// For people.
    pub(super) risks: Vec<String>,
    /// What could not be read.
    pub(super) findings: Findings,
    /// What it cost, where a model wrote it and says so.
    pub(super) usage: Usage,
}

#[derive(Debug, Default)]
pub(super) struct DraftNode {
    pub(super) agent: String,
    pub(super) role: String,
    pub(super) priority: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct DraftEdge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) data: Option<String>,
    pub(super) weight: Option<u64>,
}

#[derive(Debug)]
pub(super) enum DraftPoint {
    Barrier {
        after: Vec<String>,
        before: Vec<String>,
    },
    Note(String),
}

impl Draft {
    /// Reads a plan `{nodes, edges, synchronization_points, estimated_completion}`.
    pub fn from_json(value: &Value) -> Self {
        const KNOWN: [&str; 4] = [
            "nodes",
            "edges",
            "synchronization_points",
            "estimated_completion",
        ];
        let mut draft = Self {
            estimated_time: seconds(value.get("estimated_completion")),
            ..Self::default()
        };
        let found = &mut draft.findings;
        known(value, "", &KNOWN, found);
        for (place, node) in list(value, "nodes", found) {
            known(node, &place, &["agent", "role", "priority"], found);
            draft.nodes.push(DraftNode {
                agent: text(node, &place, "agent", found).unwrap_or_default(),
                role: text(node, &place, "role", found).unwrap_or_default(),
                priority: whole(node, &place, "priority", found),
            });
        }
        for (place, edge) in list(value, "edges", found) {
            known(edge, &place, &["from", "to", "data", "weight"], found);
            draft.edges.push(DraftEdge {
                from: text(edge, &place, "from", found).unwrap_or_default(),
                to: text(edge, &place, "to", found).unwrap_or_default(),
                data: text(edge, &place, "data", found),
                weight: whole(edge, &place, "weight", found),
            });
        }
        for (place, point) in list(value, "synchronization_points", found) {
            if let Value::String(note) = point {
                draft.points.push(DraftPoint::Note(note.clone()));
                continue;
            }
            known(point, &place, &["after", "before"], found);
            draft.points.push(DraftPoint::Barrier {
                after: texts(point, &place, "after", found),
                before: texts(point, &place, "before", found),
            });
        }
        draft
    }
}

/// The part `name` of `value`, unless it is null.
fn part<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

fn list<'a>(value: &'a Value, name: &str, found: &mut Findings) -> Vec<(String, &'a Value)> {
    match part(value, name) {
        None => Vec::new(),
        Some(Value::Array(list)) => {
            let parts = list.iter().take(MAX_READ).enumerate();
            parts
                .map(|(n, part)| (format!("{name}[{n}]"), part))
                .collect()
        }
        Some(_) => {
            found.add(
                Code::C012,
                name,
                format!("{name} cannot be read: give a list"),
            );
            Vec::new()
        }
    }
}

fn known(value: &Value, place: &str, names: &[&str], found: &mut Findings) {
    let Some(object) = value.as_object() else {
        let detail = format!("it is no object: give one with {}", names.join(", "));
        found.add(Code::C012, place, detail);
        return;
    };
    let odd = object
        .iter()
        .find(|(name, value)| !names.contains(&name.as_str()) && !value.is_null());
    if let Some((name, _)) = odd {
        let detail = format!(
            "{:?} means nothing here: there is only {}",
            clip(name, 64),
            names.join(", ")
        );
        found.add(Code::C012, place, detail);
    }
}

fn text(value: &Value, place: &str, name: &str, found: &mut Findings) -> Option<String> {
    match part(value, name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => {
            found.add(Code::C012, format!("{place}.{name}"), "give a text");
            None
        }
    }
}

fn texts(value: &Value, place: &str, name: &str, found: &mut Findings) -> Vec<String> {
    let parts = match part(value, name) {
        None => &[][..],
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let texts: Vec<String> = parts
        .iter()
        .filter_map(|part| part.as_str().map(str::to_owned))
        .collect();
    if texts.len() < parts.len() {
        let detail = "give a list of agents' names";
        found.add(Code::C012, format!("{place}.{name}"), detail);
    }
    texts
}

/// A whole number, as one or as its digits.
fn whole(value: &Value, place: &str, name: &str, found: &mut Findings) -> Option<u64> {
    let value = part(value, name)?;
    let number = match value {
        Value::String(digits) => digits.trim().parse().ok(),
        other => other.as_u64(),
    };
    if number.is_none() {
        found.add(Code::C012, format!("{place}.{name}"), "give a whole number");
    }
    number
}

/// The number that an estimate begins with; a minute where there is none.
fn seconds(value: Option<&Value>) -> f64 {
    let number = match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => {
            let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
            text.get(..end.unwrap_or(text.len()))
                .and_then(|digits| digits.parse().ok())
        }
        _ => None,
    };
    let number = number.filter(|n: &f64| n.is_finite());
    number.unwrap_or(60.0).clamp(0.0, 86_400.0)
}
