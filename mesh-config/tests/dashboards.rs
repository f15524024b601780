//! What is rendered for Grafana, against Grafana's own model.
//!
//! No Grafana can be had where these tests run. `grafana-dashboard.schema.json` says of its classic dashboard model
//! (schemaVersion 39: Grafana 10.4 and 11) what its documentation and its published kinds (`kinds/dashboard`,
//! `timeseries` and `stat` panel options, release 10.4) say, and refuses every field that they do not name.

#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::render;
use mesh_config::secret::Secrets;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SCHEMA: &str = include_str!("grafana-dashboard.schema.json");

fn dashboards(case: &str) -> Vec<(String, Value)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cases/{case}/mesh.yaml"));
    let text = fs::read_to_string(file).unwrap();
    let mesh = mesh_config::compile("mesh.yaml", &text).unwrap().mesh;
    let files = render::grafana(&mesh, &Secrets::none()).unwrap();
    let boards = files
        .into_iter()
        .filter(|file| file.name.ends_with(".json"));
    boards
        .map(|file| (file.name, serde_json::from_str(&file.text).unwrap()))
        .collect()
}

fn panels(board: &Value) -> &Vec<Value> {
    board["panels"].as_array().unwrap()
}

#[test]
fn every_dashboard_is_one_to_grafana() {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    for case in ["ok-telemetry", "ok-smallest"] {
        let boards = dashboards(case);
        assert_eq!(boards.len(), 5);
        for (name, board) in &boards {
            let wrong: Vec<String> = schema
                .iter_errors(board)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert_eq!(wrong, [""; 0], "{name}");
        }
        let uids: BTreeSet<_> = boards
            .iter()
            .map(|(_, board)| &board["uid"])
            .map(Value::to_string)
            .collect();
        assert_eq!(uids.len(), boards.len());
    }
}

#[test]
fn the_schema_refuses_what_is_no_dashboard() {
    let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let (_, good) = dashboards("ok-telemetry").remove(0);
    assert!(schema.is_valid(&good));
    for (pointer, value) in [
        ("/uid", json!("with space")),
        ("/schemaVersion", json!(17)),
        ("/panels/0/type", json!("graph")),
        ("/panels/0/gridPos/w", json!(25)),
        ("/panels/0/targets/0/expr", json!("")),
        ("/panels/0/datasource", json!("prometheus")),
        ("/panels/0/fieldConfig/defaults/unit", json!(1)),
        ("/panels/0/options", json!({})),
        ("/templating/list/0/type", json!("datasources")),
        ("/refresh", json!("often")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer)
            .unwrap_or_else(|| panic!("{pointer}")) = value;
        assert!(!schema.is_valid(&bad), "{pointer}");
    }
    let mut bad = good.clone();
    bad["pannels"] = json!([]);
    assert!(!schema.is_valid(&bad));
}

#[test]
fn panels_lie_side_by_side_and_have_numbers_of_their_own() {
    for (name, board) in dashboards("ok-telemetry") {
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels(&board) {
            let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {panel}");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{name}: {} lies on another",
                        panel["title"]
                    );
                }
            }
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
}

/// Titles and expressions as in the plan's dashboard.
#[test]
fn the_plans_four_panels_are_there() {
    let boards = dashboards("ok-smallest");
    for (title, expression) in [
        ("Service Mesh Health", "up{job=~'kong|consul|rabbitmq'}"),
        (
            "AI Agent Performance",
            "rate(agent_tasks_processed_total[5m])",
        ),
        (
            "Vector Store Operations",
            "rate(vector_operations_total[5m])",
        ),
        (
            "System Resources",
            "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes * 100",
        ),
    ] {
        let mut found = boards.iter().flat_map(|(_, board)| panels(board));
        let panel = found.rfind(|p| p["title"] == title);
        let panel = panel.unwrap_or_else(|| panic!("{title}"));
        assert_eq!(panel["targets"][0]["expr"], expression);
    }
}

#[test]
fn each_question_has_its_dashboard() {
    let boards = dashboards("ok-smallest");
    let titles: Vec<&str> = boards
        .iter()
        .filter_map(|(_, b)| b["title"].as_str())
        .collect();
    for question in [
        "Is it up?",
        "Where does it queue?",
        "What fails?",
        "What does it cost?",
    ] {
        assert!(titles.contains(&question), "{titles:?}");
    }
    let model = |case: &str| {
        let boards = dashboards(case);
        let tokens = |board: &Value| panels(board).iter().any(|p| p["title"] == "Tokens");
        boards.iter().any(|(_, board)| tokens(board))
    };
    assert!(
        model("ok-telemetry") && !model("ok-smallest"),
        "no tokens without a model"
    );
}

#[test]
fn grafana_asks_what_mesh_yaml_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ok-telemetry/mesh.yaml");
    let text = fs::read_to_string(file).unwrap();
    let provisioned = |text: &str| {
        let mesh = mesh_config::compile("mesh.yaml", text).unwrap().mesh;
        let files = render::grafana(&mesh, &Secrets::none()).unwrap();
        let read = |name: &str| -> Value {
            let file = files.iter().find(|file| file.name == name).unwrap();
            serde_saphyr::from_str(&file.text).unwrap()
        };
        let sources = read("provisioning/datasources/mesh.yml");
        let sources: Vec<(String, String)> = sources["datasources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| (s["uid"].to_string(), s["url"].to_string()))
            .collect();
        let path =
            read("provisioning/dashboards/mesh.yml")["providers"][0]["options"]["path"].clone();
        (sources, path)
    };
    let pair = |uid: &str, url: &str| (format!("\"{uid}\""), format!("\"{url}\""));
    let prometheus = pair("prometheus", "http://prometheus:9090");
    let (sources, path) = provisioned(&text);
    assert_eq!(path, "/etc/grafana/dashboards");
    assert_eq!(
        sources,
        [
            prometheus.clone(),
            pair("loki", "http://loki:3100"),
            pair("jaeger", "http://jaeger:16686")
        ]
    );
    let without = text.replace(
        ", loki: \"http://loki:3100/\", jaeger: \"http://jaeger:16686\"",
        "",
    );
    assert_ne!(without, text);
    assert_eq!(provisioned(&without).0, [prometheus]);
}
