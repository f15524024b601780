//! What the pages show: every piece of mesh.yaml in them is one, and every link leads somewhere.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::{Options, compile_file};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Keys that a mesh.yaml begins with; a block that begins otherwise is something else.
const KEYS: [&str; 13] = [
    "agents",
    "audit",
    "deploy",
    "gateway",
    "identity",
    "identity_headers",
    "intentions",
    "messaging",
    "orchestrator",
    "registry",
    "services",
    "telemetry",
    "traffic",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pages(of: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

fn all() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    pages(&root().join("docs"), &mut found);
    pages(&root().join("deploy"), &mut found);
    found
}

/// Fenced blocks of YAML and indented ones.
fn blocks(text: &str) -> Vec<String> {
    let (mut all, mut block, mut fenced) = (Vec::new(), String::new(), false);
    for line in text.lines().chain(["end"]) {
        let inside = if fenced {
            Some(line).filter(|line| !line.starts_with("```"))
        } else {
            line.strip_prefix("    ")
                .or(Some("").filter(|_| line.is_empty()))
        };
        match inside {
            Some(line) => block.extend([line, "\n"]),
            None => {
                all.push(std::mem::take(&mut block));
                fenced = !fenced && line.starts_with("```yaml");
            }
        }
    }
    all
}

fn laid(over: &mut Map<String, Value>, block: Map<String, Value>) {
    for (key, value) in block {
        match (over.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(value)) => laid(under, value),
            (Some(Value::Array(under)), Value::Array(value)) => under.extend(value),
            (_, value) => {
                over.insert(key, value);
            }
        }
    }
}

/// The mesh that a block is part of: what it does not say itself.
fn mesh(block: Map<String, Value>) -> String {
    let mut mesh = json!({
        "version": 1, "mesh": "m",
        "gateway": {"auth": {"development": true}},
        "orchestrator": {"planner": {"general_agent": "general-agent"}},
        "agents": [
            {"id": "general-agent", "run": {"builtin": "general-agent"}},
            {"id": "data-processor", "run": {"builtin": "data-processor"}},
        ],
    });
    let Value::Object(all) = &mut mesh else {
        panic!("a mapping")
    };
    laid(all, block);
    if let Some(Value::Array(agents)) = all.get_mut("agents") {
        for agent in agents.iter_mut().filter_map(Value::as_object_mut) {
            if !agent.contains_key("endpoint") {
                agent
                    .entry("run")
                    .or_insert(json!({"builtin": "general-agent"}));
            }
        }
    }
    mesh.to_string()
}

#[test]
fn every_piece_of_mesh_yaml_is_one() {
    let (mut seen, mut wrong) = (0, String::new());
    for page in all() {
        for block in blocks(&fs::read_to_string(&page).unwrap()) {
            let first = block
                .lines()
                .find(|line| !line.is_empty() && !line.starts_with('#'));
            let key = first.and_then(|line| line.split_once(':'));
            if !key.is_some_and(|(key, _)| KEYS.contains(&key)) {
                continue;
            }
            let read: Result<Value, _> = serde_saphyr::from_str(&block);
            let Ok(Value::Object(read)) = read else {
                wrong += &format!("{}: no YAML:\n{block}\n", page.display());
                continue;
            };
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("mesh.yaml");
            fs::write(&file, mesh(read)).unwrap();
            let options = Options {
                environment: None,
                variables: &|_| None,
                outside: false,
            };
            if let Err(report) = compile_file(&file, &options).unwrap() {
                wrong += &format!("{}:\n{block}\n{report}\n", page.display());
            }
            seen += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 10, "{seen} blocks");
}

#[test]
fn every_link_leads_somewhere() {
    let (mut seen, mut dead) = (0, Vec::new());
    for page in all() {
        let text = fs::read_to_string(&page).unwrap();
        for (_, after) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let link = after.split(')').next().unwrap();
            let path = link.split('#').next().unwrap();
            if path.is_empty() || link.contains("://") {
                continue;
            }
            seen += 1;
            if !page.parent().unwrap().join(path).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(seen > 50, "{seen} links");
}
