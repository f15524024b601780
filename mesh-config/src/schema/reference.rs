//! The schema as a person reads it: a table for each section, in Markdown.

use super::describe::{keys, schema};
use serde_json::Value;
use std::fmt::Write;

/// Every key of mesh.yaml, with what it takes and what it means.
pub fn reference() -> String {
    let schema = schema();
    let mut out = String::new();
    let mut section = String::new();
    for (path, key) in keys(&schema) {
        let first = path.split(['.', '[']).next().unwrap_or_default();
        let words = key["description"].as_str().unwrap_or_default();
        if first != section {
            section = first.to_owned();
            let _ = write!(out, "\n## `{section}`\n\n{words}\n");
            if key["properties"].is_object() || key["items"].is_object() {
                out.push_str("\n| Key | Takes | Meaning |\n|---|---|---|\n");
            } else {
                let _ = writeln!(out, "\nTakes {}.", takes(key));
            }
            continue;
        }
        let words = words.replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `{path}` | {} | {words} |",
            takes(key).replace('|', "\\|")
        );
    }
    out
}

/// The form of a value in words.
fn takes(key: &Value) -> String {
    if let Some(ways) = key["anyOf"].as_array() {
        let variable = |way: &&Value| way["$ref"] == "#/$defs/variable";
        let ways: Vec<String> = ways
            .iter()
            .filter(|way| !variable(way))
            .map(takes)
            .collect();
        return ways.join(", or ");
    }
    if let Some(name) = key["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return format!("the filter's own configuration ({name})");
    }
    if !key["const"].is_null() {
        return format!("`{}`", plain(&key["const"]));
    }
    if let Some(words) = key["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|w| format!("`{}`", plain(w))).collect();
        return words.join(", ");
    }
    let kind = match &key["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("integer") => format!("{} to {}", key["minimum"], key["maximum"]),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("array") => {
            let item = takes(&key["items"]);
            let item = if item.is_empty() {
                "mappings".to_owned()
            } else {
                item
            };
            format!("a list: {item}")
        }
        Some("object") if key["properties"].is_object() => "a mapping".to_owned(),
        Some("object") => "a mapping by name".to_owned(),
        Some("string") => match key["examples"][0].as_str() {
            Some(example) => format!("text, such as `{example}`"),
            None => "text".to_owned(),
        },
        _ => String::new(),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
