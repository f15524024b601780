//! Every alert fires when it should, and not a step before; each says what to do.
//!
//! The rules are those of `ok-telemetry`, evaluated by promtool over series of twenty minutes, one sample every 15 seconds:
//! `a+bxn` is n more samples after a, each larger by b.

use crate::promtool::promtool;
use crate::{case, rendered};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

type Series = &'static [(&'static str, &'static str)];

/// An alert, the labels that it must have, series at which it fires, and those at which it does not.
type Case = (
    &'static str,
    &'static str,
    &'static [Series],
    &'static [Series],
);

const ALERTS: &[Case] = &[
    (
        "MeshAgentDown",
        r#"severity="critical", agent_name="multi-agent-coordinator""#,
        &[
            &[],
            &[(
                r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="a"}"#,
                "0+0x80",
            )],
            &[(
                r#"up{job="ai-agents", agent_name="ai-agent-orchestrator", instance="a"}"#,
                "1+0x80",
            )],
        ],
        &[
            // One of two instances is enough.
            &[
                (
                    r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="a"}"#,
                    "0+0x80",
                ),
                (
                    r#"up{job="ai-agents", agent_name="multi-agent-coordinator", instance="b"}"#,
                    "1+0x80",
                ),
            ],
        ],
    ),
    (
        "MeshPartDown",
        r#"severity="critical", job="consul", instance="c""#,
        &[&[(r#"up{job="consul", instance="c"}"#, "0+0x80")]],
        &[&[(r#"up{job="consul", instance="c"}"#, "1+0x80")]],
    ),
    (
        "MeshTargetsMissing",
        r#"severity="critical", job="cadvisor""#,
        &[&[], &[(r#"up{job="kong", instance="k"}"#, "1+0x80")]],
        &[&[(r#"up{job="cadvisor", instance="c"}"#, "0+0x80")]],
    ),
    (
        "MeshBrokerAway",
        r#"severity="critical", agent="a""#,
        &[&[(r#"sidecar_bus_connected{agent="a"}"#, "0+0x80")]],
        &[&[(r#"sidecar_bus_connected{agent="a"}"#, "1+0x80")]],
    ),
    (
        "MeshRegistryAway",
        r#"severity="warning", agent="a""#,
        &[&[(r#"sidecar_registry_up{agent="a"}"#, "0+0x80")]],
        &[&[(r#"sidecar_registry_up{agent="a"}"#, "1+0x64 0+0x16")]],
    ),
    (
        "MeshQueueWaitLong",
        r#"severity="warning", agent="a""#,
        &[&[
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="60"}"#,
                "0+9x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="300"}"#,
                "0+10x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="+Inf"}"#,
                "0+10x80",
            ),
        ]],
        &[&[
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="60"}"#,
                "0+96x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="300"}"#,
                "0+100x80",
            ),
            (
                r#"agent_task_queue_wait_seconds_bucket{agent="a", le="+Inf"}"#,
                "0+100x80",
            ),
        ]],
    ),
    (
        "MeshConsumerTimeoutNear",
        r#"severity="warning", agent="a""#,
        &[&[(r#"sidecar_ack_deadline_left_seconds{agent="a"}"#, "89+0x80")]],
        &[&[(r#"sidecar_ack_deadline_left_seconds{agent="a"}"#, "90+0x80")]],
    ),
    (
        "MeshDeadLetters",
        r#"severity="warning", agent="a", reason="poison""#,
        &[&[(
            r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
            "0+0x40 6+0x39",
        )]],
        &[
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "0+0x40 5+0x39",
            )],
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "6+0x80",
            )],
        ],
    ),
    (
        "MeshRetriesExhausted",
        r#"severity="warning", agent="a""#,
        &[&[(
            r#"sidecar_dead_letters_total{agent="a", reason="exhausted"}"#,
            "0+0x40 6+0x39",
        )]],
        &[
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="exhausted"}"#,
                "0+0x40 5+0x39",
            )],
            &[(
                r#"sidecar_dead_letters_total{agent="a", reason="poison"}"#,
                "0+0x40 6+0x39",
            )],
        ],
    ),
    (
        "MeshQueueGrowing",
        r#"severity="warning""#,
        &[&[(
            r#"rabbitmq_queue_messages_ready{instance="r"}"#,
            "6000+10x80",
        )]],
        &[
            &[(
                r#"rabbitmq_queue_messages_ready{instance="r"}"#,
                "9000-10x80",
            )],
            &[(
                r#"rabbitmq_queue_messages_ready{instance="r"}"#,
                "1000+10x80",
            )],
        ],
    ),
    (
        "MeshTaskErrors",
        r#"severity="critical""#,
        &[&[
            (r#"orchestrator_tasks_total{outcome="failed"}"#, "0+2x80"),
            (r#"orchestrator_tasks_total{outcome="completed"}"#, "0+8x80"),
        ]],
        &[
            &[
                (r#"orchestrator_tasks_total{outcome="failed"}"#, "0+1x80"),
                (
                    r#"orchestrator_tasks_total{outcome="completed"}"#,
                    "0+10x80",
                ),
            ],
            // Nothing ends: no share of it fails.
            &[(r#"orchestrator_tasks_total{outcome="failed"}"#, "7+0x80")],
        ],
    ),
    (
        "MeshRequestErrors",
        r#"severity="warning", service="gateway", peer="orchestrator""#,
        &[&[
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="503"}"#,
                "0+2x80",
            ),
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="200"}"#,
                "0+8x80",
            ),
        ]],
        &[&[
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="429"}"#,
                "0+2x80",
            ),
            (
                r#"sidecar_requests_total{service="gateway", peer="orchestrator", direction="outbound", code="200"}"#,
                "0+8x80",
            ),
        ]],
    ),
    (
        "MeshBreakerOpen",
        r#"severity="warning", service="a", peer="b""#,
        &[&[(
            r#"sidecar_breaker_open{service="a", peer="b", direction="outbound"}"#,
            "1+0x80",
        )]],
        &[&[(
            r#"sidecar_breaker_open{service="a", peer="b", direction="outbound"}"#,
            "0+0x80",
        )]],
    ),
    (
        "MeshInstancesEjected",
        r#"severity="warning", service="a", peer="b""#,
        &[&[(
            r#"sidecar_ejections_total{service="a", peer="b", direction="outbound"}"#,
            "0+0x40 3+0x39",
        )]],
        &[&[(
            r#"sidecar_ejections_total{service="a", peer="b", direction="outbound"}"#,
            "0+0x40 2+0x39",
        )]],
    ),
    (
        "MeshRunsTakenOver",
        r#"severity="warning""#,
        &[&[(
            r#"orchestrator_runs_taken_up_total{instance="o"}"#,
            "0+0x40 2+0x39",
        )]],
        &[&[(
            r#"orchestrator_runs_taken_up_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
    ),
    (
        "MeshStoreEmptied",
        r#"severity="critical", instance="o""#,
        &[&[(
            r#"orchestrator_store_emptied_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"orchestrator_store_emptied_total{instance="o"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshStoreErrors",
        r#"severity="critical", instance="o""#,
        &[&[(r#"orchestrator_store_errors_total{instance="o"}"#, "0+1x80")]],
        // One hiccup, some minutes ago.
        &[&[(
            r#"orchestrator_store_errors_total{instance="o"}"#,
            "0+0x40 3+0x39",
        )]],
    ),
    (
        "MeshEventsDropped",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_events_dropped_total{instance="o"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"orchestrator_events_dropped_total{instance="o"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshCertificateExpiring",
        r#"severity="critical", service="a""#,
        // It is 1200 then.
        &[&[(
            r#"sidecar_certificate_expiry_seconds{service="a"}"#,
            "8399+0x80",
        )]],
        &[
            &[(
                r#"sidecar_certificate_expiry_seconds{service="a"}"#,
                "8401+0x80",
            )],
            &[(
                r#"sidecar_certificate_expiry_seconds{service="a"}"#,
                "0+0x80",
            )],
        ],
    ),
    (
        "MeshFilterFailingOpen",
        r#"severity="critical", service="orchestrator""#,
        &[&[(
            r#"sidecar_refusals_total{service="orchestrator", agent="orchestrator", direction="inbound", reason="assertion_missing"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"sidecar_refusals_total{service="orchestrator", agent="orchestrator", direction="inbound", reason="no_intention"}"#,
            "0+0x40 9+0x39",
        )]],
    ),
    (
        "MeshFilterFailing",
        r#"severity="critical", filter="jwt_auth", instance="k""#,
        &[&[(
            r#"gateway_filter_failures_total{filter="jwt_auth", instance="k"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"gateway_filter_failures_total{filter="jwt_auth", instance="k"}"#,
            "3+0x80",
        )]],
    ),
    (
        "MeshAuditLost",
        r#"severity="warning", agent="a", reason="full""#,
        &[&[(
            r#"sidecar_audit_lost_total{agent="a", reason="full"}"#,
            "0+0x40 1+0x39",
        )]],
        &[&[(
            r#"sidecar_audit_lost_total{agent="a", reason="full"}"#,
            "0+0x80",
        )]],
    ),
    (
        "MeshModelBreakerOpen",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_model_breaker{instance="o", state="open"}"#,
            "1+0x80",
        )]],
        &[&[(
            r#"orchestrator_model_breaker{instance="o", state="half_open"}"#,
            "1+0x80",
        )]],
    ),
    (
        "MeshModelLineFull",
        r#"severity="warning", instance="o""#,
        &[&[(
            r#"orchestrator_model_calls_waiting{instance="o"}"#,
            "46+0x80",
        )]],
        &[&[(
            r#"orchestrator_model_calls_waiting{instance="o"}"#,
            "45+0x80",
        )]],
    ),
];

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
