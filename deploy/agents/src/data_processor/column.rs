//! Describes one column: its type, and the statistics that its type allows.

use super::parse::Cell;
use super::{date, numbers};
use serde_json::{Value, json};
use std::collections::HashMap;

/// How many of the most frequent values are listed.
const TOP: usize = 5;
/// Longest listed value, in characters.
const SHOWN: usize = 80;
/// Most different values that are told apart.
const MAX_DISTINCT: usize = 100_000;

/// The description of the column `name`.
pub(super) fn describe(name: &str, cells: &[Cell]) -> Value {
    let filled: Vec<&Cell> = cells.iter().filter(|c| **c != Cell::Null).collect();
    let kind = kind(&filled);
    let mut column = json!({
        "name": name,
        "type": kind,
        "count": filled.len(),
        "nulls": cells.len() - filled.len(),
    });
    frequencies(&filled, &mut column);
    match kind {
        "integer" | "float" => numbers::describe(&filled, &mut column),
        "boolean" => {
            let yes = filled
                .iter()
                .filter(|c| ***c == Cell::Boolean(true))
                .count();
            column["true"] = json!(yes);
            column["false"] = json!(filled.len() - yes);
        }
        "date" => {
            let moment = |cell: &&&Cell| date::moment(&text(cell));
            column["min"] = json!(filled.iter().min_by_key(moment).map(|c| shown(c)));
            column["max"] = json!(filled.iter().max_by_key(moment).map(|c| shown(c)));
        }
        "string" => {
            let lengths = || filled.iter().map(|c| text(c).chars().count());
            column["min_length"] = json!(lengths().min());
            column["max_length"] = json!(lengths().max());
        }
        _ => {}
    }
    column
}

/// The narrowest type that holds every value; texts hold all.
fn kind(filled: &[&Cell]) -> &'static str {
    let all = |fits: fn(&Cell) -> bool| filled.iter().all(|c| fits(c));
    if filled.is_empty() {
        "empty"
    } else if all(|c| matches!(c, Cell::Integer(_))) {
        "integer"
    } else if all(|c| matches!(c, Cell::Integer(_) | Cell::Float(_))) {
        "float"
    } else if all(|c| matches!(c, Cell::Boolean(_))) {
        "boolean"
    } else if all(|c| matches!(c, Cell::Date(_))) {
        "date"
    } else {
        "string"
    }
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Boolean(b) => b.to_string(),
        Cell::Integer(i) => i.to_string(),
        Cell::Float(f) => f.to_string(),
        Cell::Date(text) | Cell::Text(text) => text.clone(),
    }
}

fn shown(cell: &Cell) -> String {
    text(cell).chars().take(SHOWN).collect()
}

fn frequencies(filled: &[&Cell], column: &mut Value) {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut complete = true;
    for cell in filled {
        let value = text(cell);
        if let Some(count) = counts.get_mut(&value) {
            *count += 1;
        } else if counts.len() < MAX_DISTINCT {
            counts.insert(value, 1);
        } else {
            complete = false;
        }
    }
    column[if complete {
        "distinct"
    } else {
        "distinct_at_least"
    }] = json!(counts.len());
    let mut top: Vec<(String, u64)> = counts.into_iter().collect();
    top.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    top.truncate(TOP);
    let top: Vec<Value> = top
        .into_iter()
        .map(|(value, count)| {
            json!({"value": value.chars().take(SHOWN).collect::<String>(), "count": count})
        })
        .collect();
    column["top"] = Value::Array(top);
}
