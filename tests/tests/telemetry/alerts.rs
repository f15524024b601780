//! Every alert fires when it should, and not a step before; each says what to do.
//!
//! The rules are those of `ok-telemetry`, evaluated by promtool over series of twenty minutes, one sample every 15 seconds:
//! `a+bxn` is n more samples after a, each larger by b.

use crate::cases::{ALERTS, Series};
use crate::promtool::promtool;
use crate::{case, rendered};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The rules that alert, as they are rendered.
fn rules(prometheus: &Path) -> Vec<Value> {
    // Read back by promtool's own reader elsewhere; here only names and annotations count, one a line.
    let text = std::fs::read_to_string(prometheus.join("rules/mesh-alerts.yml")).unwrap();
    let field = |line: &str, name: &str| {
        let value = line
            .trim()
            .trim_start_matches("- ")
            .strip_prefix(name)?
            .trim();
        Some(value.trim_matches(['"', '\'']).to_owned())
    };
    let mut rules: Vec<Value> = Vec::new();
    for line in text.lines() {
        if let Some(alert) = field(line, "alert:") {
            rules.push(json!({ "alert": alert }));
        }
        for name in ["severity", "summary", "description", "runbook_url"] {
            if let Some(value) = field(line, &format!("{name}:")) {
                rules.last_mut().unwrap()[name] = value.into();
            }
        }
    }
    rules
}

#[test]
fn each_fires_when_it_should_and_not_before() {
    let out = rendered(&case("ok-telemetry"));
    let prometheus = out.path().join("prometheus");
    let test = |alert: &str, labels: &str, series: Series, expected: usize| {
        let input = series
            .iter()
            .map(|(series, values)| json!({"series": series, "values": values}));
        let expression =
            format!(r#"count(ALERTS{{alertname="{alert}", alertstate="firing", {labels}}})"#);
        let samples = match expected {
            0 => json!([]),
            count => json!([{"labels": "{}", "value": count}]),
        };
        json!({
            "interval": "15s",
            "input_series": input.collect::<Vec<_>>(),
            "promql_expr_test": [{"expr": expression, "eval_time": "20m", "exp_samples": samples}],
        })
    };
    let tests: Vec<Value> = ALERTS
        .iter()
        .flat_map(|(alert, labels, fires, quiet)| {
            assert!(!fires.is_empty() && !quiet.is_empty());
            let fires = fires
                .iter()
                .map(move |series| test(alert, labels, series, 1));
            fires.chain(
                quiet
                    .iter()
                    .map(move |series| test(alert, labels, series, 0)),
            )
        })
        .collect();
    let file = json!({
        "rule_files": ["rules/mesh-records.yml", "rules/mesh-alerts.yml"],
        "evaluation_interval": "15s",
        "tests": tests,
    });
    let path = prometheus.join("alerts.test.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    promtool(&["test", "rules"], &path);

    let tested: BTreeSet<_> = ALERTS
        .iter()
        .map(|(alert, ..)| (*alert).to_owned())
        .collect();
    let rules = rules(&prometheus);
    let there: BTreeSet<_> = rules
        .iter()
        .filter_map(|rule| rule["alert"].as_str())
        .map(str::to_owned)
        .collect();
    assert_eq!(tested, there);
    assert_eq!(rules.len(), there.len());
}

#[test]
fn each_says_how_bad_it_is_and_what_to_do() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.md");
    let page = std::fs::read_to_string(page).unwrap();
    let anchors: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.trim().to_ascii_lowercase())
        .collect();
    let out = rendered(&case("ok-telemetry"));
    let rules = rules(&out.path().join("prometheus"));
    assert_eq!(rules.len(), ALERTS.len());
    for rule in &rules {
        assert!(
            ["critical", "warning"].contains(&rule["severity"].as_str().unwrap()),
            "{rule}"
        );
        for text in ["summary", "description"] {
            assert!(
                rule[text].as_str().is_some_and(|text| text.len() > 10),
                "{rule}"
            );
        }
        let runbook = rule["runbook_url"].as_str().unwrap();
        let (base, anchor) = runbook.split_once('#').unwrap();
        assert_eq!(base, "https://docs.example/alerts");
        assert!(anchors.contains(anchor), "docs/alerts.md has no {anchor}");
    }
    for anchor in anchors {
        let named = |rule: &Value| rule["alert"].as_str().unwrap().to_ascii_lowercase() == anchor;
        assert!(
            rules.iter().any(named),
            "docs/alerts.md tells of {anchor}, which is no alert"
        );
    }
}

/// A mesh in which all is well: nothing fires.
#[test]
fn nothing_fires_while_all_is_well() {
    let out = rendered(&case("ok-telemetry"));
    let prometheus = out.path().join("prometheus");
    let main = std::fs::read_to_string(prometheus.join("prometheus.yml")).unwrap();
    let jobs = main
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- job_name: "));
    let mut series: Vec<Value> = jobs
        .filter(|job| *job != "ai-agents")
        .map(|job| json!({"series": format!("up{{job=\"{job}\", instance=\"i\"}}"), "values": "1+0x80"}))
        .collect();
    assert!(series.len() >= 10, "{main}");
    for agent in [
        "ai-agent-orchestrator",
        "multi-agent-coordinator",
        "task-assignment-coordinator",
    ] {
        let up = format!("up{{job=\"ai-agents\", agent_name=\"{agent}\", instance=\"{agent}\"}}");
        series.push(json!({"series": up, "values": "1+0x80"}));
    }
    // The quiet series of all alerts but those that tell of what is not there.
    let quiet = ALERTS.iter().filter(|(alert, ..)| {
        !["MeshAgentDown", "MeshPartDown", "MeshTargetsMissing"].contains(alert)
    });
    let mut known = BTreeSet::new();
    for (name, values) in quiet.flat_map(|(.., quiet)| quiet[0].iter()) {
        if known.insert(*name) {
            series.push(json!({"series": name, "values": values}));
        }
    }
    let file = json!({
        "rule_files": ["rules/mesh-records.yml", "rules/mesh-alerts.yml"],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series,
            "promql_expr_test": [
                {"expr": r#"ALERTS{alertstate="firing"}"#, "eval_time": "20m", "exp_samples": []},
                {"expr": "count(mesh:job_expected)", "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 11}]},
            ],
        }],
    });
    let path = prometheus.join("well.test.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    promtool(&["test", "rules"], &path);
}
