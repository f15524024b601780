//! What is left of a run: the table on the terminal, `target/bench.json`, `docs/benchmarks.md`.

use crate::machine;
use crate::row::{Row, figure};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where the rows are, for programs.
pub const JSON: &str = "target/bench.json";
/// Where the table is, for people.
pub const PAGE: &str = "docs/benchmarks.md";

/// In the page, before its rows as JSON: a run of one row keeps the others, also on a machine whose
/// `target` is new.
const ROWS: &str = "<!-- rows: ";
const ROWS_END: &str = " -->";

/// Writes `fresh` into both files, beside the rows that were there; `order` names all rows there are.
///
/// # Errors
/// When a file cannot be written.
pub fn keep(root: &Path, fresh: &[Row], order: &[&str]) -> Result<()> {
    let before = rows_of(&fs::read_to_string(root.join(PAGE)).unwrap_or_default());
    let rows = merge(&before, fresh, order);
    fs::write(root.join(JSON), serde_json::to_string_pretty(&rows)? + "\n")
        .with_context(|| format!("cannot write {JSON}"))?;
    fs::write(root.join(PAGE), page(&rows)?).with_context(|| format!("cannot write {PAGE}"))
}

fn merge(before: &[Row], fresh: &[Row], order: &[&str]) -> Vec<Row> {
    let find = |rows: &[Row], name: &str| rows.iter().find(|row| row.name == name).cloned();
    order
        .iter()
        .filter_map(|name| find(fresh, name).or_else(|| find(before, name)))
        .collect()
}

fn rows_of(page: &str) -> Vec<Row> {
    page.lines()
        .find_map(|line| line.strip_prefix(ROWS)?.strip_suffix(ROWS_END))
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

const HEAD: [&str; 7] = ["row", "unit", "ours", "peer", "ratio", "goal", "holds"];

fn cells(row: &Row) -> [String; 7] {
    let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), figure);
    [
        row.name.clone(),
        row.unit.clone(),
        figure(row.ours),
        match (row.peer, &row.peer_name) {
            (Some(peer), Some(name)) => format!("{} ({name})", figure(peer)),
            _ => "–".to_owned(),
        },
        optional(row.ratio),
        row.goal.clone().unwrap_or_else(|| "–".to_owned()),
        match row.holds {
            Some(true) => "yes".to_owned(),
            Some(false) => "NO".to_owned(),
            None => "–".to_owned(),
        },
    ]
}

/// The table for a terminal, and below it the figures behind its rows.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| cells(row).to_vec()));
    let mut text = aligned(&lines);
    for row in rows.iter().filter(|row| !row.table.is_empty()) {
        text.push_str(&format!("\n{}\n{}", row.name, aligned(&row.table)));
    }
    text
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn page(rows: &[Row]) -> Result<String> {
    let mut page = String::from(
        "# Benchmarks\n\n\
         Written by `make bench`; `make bench ONLY=name` measures one row anew and keeps the others. The same rows are in\n\
         `target/bench.json`. Ours and the peer run in turns on the same machine, which they share with the servers and the\n\
         load; a row is the median of its rounds.\n\n",
    );
    writeln!(page, "| {} |", HEAD.join(" | "))?;
    writeln!(page, "|{}", "---|".repeat(HEAD.len()))?;
    for row in rows {
        writeln!(page, "| {} |", cells(row).join(" | "))?;
    }
    page.push_str("\n## The machine\n\n");
    for (name, value) in machine::facts() {
        writeln!(page, "- {name}: {value}")?;
    }
    page.push_str("\n## The rows\n");
    for row in rows {
        writeln!(page, "\n### {}\n", row.name)?;
        if let Some(about) = crate::rows::about(&row.name) {
            writeln!(page, "{about}\n")?;
        }
        for (place, cells) in row.table.iter().enumerate() {
            writeln!(page, "| {} |", cells.join(" | "))?;
            if place == 0 {
                writeln!(page, "|{}", "---|".repeat(cells.len()))?;
            }
        }
        if !row.table.is_empty() {
            page.push('\n');
        }
        for note in &row.notes {
            writeln!(page, "- {note}")?;
        }
        writeln!(page, "- measured {}", row.measured)?;
    }
    writeln!(page, "\n{ROWS}{}{ROWS_END}", serde_json::to_string(rows)?)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Goal;

    #[test]
    fn one_new_row_keeps_the_others() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("docs")).unwrap();
        fs::create_dir_all(root.path().join("target")).unwrap();
        let order = ["first", "second"];
        let first = Row::alone("first", "ms", &[1.0]).with_note("a --> in a note");
        let second = Row::beside("second", "x/s", "peer", &[(2.0, 1.0)]);
        keep(root.path(), &[second.clone(), first.clone()], &order).unwrap();
        let newer = Row::alone("first", "ms", &[3.0]).with_goal(Goal::AtMost(2.0));
        keep(root.path(), std::slice::from_ref(&newer), &order).unwrap();

        let json = fs::read_to_string(root.path().join(JSON)).unwrap();
        let rows: Vec<Row> = serde_json::from_str(&json).unwrap();
        assert_eq!(rows, [newer, second]);
        let page = fs::read_to_string(root.path().join(PAGE)).unwrap();
        assert!(
            page.contains("| first | ms | 3.00 | – | – | <= 2 | NO |"),
            "{page}"
        );
        assert!(
            page.contains("| second | x/s | 2.00 | 1.00 (peer) | 2.00 | – | – |"),
            "{page}"
        );
    }

    #[test]
    fn a_page_without_rows_is_no_hindrance() {
        assert_eq!(rows_of("# Benchmarks\n"), []);
        assert_eq!(rows_of("<!-- rows: rubbish -->"), []);
    }
}
