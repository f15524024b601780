//! A mesh in several files, with environments and variables: what comes together, and what the revision covers.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::secret::Source;
use mesh_config::{Mesh, Options, compile_file};
use std::fs;
use std::path::Path;
use std::time::Duration;

const BASE: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
    orchestrator: {planner: {general_agent: a}}\n";
const AGENT: &str = "agents:\n  - id: a\n    run: {builtin: general-agent}\n    timeout: 5s\n";

fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn read(
    dir: &Path,
    environment: Option<&str>,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Mesh, String> {
    let options = Options {
        environment,
        variables,
        outside: false,
    };
    let compiled = compile_file(&dir.join("mesh.yaml"), &options).unwrap();
    compiled
        .map(|c| c.mesh)
        .map_err(|report| report.to_string())
}

fn mesh(dir: &Path, environment: Option<&str>) -> Mesh {
    read(dir, environment, &|_| None).unwrap_or_else(|said| panic!("{said}"))
}

/// A mesh without what differs by where it was written.
fn plain(mut mesh: Mesh) -> Mesh {
    mesh.revision = String::new();
    mesh
}

fn ids(mesh: &Mesh) -> Vec<&str> {
    mesh.agents.iter().map(|a| a.id.as_str()).collect()
}

#[test]
fn a_mesh_in_parts_is_the_mesh_in_one() {
    let one = files(&[(
        "mesh.yaml",
        &format!(
            "{BASE}{AGENT}  - {{id: b, capabilities: [x], endpoint: \"http://127.0.0.1:9000\"}}\naudit: log\n"
        ),
    )]);
    let parts = files(&[
        (
            "mesh.yaml",
            &format!("{BASE}include: [agents/*.yaml, more.yaml]\n"),
        ),
        ("agents/1.yaml", AGENT),
        (
            "agents/2.yaml",
            "agents:\n  - {id: b, capabilities: [x], endpoint: \"http://127.0.0.1:9000\"}\n",
        ),
        ("agents/.hidden.yaml", "nonsense: true\n"),
        ("more.yaml", "include: deeper/audit.yaml\nversion: 1\n"),
        ("deeper/audit.yaml", "# only this\naudit: log\n"),
    ]);
    let (one, parts) = (mesh(one.path(), None), mesh(parts.path(), None));
    assert_eq!(plain(one.clone()), plain(parts.clone()));
    assert_ne!(one.revision, parts.revision, "other files");
}

#[test]
fn what_includes_is_over_what_it_includes() {
    let dir = files(&[
        (
            "mesh.yaml",
            &format!(
                "{BASE}include: base.yaml\naudit: mine\nagents:\n  - {{id: a, timeout: 7s}}\n  - {{id: c, capabilities: [x], endpoint: \"http://127.0.0.1:9002\"}}\n"
            ),
        ),
        (
            "base.yaml",
            &format!(
                "audit: theirs\nintentions: [{{from: any, to: any}}]\n{AGENT}  - {{id: b, capabilities: [x], endpoint: \"http://127.0.0.1:9001\"}}\n"
            ),
        ),
    ]);
    let mesh = mesh(dir.path(), None);
    assert_eq!(ids(&mesh), ["a", "b", "c"]);
    assert_eq!(mesh.agents[0].timeout, Duration::from_secs(7));
    assert!(mesh.agents[0].run.is_some(), "the rest of it stays");
    assert_eq!(mesh.trust.audit.as_deref(), Some(Path::new("mine")));
    assert_eq!(mesh.trust.intentions.unwrap().len(), 1);
}

#[test]
fn an_environment_is_laid_over_all() {
    let text = format!(
        "{BASE}{AGENT}  - {{id: b, capabilities: [x], endpoint: \"http://127.0.0.1:9001\"}}\naudit: log\n\
         intentions: [{{from: any, to: any}}, {{from: gateway, to: orchestrator}}]\n\
         environments:\n  staging:\n    mesh: m-staging\n    audit: null\n    agents: {{b: null, a: {{concurrency: 3}}, d: {{capabilities: [y], endpoint: \"http://127.0.0.1:9003\"}}}}\n    \
         intentions: [{{from: any, to: any}}]\n    orchestrator: {{listen: \"127.0.0.1:9999\"}}\n  production: {{}}\n"
    );
    let dir = files(&[("mesh.yaml", &text)]);
    let base = mesh(dir.path(), None);
    assert_eq!(ids(&base), ["a", "b"]);
    assert_eq!(base.trust.intentions.as_ref().unwrap().len(), 2);
    let staging = mesh(dir.path(), Some("staging"));
    assert_eq!(staging.name, "m-staging");
    assert_eq!(ids(&staging), ["a", "d"]);
    assert_eq!(staging.agents[0].concurrency, 3);
    assert_eq!(staging.agents[0].timeout, Duration::from_secs(5));
    assert_eq!(staging.trust.audit, None);
    assert_eq!(staging.trust.intentions.as_ref().unwrap().len(), 1);
    assert_eq!(staging.orchestrator.listen.port(), 9999);
    assert!(staging.orchestrator.general_agent.is_some());
    let production = mesh(dir.path(), Some("production"));
    assert_eq!(plain(production.clone()), plain(base.clone()));
    assert_ne!(production.revision, base.revision, "of another environment");
}

#[test]
fn variables_take_the_type_of_their_place() {
    let text = format!(
        "{}orchestrator: {{listen: \"127.0.0.1:${{PORT}}\", planner: {{general_agent: \"${{WHO:-a}}\", max_steps: \"${{STEPS}}\"}}}}\n{AGENT}    \
         concurrency: ${{MANY}}\n    description: costs $$5 at ${{NUMBER}}\n\
         store: {{backend: redis, url: \"${{REDIS}}\"}}\naudit: ${{NONE:-}}\n",
        BASE.replace("orchestrator: {planner: {general_agent: a}}\n", "")
    );
    let dir = files(&[("mesh.yaml", &text)]);
    let values = |name: &str| {
        let value = match name {
            "PORT" => "7007",
            "STEPS" => "12",
            "MANY" => "3",
            "NUMBER" => "42",
            "REDIS" => "redis://:hunter2@127.0.0.1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let first = read(dir.path(), None, &values).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(first.orchestrator.listen.port(), 7007);
    assert_eq!(first.orchestrator.max_steps, 12);
    assert_eq!(first.agents[0].concurrency, 3);
    assert_eq!(first.agents[0].description, "costs $5 at 42");
    assert_eq!(first.trust.audit, None, "empty is left out");
    assert_eq!(first.store.redis, Some(Source::Env("REDIS".to_owned())));
    assert!(!format!("{first:?}").contains("hunter2"));
    // A secret decides nothing that others may see; a port does.
    let secret = |name: &str| (name != "REDIS").then(|| values(name)).flatten();
    let other = read(dir.path(), None, &secret).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(other.revision, first.revision);
    let port = |name: &str| {
        if name == "PORT" {
            Some("7008".to_owned())
        } else {
            values(name)
        }
    };
    let other = read(dir.path(), None, &port).unwrap_or_else(|said| panic!("{said}"));
    assert_ne!(other.revision, first.revision);
}

#[test]
fn every_file_decides_the_revision() {
    let dir = files(&[
        ("mesh.yaml", &format!("{BASE}include: a.yaml\n")),
        ("a.yaml", AGENT),
    ]);
    let first = mesh(dir.path(), None);
    assert_eq!(mesh(dir.path(), None).revision, first.revision);
    fs::write(dir.path().join("a.yaml"), format!("{AGENT}# more\n")).unwrap();
    assert_ne!(mesh(dir.path(), None).revision, first.revision);
}

#[test]
fn a_finding_shows_its_own_files_line() {
    let dir = files(&[
        ("mesh.yaml", &format!("{BASE}include: a.yaml\n")),
        (
            "a.yaml",
            &format!("# one\n# two\n{AGENT}    cocurrency: 3\n"),
        ),
    ]);
    let said = read(dir.path(), None, &|_| None).unwrap_err();
    assert!(said.contains("a.yaml:7:5"), "{said}");
    assert!(said.contains("7 |     cocurrency: "), "{said}");
}
