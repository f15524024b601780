//! `mesh explain`: what the codes of `mesh validate`, `mesh check` and the commands that change a mesh mean.

use crate::args::Output;
use crate::screen::{self, Paint, Screen};
use mesh_config::explain::{Example, Explanation, explanations, read};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Codes of `mesh check`, in the form of mesh-config's own texts.
const CHECK: &str = include_str!("explain/check.txt");

#[derive(Debug, clap::Args)]
pub struct Explain {
    /// A code, such as unknown_key; all are listed when left out
    pub code: Option<String>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// Every code with the command that reports it.
fn all() -> Vec<(&'static str, Explanation)> {
    let validate = explanations().into_iter().map(|one| ("validate", one));
    let check = read(CHECK).into_iter().map(|one| ("check", one));
    validate.chain(check).collect()
}

/// What to do about what `mesh check` reports under this code.
pub fn mend(code: &str) -> Option<String> {
    let all = read(CHECK).into_iter();
    let mut found = all.filter(|one| one.code == code);
    found.next().map(|one| one.mend.to_string())
}

pub fn run(args: &Explain) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::stdout();
    let all = all();
    let Some(code) = &args.code else {
        list(&mut screen, &all, args.output)?;
        return Ok(ExitCode::SUCCESS);
    };
    // As it stands in a report, too: error[unknown_key].
    let code = code
        .rsplit('[')
        .next()
        .unwrap_or(code)
        .trim_end_matches(']');
    let found: Vec<_> = all.iter().filter(|(_, one)| one.code == code).collect();
    if found.is_empty() {
        let near = mesh_config::nearest(code, all.iter().map(|(_, one)| one.code));
        let hint = near.map_or_else(
            || "mesh explain lists all".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        anyhow::bail!("there is no code {}: {hint}", screen::plain(code));
    }
    match args.output {
        Output::Json => {
            let found: Vec<Value> = found.iter().map(|(by, one)| as_json(by, one)).collect();
            screen.line(screen::json(&Value::Array(found))?)?;
        }
        Output::Text => {
            for (by, one) in found {
                let head = screen.paint(Paint::Bold, one.code);
                screen.line(format!("{head} (mesh {by})\n\n{}\n", one.meaning))?;
                for (word, example) in [("wrong", &one.wrong), ("right", &one.right)] {
                    if let Some(example) = example {
                        screen.line(format!("{word}:\n{}", indented(example)))?;
                    }
                }
                screen.line(format!("mend: {}", one.mend))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(
    screen: &mut Screen,
    all: &[(&'static str, Explanation)],
    output: Output,
) -> anyhow::Result<()> {
    if output == Output::Json {
        let all: Vec<Value> = all.iter().map(|(by, one)| as_json(by, one)).collect();
        screen.line(screen::json(&Value::Array(all))?)?;
        return Ok(());
    }
    let width = all.iter().map(|(_, one)| one.code.len()).max();
    let width = width.unwrap_or_default();
    for (by, one) in all {
        let first = one
            .meaning
            .split_once(". ")
            .map_or(one.meaning, |(first, _)| first);
        let code = format!("{:width$}", one.code);
        let code = screen.paint(Paint::Bold, code);
        screen.line(format!("{code}  {by:8}  {}", first.trim_end_matches('.')))?;
    }
    Ok(())
}

fn text(example: &Example) -> &str {
    match example {
        Example::Part(text) => text,
        Example::Whole(text) => text,
    }
}

fn indented(example: &Example) -> String {
    let lines = text(example).trim_end().lines();
    lines.map(|line| format!("  {line}\n")).collect()
}

fn as_json(by: &str, one: &Explanation) -> Value {
    json!({
        "code": one.code,
        "command": by,
        "meaning": one.meaning,
        "wrong": one.wrong.as_ref().map(text),
        "right": one.right.as_ref().map(text),
        "mend": one.mend,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Codes in the source: a string that stands first in a call which makes a finding.
    fn codes(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                codes(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for call in ["fail(", "warn(", "=> ("] {
                for (at, _) in text.match_indices(call) {
                    let rest = text[at + call.len()..].trim_start();
                    let code = rest.strip_prefix('"').and_then(|r| r.split_once('"'));
                    let legal = |c: &str| {
                        !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                    };
                    found.extend(code.map(|(c, _)| c.to_owned()).filter(|c| legal(c)));
                }
            }
        }
    }

    #[test]
    fn every_code_of_a_command_is_explained_and_nothing_else() {
        let mut used = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        codes(&source, &mut used);
        assert!(used.len() > 25, "{used:?}");
        let all = read(CHECK);
        let explained: BTreeSet<String> = all.iter().map(|e| e.code.to_owned()).collect();
        assert_eq!(explained.len(), all.len(), "one of them stands twice");
        let missing: Vec<_> = used.difference(&explained).collect();
        assert!(missing.is_empty(), "explain these: {missing:?}");
        let idle: Vec<_> = explained.difference(&used).collect();
        assert!(idle.is_empty(), "no such codes: {idle:?}");
        for one in &all {
            assert!(
                !one.meaning.is_empty() && !one.mend.is_empty(),
                "{}",
                one.code
            );
        }
    }
}
