//! Every code that mesh.yaml can be reported with is explained, none that does not exist is, and the examples are what
//! they say.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::explain::{Example, explanations};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What is not tried by a part of one file: it takes several files, or bytes, or the command line.
const UNTRIED: [&str; 7] = [
    "include_conflict",
    "include_cycle",
    "include_depth",
    "include_outside",
    "not_utf8",
    "nothing_to_remove",
    "unknown_environment",
];

/// Codes in the source: a string that stands first in a call which makes a finding.
fn codes(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for call in ["error(", "warning(", "fault("] {
                for (at, _) in text.match_indices(call) {
                    let rest = text[at + call.len()..].trim_start();
                    let Some((code, _)) = rest.strip_prefix('"').and_then(|r| r.split_once('"'))
                    else {
                        continue;
                    };
                    let legal = |b: u8| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit();
                    if code.bytes().all(legal) {
                        found.insert(code.to_owned());
                    }
                }
            }
        }
    }
}

/// Codes in reports that lie in the tests: whatever way they came about.
fn reported(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            reported(&path, found);
        } else if path.extension().is_some_and(|e| e == "txt") {
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let code = line
                    .strip_prefix("error[")
                    .or_else(|| line.strip_prefix("warning["))
                    .and_then(|rest| rest.split_once(']'));
                found.extend(code.map(|(code, _)| code.to_owned()));
            }
        }
    }
}

#[test]
fn every_code_is_explained_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut used = BTreeSet::new();
    codes(&root.join("src"), &mut used);
    assert!(used.len() > 60, "{used:?}");
    let mut seen = BTreeSet::new();
    reported(&root.join("tests"), &mut seen);
    let all = explanations();
    let explained: BTreeSet<String> = all.iter().map(|e| e.code.to_owned()).collect();
    assert_eq!(explained.len(), all.len(), "one of them stands twice");
    let used: BTreeSet<String> = used.union(&seen).cloned().collect();
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

const BASE: &str = "{version: 1, mesh: m, gateway: {auth: {development: true}}, \
    orchestrator: {planner: {general_agent: a}}, agents: [{id: a, run: {builtin: general-agent}}]}";

fn over(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(value)) => over(below, value),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn text(example: &Example) -> String {
    match example {
        Example::Whole(text) => text.clone(),
        Example::Part(part) => {
            let mut mesh: Map<String, Value> = serde_saphyr::from_str(BASE).unwrap();
            over(&mut mesh, serde_saphyr::from_str(part).unwrap());
            // JSON is YAML.
            serde_json::to_string_pretty(&mesh).unwrap()
        }
    }
}

fn codes_of(example: &Example) -> Vec<&'static str> {
    let text = text(example);
    let report = match mesh_config::compile("mesh.yaml", &text) {
        Ok(compiled) => compiled.warnings,
        Err(report) => report,
    };
    report.findings.iter().map(|f| f.code).collect()
}

#[test]
fn the_examples_are_what_they_say() {
    let mut faults = Vec::new();
    for one in explanations() {
        if UNTRIED.contains(&one.code) {
            continue;
        }
        let (Some(wrong), Some(right)) = (&one.wrong, &one.right) else {
            faults.push(format!("{}: no examples", one.code));
            continue;
        };
        let found = codes_of(wrong);
        if !found.contains(&one.code) {
            faults.push(format!("{}: wrong gives {found:?}", one.code));
        }
        // A right part stands in a good mesh; a whole text may be no more than a beginning.
        let found = codes_of(right);
        let good = match right {
            Example::Part(_) => found.is_empty() || found == ["no_general_agent"],
            Example::Whole(_) => !found.contains(&one.code),
        };
        if !good {
            faults.push(format!("{}: right gives {found:?}", one.code));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
