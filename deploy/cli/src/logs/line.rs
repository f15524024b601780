//! One line of the log: whose it is, how heavy it weighs, and how it is shown.

use crate::screen::{Paint, Screen, json_line, plain};
use mesh_protocol::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tracing::Level;

/// What a part can be called that is no name.
const KINDS: [&str; 6] = ["agent", "bus", "gateway", "mesh", "orchestrator", "sidecar"];
/// Most parts that are named to whoever asked for another.
const MOST_PARTS: usize = 64;
/// Fields that are shown otherwise than as `name=value`.
const NOT_LISTED: [&str; 4] = ["message", "agent", "stream", "service"];

/// A line as `mesh up` wrote it.
pub struct Line {
    value: Value,
    level: Level,
    kind: &'static str,
    name: Option<String>,
}

/// Which lines are asked for.
pub struct Wanted {
    parts: Vec<String>,
    level: Level,
    since: Option<Timestamp>,
}

impl Wanted {
    pub fn new(parts: &[String], level: Level, since: Option<Timestamp>) -> Self {
        Self {
            parts: parts.iter().map(spelt).collect(),
            level,
            since,
        }
    }

    pub fn wants(&self, line: &Line) -> bool {
        // tracing's levels are ordered by how much is written: error is the least.
        line.level <= self.level
            && (self.parts.is_empty() || self.parts.iter().any(|part| line.is_of(part)))
            && self
                .since
                .is_none_or(|since| line.time().is_none_or(|time| time >= since))
    }
}

/// Whose lines were asked for and are not there, to be said once.
pub struct Parts {
    unseen: Vec<String>,
    there: BTreeSet<String>,
    said: bool,
}

impl Parts {
    pub fn new(asked: &[String]) -> Self {
        Self {
            unseen: asked.iter().map(spelt).collect(),
            there: BTreeSet::new(),
            said: false,
        }
    }

    pub fn saw(&mut self, line: &Line) {
        if self.said || self.unseen.is_empty() {
            return;
        }
        self.unseen.retain(|part| !line.is_of(part));
        if self.there.len() < MOST_PARTS {
            self.there.insert(line.whose());
        }
    }

    /// What to say of them, the first time.
    pub fn unseen(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.said, true) || self.unseen.is_empty() {
            return None;
        }
        let there: Vec<&str> = self.there.iter().map(String::as_str).collect();
        let (unseen, there) = (self.unseen.join(", "), there.join(", "));
        Some(plain(&format!(
            "no line is of {unseen}; there are lines of {there}"
        )))
    }
}

/// A part as lines have it, however it was typed.
fn spelt(part: impl AsRef<str>) -> String {
    part.as_ref().replace('_', "-").replace(' ', "/")
}

impl Line {
    /// `None` for what no `mesh up` wrote.
    pub fn read(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let level = value.get("level")?.as_str()?.parse().ok()?;
        let target = value.get("target").and_then(Value::as_str);
        let fields = value.get("fields");
        let field = |name: &str| fields?.get(name)?.as_str();
        let part = value.pointer("/spans/0/part").and_then(Value::as_str);
        let kind = kind(target.unwrap_or_default(), field("stream").is_some());
        let name = field("agent")
            .or_else(|| field("service"))
            // `sidecar NAME`, `agent NAME`; the others are called by their kind.
            .or_else(|| Some(part?.split_once(' ')?.1))
            .or_else(|| Some(field("spiffe_id")?.rsplit_once('/')?.1))
            .map(str::to_owned);
        Some(Self {
            name,
            value,
            level,
            kind,
        })
    }

    fn is_of(&self, part: &str) -> bool {
        match part.split_once('/') {
            Some((kind, name)) => self.kind == kind && self.name.as_deref() == Some(name),
            // The orchestrator is not the sidecar that is called as it is.
            None if KINDS.contains(&part) => self.kind == part,
            None => self.name.as_deref() == Some(part),
        }
    }

    fn time(&self) -> Option<Timestamp> {
        serde_json::from_value(self.value.get("timestamp")?.clone()).ok()
    }

    /// The line for programs, with whose it is.
    pub fn json(&self) -> String {
        let mut value = self.value.clone();
        if let Value::Object(line) = &mut value {
            line.insert("part".to_owned(), self.whose().into());
        }
        json_line(&value)
    }

