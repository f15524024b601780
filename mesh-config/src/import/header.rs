//! The comment before an imported mesh.yaml: what was lost, and what is still to be done.

use super::{Format, Lost, Secret};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most lines of one kind; the rest is counted, and told in full where the import runs.
const MOST: usize = 200;

pub(super) fn header(
    format: Format,
    lost: &[Lost],
    secrets: &[Secret],
    notes: &[String],
) -> String {
    let mut out = String::new();
    line(
        &mut out,
        &format!("Imported by `mesh import` from a file of {}.", of(format)),
    );
    let lost = grouped(lost);
    section(&mut out, "Not carried over:", &lost);
    let secrets: Vec<String> = secrets
        .iter()
        .map(|secret| format!("{} ({})", secret.variable, secret.path))
        .collect();
    section(
        &mut out,
        "Secrets, as variables that have to be set:",
        &secrets,
    );
    section(&mut out, "To know:", notes);
    out
}

fn of(format: Format) -> &'static str {
    match format {
        Format::Kong => "Kong",
        Format::Rabbitmq => "RabbitMQ",
        Format::Compose => "Compose",
    }
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    line(out, "");
    line(out, title);
    for text in lines.iter().take(MOST) {
        line(out, &format!("  {text}"));
    }
    if lines.len() > MOST {
        line(out, &format!("  and {} more", lines.len() - MOST));
    }
}

/// One line for what was lost many times for one reason, under one name.
fn grouped(lost: &[Lost]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for (number, one) in lost.iter().enumerate() {
        let key = one.path.rsplit('.').next().unwrap_or_default();
        let key = key.split('[').next().unwrap_or_default();
        let group = groups.entry((key, &one.reason)).or_insert((number, 0));
        group.1 += 1;
    }
    let mut groups: Vec<(usize, usize)> = groups.into_values().collect();
    groups.sort_unstable();
    groups
        .into_iter()
        .filter_map(|(first, count)| {
            let one = lost.get(first)?;
            let place = match one.line {
                0 => String::new(),
                line => format!("line {line}: "),
            };
            let mut text = format!("{place}{}: {}", one.path, one.reason);
            if count > 1 {
                let _ = write!(text, " (and {} more)", count - 1);
            }
            Some(text)
        })
        .collect()
}

/// A line of the comment. What comes from the file cannot end it.
fn line(out: &mut String, text: &str) {
    let ends = |c: char| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    let text = text.replace(ends, " ");
    let text = format!("# {text}");
    out.push_str(text.trim_end());
    out.push('\n');
}
