//! Rule files as types, and the recording rules: what dashboards and alerts ask for again and again.

use super::jobs::scraped_agents;
use crate::mesh::Mesh;
use serde::Serialize;
use std::collections::BTreeMap;

/// A rule file.
#[derive(Debug, Serialize)]
pub(super) struct RuleFile {
    pub groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub name: &'static str,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Rule {
    Record {
        record: &'static str,
        expr: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<&'static str, String>,
    },
    Alert {
        alert: &'static str,
        expr: String,
        #[serde(rename = "for")]
        pending: &'static str,
        labels: BTreeMap<&'static str, &'static str>,
        annotations: BTreeMap<&'static str, String>,
    },
}

/// A share of a hundred is a share of one here: 0 to 1. Without traffic it has no value.
const RATIOS: [(&str, &str); 2] = [
    (
        "mesh:task_error_ratio:rate5m",
        r#"sum(rate(orchestrator_tasks_total{outcome="failed"}[5m])) / sum(rate(orchestrator_tasks_total[5m]))"#,
    ),
    // What the caller got, whoever the gateway is.
    (
        "mesh:request_error_ratio:rate5m",
        r#"sum by (service, peer) (rate(sidecar_requests_total{direction="outbound", code=~"5.."}[5m])) / sum by (service, peer) (rate(sidecar_requests_total{direction="outbound"}[5m]))"#,
    ),
];

const RATES: [(&str, &str); 4] = [
    (
        "mesh:tasks:rate5m",
        "sum by (outcome) (rate(orchestrator_tasks_total[5m]))",
    ),
    (
        "mesh:agent_steps:rate5m",
        "sum by (agent, outcome) (rate(agent_tasks_processed_total[5m]))",
    ),
    (
        "mesh:requests:rate5m",
        "sum by (service, direction, peer, code) (rate(sidecar_requests_total[5m]))",
    ),
    (
        "mesh:model_tokens:rate5m",
        "sum by (consumer, direction) (rate(orchestrator_model_tokens_total[5m]))",
    ),
];

const LATENCIES: [(&str, &str); 4] = [
    (
        "mesh:agent_queue_wait_seconds:p95",
        "histogram_quantile(0.95, sum by (agent, le) (rate(agent_task_queue_wait_seconds_bucket[5m])))",
    ),
    (
        "mesh:agent_task_duration_seconds:p95",
        "histogram_quantile(0.95, sum by (agent, le) (rate(agent_task_duration_seconds_bucket[5m])))",
    ),
    (
        "mesh:request_duration_seconds:p99",
        "histogram_quantile(0.99, sum by (service, direction, le) (rate(sidecar_request_duration_seconds_bucket[5m])))",
    ),
    (
        "mesh:plan_duration_seconds:p95",
        "histogram_quantile(0.95, sum by (source, le) (rate(orchestrator_plan_duration_seconds_bucket[5m])))",
    ),
];

/// The recording rules. What should be there is recorded as well, so that what is not can be told from it.
pub(super) fn records(mesh: &Mesh, jobs: &[&str]) -> RuleFile {
    let record = |&(record, expr): &(&'static str, &str)| Rule::Record {
        record,
        expr: expr.to_owned(),
        labels: BTreeMap::new(),
    };
    let expected = |record, label, value: &str| Rule::Record {
        record,
        expr: "vector(1)".to_owned(),
        labels: BTreeMap::from([(label, value.to_owned())]),
    };
    let jobs = jobs
        .iter()
        .map(|job| expected("mesh:job_expected", "job", job));
    let agents = scraped_agents(mesh);
    let agents = agents.map(|agent| expected("mesh:agent_expected", "agent_name", agent));
    let measured = RATES.iter().chain(&RATIOS).chain(&LATENCIES);
    RuleFile {
        groups: vec![
            Group {
                name: "mesh-expected",
                rules: jobs.chain(agents).collect(),
            },
            Group {
                name: "mesh-records",
                rules: measured.map(record).collect(),
            },
        ],
    }
}
