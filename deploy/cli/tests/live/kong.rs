//! Kong without a database, by its double.

use crate::double::Double;
use crate::scene::{both, command, run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;

fn write(dir: &Path, kong: &Double, more: &str) {
    let yaml = format!(
        "version: 1\nmesh: m\ngateway:\n  auth: {{development: true}}\n  admin: {{url: \"{}\"}}\n{more}\
         orchestrator: {{planner: {{general_agent: worker}}}}\n\
         agents: [{{id: worker, endpoint: 'http://127.0.0.1:9'}}]\n",
        kong.url
    );
    std::fs::write(dir.join("mesh.yaml"), yaml).unwrap();
}

const PLUGINS: &str = "  plugins: [{name: rate-limiting, config: {minute: 100, redis: {host: redis, password: {file: redis-password}}}}, {name: cors}]\n  \
    upstreams: [{name: pool, targets: [{target: 'a:1', weight: 100}, {target: b}, {target: c}], healthchecks: {active: {healthy: {interval: 5}}}}]\n";

async fn mesh(dir: &Path, arguments: &[&str]) -> Output {
    run(command(dir, "amqp://127.0.0.1", arguments)).await
}

async fn differences(dir: &Path) -> Vec<String> {
    let out = mesh(dir, &["diff", "-o", "json"]).await;
    let report: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", both(&out)));
    let word = |change: &Value, field: &str| change[field].as_str().unwrap().to_owned();
    let changes = report["changes"].as_array().unwrap().iter();
    let said: Vec<String> = changes
        .map(|c| {
            ["action", "kind", "name"]
                .map(|field| word(c, field))
                .join(" ")
        })
        .collect();
    assert_eq!(
        out.status.code(),
        Some(if said.is_empty() { 0 } else { 2 }),
        "{}",
        both(&out)
    );
    said
}

#[tokio::test]
async fn a_configuration_is_applied_whole_and_what_kong_fills_in_is_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("redis-password"), "hunter2\n").unwrap();
    let kong = Double::start("off").await;
    // Nothing was loaded yet; a Kong without a configuration has empty lists.
    write(dir, &kong, PLUGINS);
    assert!(!differences(dir).await.is_empty());
    let out = mesh(dir, &["apply", "--yes"]).await;
    assert_eq!(out.status.code(), Some(0), "{}", both(&out));
    assert!(!both(&out).contains("hunter2"), "{}", both(&out));
    assert_eq!(kong.posted(), 1);
    assert_eq!(differences(dir).await, [""; 0]);
    mesh(dir, &["apply", "--yes"]).await;
    assert_eq!(kong.posted(), 1, "nothing to do");

    // Somebody else has loaded another configuration.
    kong.by_hand("plugins", |plugins| {
        let limit = plugins
            .iter_mut()
            .find(|p| p["name"] == "rate-limiting")
            .unwrap();
        limit["config"]["hour"] = json!(7);
        limit["config"]["redis"]["password"] = json!("swordfish");
    });
    kong.by_hand("targets", |targets| {
        targets.retain(|target| target["target"] != "b:8000")
    });
    kong.by_hand("consumers", |consumers| {
        consumers.push(json!({"id": "c", "username": "bob", "created_at": 1}))
    });
    kong.by_hand("routes", |routes| {
        let tasks = routes
            .iter_mut()
            .find(|route| route["name"] == "tasks")
            .unwrap();
        tasks["strip_path"] = json!(true);
    });
    let said = differences(dir).await;
    assert_eq!(
        said,
        [
            "Created target b:8000 of pool",
            "Updated route tasks",
            "Updated plugin rate-limiting (everywhere)",
            "Deleted consumer bob",
        ]
    );
    let shown = mesh(dir, &["diff"]).await;
    let shown = both(&shown);
    assert!(shown.contains("-    \"hour\": 7"), "{shown}");
    assert!(
        shown.contains("\"password\": \"*** (another one)\""),
        "{shown}"
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("swordfish"),
        "{shown}"
    );
    mesh(dir, &["apply", "--yes"]).await;
    assert_eq!(differences(dir).await, [""; 0]);
    assert_eq!(kong.posted(), 2);
}

#[tokio::test]
async fn a_configuration_that_kong_refuses_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let kong = Double::start("off").await;
    write(dir, &kong, "");
    mesh(dir, &["apply", "--yes"]).await;
    write(dir, &kong, "  plugins: [{name: request-id}]\n");
    let out = mesh(dir, &["apply", "--yes"]).await;
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(
        both(&out).contains("plugin request-id: name: plugin 'request-id' not enabled"),
        "{}",
        both(&out)
    );
    assert_eq!(kong.posted(), 1);
}

#[tokio::test]
async fn a_kong_with_a_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let kong = Double::start("postgres").await;
    write(dir.path(), &kong, "");
    for command in [["diff", "mesh.yaml"], ["apply", "--yes"]] {
        let out = mesh(dir.path(), &command).await;
        assert_eq!(out.status.code(), Some(1), "{}", both(&out));
        assert!(
            both(&out).contains("in a database (postgres)"),
            "{}",
            both(&out)
        );
    }
}

#[tokio::test]
async fn what_mesh_yaml_has_no_word_for_is_shown_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let kong = Double::start("off").await;
    write(dir, &kong, "");
    mesh(dir, &["apply", "--yes"]).await;
    assert_eq!(differences(dir).await, [""; 0]);
    // A configuration is replaced whole, and takes along what somebody else's had.
    kong.by_hand("jwts", |jwts| {
        jwts.push(
            json!({"id": "j1", "key": "hunter1", "secret": "hunter2", "consumer": {"id": "c"}}),
        );
    });
    assert_eq!(differences(dir).await, ["Deleted jwt credential j1"]);
    let out = mesh(dir, &["apply", "--yes"]).await;
    assert!(!both(&out).contains("hunter"), "{}", both(&out));
    assert_eq!(differences(dir).await, [""; 0]);
    assert_eq!(kong.posted(), 2);
}
