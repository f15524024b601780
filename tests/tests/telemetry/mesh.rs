//! A whole mesh under a Prometheus with the rendered configuration: everybody is found, and every metric, label and value
//! that rules and dashboards name is there.

use crate::expression::names;
use crate::rendered;
use axum::{Json, Router, routing::any};
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::server::free_port;
use mesh_tests::{prometheus, rabbitmq, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What others export: named by the plan's panels, and of containers that do not run here.
const OTHERS: [&str; 5] = [
    "vector_operations_total",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
];

type Labels = BTreeMap<String, String>;

/// A model server that says the same to everybody.
async fn model() -> String {
    let answer = json!({
        "model": "tinyllama", "created_at": "2026-01-01T00:00:00Z", "done": true, "done_reason": "stop",
        "message": {"role": "assistant", "content": "no plan"}, "response": "no plan",
        "models": [{"name": "tinyllama:latest", "model": "tinyllama:latest"}], "version": "0.6.0",
        "prompt_eval_count": 3, "eval_count": 4, "load_duration": 1, "prompt_eval_duration": 2, "eval_duration": 3,
    });
    let answers = any(move || {
        let answer = answer.clone();
        async move { Json(answer) }
    });
    let router = Router::new().fallback(answers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Lets the shared broker serve its metrics, as `rabbitmq-plugins enable rabbitmq_prometheus` does; its address.
async fn broker_metrics() -> String {
    let port = free_port();
    let code = format!(
        r#"[code:add_pathz(P) || P <- filelib:wildcard(code:lib_dir(rabbit) ++ "/../*/ebin")],
        application:load(rabbitmq_prometheus),
        application:set_env(rabbitmq_prometheus, tcp_config, [{{port, {port}}}, {{ip, "127.0.0.1"}}]),
        {{ok, _}} = application:ensure_all_started(rabbitmq_prometheus)."#
    );
    rabbitmq::shared().await.eval(code).await;
    format!("127.0.0.1:{port}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_in_rules_and_dashboards_is_exported_by_what_is_found() {
    let (broker, model) = tokio::join!(broker_metrics(), model());
    let ollama = json!({"planner": {"ollama": {"url": model, "model": "tinyllama"}}});
    let mesh = Mesh::start(Setup::default().with("orchestrator", ollama)).await;
    let token = mesh.token("test", "tasks:read tasks:write").await;
    let answer = mesh.task(&token, "everyone").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let asked = json!({"model": "tinyllama", "messages": [], "stream": false});
    let chat = format!("http://{}/ollama/api/chat", mesh.orchestrator());
    let said = mesh.client().post(chat).json(&asked).send().await.unwrap();
    assert_eq!(said.status(), 200);

    let mut described: Value =
        serde_json::from_str(&std::fs::read_to_string(mesh.file()).unwrap()).unwrap();
    described["telemetry"] = json!({
        "scrape_interval": "1s", "evaluation_interval": "1s",
        "jobs": [
            {"name": "kong", "targets": [mesh.gateway_status()]},
            {"name": "rabbitmq", "targets": [broker]},
        ],
    });
    let file = mesh.file().with_file_name("telemetry.yaml");
    std::fs::write(&file, described.to_string()).unwrap();
    let out = rendered(&file);
    let prometheus = prometheus::start_with(&out.path().join("prometheus/prometheus.yml")).await;

    wait_for("prometheus to find and reach everybody", async || {
        let up = prometheus.query("up").await;
        let count = |job: &str| up.iter().filter(|s| s.labels["job"] == job).count();
        let jobs = [
            "kong",
            "consul",
            "rabbitmq",
            "ai-agents",
            "sidecar",
            "orchestrator",
        ];
        jobs.map(count) == [1, 1, 1, 3, 2, 1] && up.iter().all(|sample| sample.value == 1.0)
    })
    .await;
    let up = prometheus.query(r#"up{job="ai-agents"}"#).await;
    let agents: BTreeSet<&str> = up.iter().map(|s| s.labels["agent_name"].as_str()).collect();
    assert_eq!(
        agents,
        BTreeSet::from(["general-agent", "data-processor", "hardware-optimizer"])
    );
    for sample in &up {
        assert_eq!(sample.labels["service"], sample.labels["agent_name"]);
        assert!(!sample.labels["node"].is_empty() && !sample.labels["service_id"].is_empty());
    }

    // Rules are loaded, good, and have been looked at.
    wait_for("rules to be evaluated", async || {
        let groups = prometheus.ask("rules", &[]).await;
        let rules: Vec<&Value> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|g| g["rules"].as_array().unwrap())
            .collect();
        assert!(
            rules.iter().all(|rule| rule["health"] != "err"),
            "{rules:?}"
        );
        rules.len() > 30 && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    wait_for("records to have values", async || {
        !prometheus
            .query("mesh:request_duration_seconds:p99")
            .await
            .is_empty()
            && !prometheus
                .query("mesh:model_tokens:rate5m")
                .await
                .is_empty()
    })
    .await;
    let expressions = expressions(
        &out.path().join("grafana/dashboards"),
        &prometheus.ask("rules", &[]).await,
    );
    assert!(expressions.len() > 80, "{}", expressions.len());
    let series = prometheus.series().await;
    let mut wrong = Vec::new();
    for (place, expression, legend) in &expressions {
        // Its own parser, and nothing in it that cannot be joined.
        prometheus.ask("query", &[("query", expression)]).await;
        wrong.extend(
            unknown(expression, legend, &series)
                .into_iter()
                .map(|what| format!("{place}: {what}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let firing = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await;
    assert!(firing.is_empty(), "all is well, and yet: {firing:?}");
    mesh.stop().await;
}

/// Where each expression stands, itself, and the labels in the names of its lines.
fn expressions(dashboards: &Path, rules: &Value) -> Vec<(String, String, Vec<String>)> {
    let mut all = Vec::new();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
            let labels = [
                rule["annotations"]["summary"].as_str(),
                rule["annotations"]["description"].as_str(),
            ];
            let labels = labels
                .into_iter()
                .flatten()
                .flat_map(|text| between(text, "$labels."));
            all.push((text("name"), text("query"), labels.collect()));
        }
    }
    for entry in std::fs::read_dir(dashboards).unwrap() {
        let board: Value =
            serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let labels = between(target["legendFormat"].as_str().unwrap(), "");
                let place = format!("{} / {}", board["title"], panel["title"]);
                all.push((place, target["expr"].as_str().unwrap().to_owned(), labels));
            }
        }
    }
    all
}

/// The names in `{{ … }}` that begin with `prefix`, without it.
fn between(text: &str, prefix: &str) -> Vec<String> {
    let parts = text
        .split("{{")
        .skip(1)
        .filter_map(|part| part.split_once("}}"));
    parts
        .filter_map(|(inside, _)| inside.trim().strip_prefix(prefix).map(str::to_owned))
        .collect()
}

/// What of an expression no series has.
fn unknown(expression: &str, legend: &[String], series: &[Labels]) -> Vec<String> {
    let named = names(expression);
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<&str> = BTreeSet::new();
    let mut others = false;
    for selector in &named.selectors {
        // Alerts are series only while they fire; these are the labels of every one of ours.
        if selector.metric == "ALERTS" {
            labels.extend(["alertname", "alertstate", "severity"]);
            continue;
        }
        if OTHERS.contains(&selector.metric.as_str()) {
            others = true;
            continue;
        }
        let of_it = || {
            series
                .iter()
                .filter(|labels| labels["__name__"] == selector.metric)
        };
        if of_it().next().is_none() {
            wrong.push(format!("nobody exports {}", selector.metric));
            continue;
        }
        labels.extend(of_it().flat_map(|labels| labels.keys().map(String::as_str)));
        for (label, operator, value) in &selector.matchers {
            let good = of_it().any(|labels| match operator.as_str() {
                "=" => labels.get(label) == Some(value),
                _ => labels.contains_key(label),
            });
            if !good {
                wrong.push(format!(
                    "{} has no {label}{operator}{value:?}",
                    selector.metric
                ));
            }
        }
    }
    let asked = named.labels.iter().chain(legend);
    let absent = asked.filter(|label| !others && !labels.contains(label.as_str()));
    wrong.extend(absent.map(|label| format!("no label {label} in {expression}")));
    wrong
}