    fn whose(&self) -> String {
        match &self.name {
            Some(name) => format!("{}/{name}", self.kind),
            None => self.kind.to_owned(),
        }
    }

    /// The line for people.
    pub fn shown(&self, screen: &Screen) -> String {
        let time = self.value.get("timestamp").and_then(Value::as_str);
        let time = screen.paint(Paint::Dim, plain(time.unwrap_or_default()));
        let whose = screen.paint(Paint::Bold, format!("{:<28}", plain(&self.whose())));
        let none = Map::new();
        let fields = self.value.get("fields").and_then(Value::as_object);
        let fields = fields.unwrap_or(&none);
        let message = plain(&flat(fields.get("message").unwrap_or(&Value::Null)));
        if fields.contains_key("stream") {
            return format!("{time} {whose} | {message}");
        }
        let paint = match self.level {
            Level::ERROR => Paint::Bad,
            Level::WARN => Paint::Odd,
            _ => Paint::Dim,
        };
        let level = screen.paint(paint, format!("{:<5}", self.level.as_str()));
        let mut shown = format!("{time} {whose} {level} {message}");
        for (name, value) in fields {
            if !NOT_LISTED.contains(&name.as_str()) {
                shown.push_str(&format!(" {}={}", plain(name), plain(&flat(value))));
            }
        }
        shown
    }
}

/// The kind of part that writes under this target.
fn kind(target: &str, program: bool) -> &'static str {
    if program {
        return "agent";
    }
    match target.split("::").next().unwrap_or_default() {
        "mesh_gateway" | "mesh_wasm_host" | "mesh_policy" | "access" => "gateway",
        "mesh_orchestrator" => "orchestrator",
        "mesh_sidecar" => "sidecar",
        "mesh_agents" => "agent",
        "mesh_bus" => "bus",
        _ => "mesh",
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(target: &str, level: &str, fields: Value) -> Line {
        let value = json!({"timestamp": "2026-11-28T12:00:00.5Z", "level": level, "target": target, "fields": fields});
        Line::read(value.to_string().as_bytes()).unwrap()
    }

    fn wanted(parts: &[&str], level: Level, since: &str) -> Wanted {
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let since = serde_json::from_value(json!(since)).ok();
        Wanted::new(&parts, level, since)
    }

    #[test]
    fn a_line_is_of_its_kind_and_of_its_name() {
        let sidecar = line("mesh_sidecar::worker", "INFO", json!({"agent": "coder"}));
        let program = line(
            "mesh_local::child",
            "INFO",
            json!({"agent": "coder", "stream": "stderr", "message": "hello \u{1b}[2J"}),
        );
        let of = |line: &Line, part: &str| wanted(&[part], Level::TRACE, "").wants(line);
        for (part, first, second) in [
            ("coder", true, true),
            ("sidecar", true, false),
            ("agent", false, true),
            ("sidecar/coder", true, false),
            ("agent coder", false, true),
            ("gateway", false, false),
        ] {
            assert_eq!(
                (of(&sidecar, part), of(&program, part)),
                (first, second),
                "{part}"
            );
        }
        let by_certificate = json!({"spiffe_id": "spiffe://m/ns/default/dc/local/svc/gateway"});
        let certificate = line("mesh_sidecar::identity", "INFO", by_certificate);
        assert!(of(&certificate, "sidecar/gateway"));
        let shown = program.shown(&Screen::stderr());
        assert!(shown.ends_with("| hello  [2J"), "{shown}");
        assert!(Line::read(b"not JSON").is_none() && Line::read(b"{}").is_none());
    }

    #[test]
    fn level_and_time_choose() {
        let info = line("mesh_gateway", "INFO", json!({"message": "x", "n": 7}));
        assert!(wanted(&[], Level::INFO, "").wants(&info));
        assert!(!wanted(&[], Level::WARN, "").wants(&info));
        assert!(wanted(&[], Level::INFO, "2026-11-28T11:00:00Z").wants(&info));
        assert!(!wanted(&[], Level::INFO, "2026-11-28T13:00:00Z").wants(&info));
        assert!(info.shown(&Screen::stderr()).ends_with("INFO  x n=7"));
        let json: Value = serde_json::from_str(&info.json()).unwrap();
        assert_eq!(
            (&json["part"], &json["fields"]["n"]),
            (&json!("gateway"), &json!(7))
        );
    }
}
