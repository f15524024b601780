//! JSON for people: what is short stays on its line, what is long is cut and says so.

use crate::screen::plain;
use serde_json::{Map, Value};

/// Widest line in characters; a value that fits stays on it.
const WIDTH: usize = 100;
/// Fields from which on an item of a list stays on one line.
const WIDE: usize = 6;

/// How much of a value is shown.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Most lines.
    pub lines: usize,
    /// Levels that get lines of their own; what lies deeper stays on its parent's.
    pub depth: usize,
}

/// `value` as indented text.
pub fn outline(value: &Value, indent: usize, extent: Extent) -> String {
    let mut lines = Vec::new();
    write(value, indent, None, extent.depth, &mut lines);
    let more = lines.len().saturating_sub(extent.lines);
    if more > 0 {
        lines.truncate(extent.lines);
        lines.push(format!("{:indent$}… {more} more lines", ""));
    }
    lines.join("\n")
}

fn write(value: &Value, indent: usize, name: Option<&str>, depth: usize, lines: &mut Vec<String>) {
    let name = name.map(plain);
    let name = name.as_deref();
    let label = name.map(|n| format!("{n}: ")).unwrap_or_default();
    let short = flat(value);
    let left = WIDTH.saturating_sub(indent + label.chars().count());
    if short.chars().count() <= left {
        lines.push(format!("{:indent$}{label}{short}", ""));
        return;
    }
    match value {
        Value::Object(map) if depth > 0 => {
            let (deeper, depth) = heading(name, indent, depth, lines);
            for (key, value) in ordered(map) {
                write(value, deeper, Some(key), depth, lines);
            }
        }
        Value::Array(items) if depth > 0 => {
            let (deeper, depth) = heading(name, indent, depth, lines);
            for item in items {
                write_item(item, deeper, depth, lines);
            }
        }
        Value::String(_) => wrap(&short, &label, indent, left, lines),
        _ => {
            let cut: String = short.chars().take(left.saturating_sub(1)).collect();
            lines.push(format!("{:indent$}{label}{cut}…", ""));
        }
    }
}

/// A long text over as many lines as it takes.
fn wrap(text: &str, label: &str, indent: usize, left: usize, lines: &mut Vec<String>) {
    let mut line = format!("{:indent$}{label}", "");
    let mut width = 0;
    let hanging = indent + 2;
    for word in text.split(' ') {
        let long = word.chars().count();
        if width > 0 && width + 1 + long > left {
            lines.push(std::mem::replace(&mut line, format!("{:hanging$}", "")));
            width = 0;
        }
        if width > 0 {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += long;
    }
    lines.push(line);
}

/// An item of a list: marked on its first line, its further lines below.
fn write_item(item: &Value, indent: usize, depth: usize, lines: &mut Vec<String>) {
    let first = lines.len();
    // A list of wide things is read like a table: a line each.
    let wide = item.as_object().is_some_and(|fields| fields.len() > WIDE);
    let depth = if wide { 0 } else { depth };
    write(item, indent + 2, None, depth, lines);
    if let Some(line) = lines.get_mut(first) {
        *line = format!("{:indent$}- {}", "", line.trim_start());
    }
}

fn heading(
    name: Option<&str>,
    indent: usize,
    depth: usize,
    lines: &mut Vec<String>,
) -> (usize, usize) {
    match name {
        None => (indent, depth),
        Some(name) => {
            lines.push(format!("{:indent$}{name}:", ""));
            (indent + 2, depth.saturating_sub(1))
        }
    }
}

/// What says what a thing is comes before what it holds.
fn ordered(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    const FIRST: [&str; 5] = ["summary", "name", "id", "title", "type"];
    let rank = |key: &str| FIRST.iter().position(|f| *f == key).unwrap_or(FIRST.len());
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| rank(key));
    entries.into_iter()
}

/// On one line, without the quotes of keys and plain words.
fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flat).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<_> = ordered(map)
                .map(|(key, value)| format!("{}: {}", plain(key), flat(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: Extent = Extent {
        lines: 10,
        depth: 9,
    };

    #[test]
    fn short_stays_short_and_long_is_cut() {
        let value = json!({"rows": 3, "columns": [{"type": "t", "name": "a"}]});
        let line = "  {columns: [{name: a, type: t}], rows: 3}";
        assert_eq!(outline(&value, 2, ALL), line);
        let long = json!({"a": "x".repeat(90), "b": {"c": 1}});
        assert_eq!(outline(&long, 0, ALL).lines().count(), 2);
        let many = json!((0..100).map(|_| "y".repeat(20)).collect::<Vec<_>>());
        assert!(outline(&many, 0, ALL).ends_with("… 90 more lines"));
        let flat = outline(&many, 0, Extent { lines: 9, depth: 0 });
        assert_eq!(flat.chars().count(), WIDTH);
    }

    #[test]
    fn items_are_marked() {
        let item = json!({"why": "x".repeat(60), "change": "y".repeat(60)});
        let shown = outline(&json!({"advice": [item]}), 0, ALL);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("  - change: y"), "{shown}");
        assert!(lines[2].starts_with("    why: x"), "{shown}");
    }

    #[test]
    fn a_long_text_is_wrapped_whole() {
        let text = "word ".repeat(50);
        let shown = outline(&json!({"summary": text.trim()}), 4, ALL);
        assert!(shown.lines().all(|l| l.chars().count() <= WIDTH), "{shown}");
        assert_eq!(shown.matches("word").count(), 50);
    }

    #[test]
    fn an_agent_cannot_paint_the_terminal() {
        let value = json!({"\u{1b}[31mred": "\u{1b}[31mred\n\rback"});
        assert!(!outline(&value, 0, ALL).contains(char::is_control));
        let long = json!({"\u{1b}[31mred": ["y".repeat(60), "z".repeat(60)]});
        assert!(!outline(&long, 0, ALL).contains('\u{1b}'));
    }
}
