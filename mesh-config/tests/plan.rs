//! The plan's configuration carried over: `tests/plan/facts.txt` lists everything that its files hold, and each is
//! looked for in what `deploy/examples/sutazai/mesh.yaml` renders, by name and value.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::render;
use mesh_config::secret::Secrets;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What every target renders, by `TARGET/FILE`, as far as it is one document of YAML or JSON.
fn rendered() -> BTreeMap<String, Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("deploy/examples/sutazai/mesh.yaml")).unwrap();
    let compiled = mesh_config::compile("mesh.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
    let mut all = BTreeMap::new();
    for target in render::TARGETS {
        let files = (target.render)(&compiled.mesh, &Secrets::none());
        for file in files.unwrap_or_else(|e| panic!("{}: {e}", target.name)) {
            if let Ok(value) = serde_saphyr::from_str::<Value>(&file.text) {
                all.insert(format!("{}/{}", target.name, file.name), value);
            }
        }
    }
    all
}

/// Every value that a path leads to: `a.b[key=value,key=value].c[].d`; `[name]` is a key that holds dots.
fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = if let Some(inside) = rest.strip_prefix('[') {
            let (inside, after) = inside.split_once(']').unwrap_or_else(|| panic!("{path}"));
            (Step::Item(inside), after)
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            (Step::Key(&rest[..end]), &rest[end..])
        };
        rest = after.strip_prefix('.').unwrap_or(after);
        found = found.into_iter().flat_map(|value| step.of(value)).collect();
    }
    found
}

enum Step<'p> {
    Key(&'p str),
    Item(&'p str),
}

impl Step<'_> {
    fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Key(key), _) => value.get(key).into_iter().collect(),
            (Self::Item(key), Value::Object(entries)) => entries.get(*key).into_iter().collect(),
            (Self::Item(""), Value::Array(items)) => items.iter().collect(),
            (Self::Item(wanted), Value::Array(items)) => {
                let pairs: Vec<_> = wanted
                    .split(',')
                    .filter_map(|p| p.split_once('='))
                    .collect();
                let is = |item: &&Value| {
                    pairs.iter().all(|(key, text)| match item.get(key) {
                        Some(Value::String(value)) => value == text,
                        Some(value) => {
                            serde_json::from_str(text).is_ok_and(|wanted: Value| *value == wanted)
                        }
                        None => false,
                    })
                };
                items.iter().filter(is).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn holds(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Array(items), _) => items.contains(wanted),
        (Value::String(text), Value::String(wanted)) => text.contains(wanted.as_str()),
        _ => false,
    }
}

/// `10` and `10.0` are one number, `10s` and `10000ms` one time.
fn same(value: &Value, wanted: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(mesh_config::duration);
    value == wanted
        || value.as_f64().is_some_and(|n| Some(n) == wanted.as_f64())
        || time(value).is_some_and(|time_of| Some(time_of) == time(wanted))
}

/// What is wrong with a fact, if anything.
fn fault(rendered: &BTreeMap<String, Value>, fact: &str) -> Option<String> {
    let (file, rest) = fact.split_once(' ')?;
    let Some(document) = rendered.get(file) else {
        return Some(format!("{fact}\n    there is no {file}"));
    };
    type Wanted = Box<dyn Fn(&Value) -> bool>;
    let (path, wanted): (&str, Wanted) = if let Some(path) = rest.strip_suffix(" there") {
        (path, Box::new(|_| true))
    } else if let Some((path, json)) = rest.split_once(" = ") {
        let json: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{fact}: {e}"));
        (path, Box::new(move |value| same(value, &json)))
    } else if let Some((path, json)) = rest.split_once(" has ") {
        let json: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{fact}: {e}"));
        (path, Box::new(move |value| holds(value, &json)))
    } else {
        panic!("no fact: {fact}");
    };
    let found = at(document, path);
    if found.iter().any(|value| wanted(value)) {
        return None;
    }
    let found: Vec<String> = found.iter().map(|value| value.to_string()).collect();
    Some(format!("{fact}\n    found: {}", found.join(" | ")))
}

fn facts() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/facts.txt");
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_the_example_renders_holds_everything_of_the_plan() {
    let (rendered, facts) = (rendered(), facts());
    assert!(facts.len() > 180, "{} facts", facts.len());
    let faults: Vec<String> = facts
        .iter()
        .filter_map(|fact| fault(&rendered, fact))
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        facts.len(),
        faults.join("\n")
    );
}

#[test]
fn a_fact_that_is_not_so_is_found_out() {
    let rendered = rendered();
    for wrong in [
        r#"kong/kong.yml services[name=backend-api].url = "http://backend:8001""#,
        "kong/kong.yml services[name=nobody] there",
        r#"compose/docker-compose.yml services.kong.ports[] has "10006:8000""#,
        "rabbitmq/none.json queues there",
    ] {
        assert!(fault(&rendered, wrong).is_some(), "{wrong}");
    }
}
