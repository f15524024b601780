//! The alerts: what needs somebody, and how soon.
//!
//! Each has a section in docs/alerts.md: what it means, what to look at, what to do. `critical` is for what costs tasks
//! now, `warning` for what will.

use super::jobs::AGENTS;
use super::rules::{Group, Rule, RuleFile};
use crate::mesh::Mesh;
use crate::render::prometheus::duration;
use std::collections::BTreeMap;
use std::time::Duration;

const CRITICAL: &str = "critical";
const WARNING: &str = "warning";

/// One alert.
struct Alert {
    name: &'static str,
    severity: &'static str,
    /// How long it must hold before somebody is told.
    pending: &'static str,
    expr: String,
    summary: &'static str,
    description: String,
}

/// The alerts of a mesh. What it does not have is not watched: no model, no alerts of it.
pub(super) fn groups(mesh: &Mesh, jobs: &[&str]) -> RuleFile {
    let rule = |alert: Alert| Rule::Alert {
        alert: alert.name,
        expr: alert.expr,
        pending: alert.pending,
        labels: BTreeMap::from([("severity", alert.severity)]),
        annotations: BTreeMap::from([
            ("summary", alert.summary.to_owned()),
            ("description", alert.description),
            (
                "runbook_url",
                format!(
                    "{}#{}",
                    mesh.telemetry.runbooks,
                    alert.name.to_ascii_lowercase()
                ),
            ),
        ]),
    };
    let group = |name, alerts: Vec<Alert>| Group {
        name,
        rules: alerts.into_iter().map(rule).collect(),
    };
    let mut groups = vec![
        group("mesh-up", up()),
        group("mesh-queues", queues(mesh, jobs)),
        group("mesh-failures", failures(mesh)),
        group("mesh-trust", trust(mesh)),
    ];
    let model = model(mesh);
    if !model.is_empty() {
        groups.push(group("mesh-model", model));
    }
    RuleFile { groups }
}

fn up() -> Vec<Alert> {
    vec![
        Alert {
            name: "MeshAgentDown",
            severity: CRITICAL,
            pending: "1m",
            expr: format!(r#"mesh:agent_expected unless on (agent_name) (up{{job="{AGENTS}"}} == 1)"#),
            summary: "agent {{ $labels.agent_name }} is down",
            description: "No sidecar beside agent {{ $labels.agent_name }} answers Prometheus: its steps wait in their queue.".to_owned(),
        },
        Alert {
            name: "MeshPartDown",
            severity: CRITICAL,
            pending: "1m",
            expr: r#"up{job=~"kong|consul|rabbitmq|orchestrator|sidecar"} == 0"#.to_owned(),
            summary: "{{ $labels.job }} at {{ $labels.instance }} is down",
            description: "Prometheus gets no answer from {{ $labels.instance }} (job {{ $labels.job }}).".to_owned(),
        },
        Alert {
            name: "MeshTargetsMissing",
            severity: CRITICAL,
            pending: "5m",
            expr: "mesh:job_expected unless on (job) up".to_owned(),
            summary: "Prometheus has no target for job {{ $labels.job }}",
            description: "mesh.yaml expects job {{ $labels.job }}, and Prometheus found nobody to scrape for it: what it watches is not watched.".to_owned(),
        },
        Alert {
            name: "MeshBrokerAway",
            severity: CRITICAL,
            pending: "1m",
            expr: "sidecar_bus_connected == 0".to_owned(),
            summary: "agent {{ $labels.agent }} has no broker",
            description: "The sidecar beside {{ $labels.agent }} cannot reach the broker: it takes no steps.".to_owned(),
        },
        Alert {
            name: "MeshRegistryAway",
            severity: WARNING,
            pending: "5m",
            expr: "sidecar_registry_up == 0".to_owned(),
            summary: "{{ $labels.agent }} has no registry",
            description: "The sidecar beside {{ $labels.agent }} gets no answer from the registry and goes by what it knew.".to_owned(),
        },
    ]
}

fn queues(mesh: &Mesh, jobs: &[&str]) -> Vec<Alert> {
    let limits = &mesh.telemetry.thresholds;
    let mut alerts = vec![
        Alert {
            name: "MeshQueueWaitLong",
            severity: WARNING,
            pending: "5m",
            expr: format!("mesh:agent_queue_wait_seconds:p95 > {}", seconds(limits.queue_wait)),
            summary: "steps wait long for agent {{ $labels.agent }}",
            description: "One step in twenty waits {{ $value | humanizeDuration }} or longer in the queue of {{ $labels.agent }}.".to_owned(),
        },
        Alert {
            name: "MeshConsumerTimeoutNear",
            severity: WARNING,
            pending: "0s",
            expr: format!(
                "sidecar_ack_deadline_left_seconds < {}",
                seconds(limits.ack_deadline_left)
            ),
            summary: "the broker will soon take a step back from agent {{ $labels.agent }}",
            description: "The oldest step at {{ $labels.agent }} has {{ $value | humanizeDuration }} left until the broker's consumer timeout.".to_owned(),
        },
        Alert {
            name: "MeshDeadLetters",
            severity: WARNING,
            pending: "0s",
            expr: format!(
                r#"sum by (agent, reason) (increase(sidecar_dead_letters_total{{reason!="exhausted"}}[10m])) > {}"#,
                limits.dead_letters
            ),
            summary: "steps of agent {{ $labels.agent }} became dead letters",
            description: "{{ $value | humanize }} deliveries for {{ $labels.agent }} were put aside in ten minutes: {{ $labels.reason }}.".to_owned(),
        },
        Alert {
            name: "MeshRetriesExhausted",
            severity: WARNING,
            pending: "0s",
            expr: format!(
                r#"sum by (agent) (increase(sidecar_dead_letters_total{{reason="exhausted"}}[10m])) > {}"#,
                limits.dead_letters
            ),
            summary: "agent {{ $labels.agent }} failed steps for good",
            description: "{{ $value | humanize }} steps of {{ $labels.agent }} used up all their tries in ten minutes.".to_owned(),
        },
    ];
    if jobs.contains(&"rabbitmq") {
        alerts.push(Alert {
            name: "MeshQueueGrowing",
            severity: WARNING,
            pending: "10m",
            expr: format!(
                "sum(rabbitmq_queue_messages_ready) > {} and sum(deriv(rabbitmq_queue_messages_ready[10m])) > 0",
                limits.queue_depth
            ),
            summary: "queues grow",
            description: "{{ $value | humanize }} messages wait in the broker, and there are more every minute.".to_owned(),
        });
    }
    alerts
}

fn failures(mesh: &Mesh) -> Vec<Alert> {
    let limits = &mesh.telemetry.thresholds;
    // Exact: whole numbers of a hundred.
    let ratio = format!(
        "{}.{:02}",
        limits.error_percent / 100,
        limits.error_percent % 100
    );
    vec![
        Alert {
            name: "MeshTaskErrors",
            severity: CRITICAL,
            pending: "5m",
            expr: format!("mesh:task_error_ratio:rate5m > {ratio}"),
            summary: "tasks fail",
            description: "{{ $value | humanizePercentage }} of the tasks that ended in five minutes failed.".to_owned(),
        },
        Alert {
            name: "MeshRequestErrors",
            severity: WARNING,
            pending: "5m",
            expr: format!("mesh:request_error_ratio:rate5m > {ratio}"),
            summary: "requests of {{ $labels.service }} to {{ $labels.peer }} fail",
            description: "{{ $value | humanizePercentage }} of the requests of {{ $labels.service }} to {{ $labels.peer }} were answered with 5xx.".to_owned(),
        },
        Alert {
            name: "MeshBreakerOpen",
            severity: WARNING,
            pending: "1m",
            expr: "sidecar_breaker_open == 1".to_owned(),
            summary: "{{ $labels.service }} sends nothing to {{ $labels.peer }}",
            description: "The breaker of {{ $labels.service }} for {{ $labels.peer }} ({{ $labels.direction }}) is open: too much failed.".to_owned(),
        },
        Alert {
            name: "MeshInstancesEjected",
            severity: WARNING,
            pending: "0s",
            expr: format!(
                "sum by (service, peer) (increase(sidecar_ejections_total[10m])) > {}",
                limits.ejections
            ),
            summary: "{{ $labels.service }} leaves instances of {{ $labels.peer }} alone",
            description: "Instances of {{ $labels.peer }} were ejected {{ $value | humanize }} times in ten minutes.".to_owned(),
        },
        Alert {
            name: "MeshRunsTakenOver",
            severity: WARNING,
            pending: "0s",
            expr: format!(
                "sum(increase(orchestrator_runs_taken_up_total[10m])) > {}",
                limits.takeovers
            ),
            summary: "an orchestrator took over runs of another",
            description: "{{ $value | humanize }} runs were taken over in ten minutes: a replica died, or did not keep its leases.".to_owned(),
        },
        Alert {
            name: "MeshStoreEmptied",
            severity: CRITICAL,
            pending: "0s",
            expr: "increase(orchestrator_store_emptied_total[15m]) > 0".to_owned(),
            summary: "the store was found emptied",
            description: "The store lost what was in it; {{ $labels.instance }} wrote its running tasks again. Finished ones are gone.".to_owned(),
        },
        Alert {
            name: "MeshStoreErrors",
            severity: CRITICAL,
            pending: "5m",
            expr: "rate(orchestrator_store_errors_total[5m]) > 0".to_owned(),
            summary: "the store does not answer",
            description: "{{ $value | humanize }} calls of {{ $labels.instance }} to the store fail every second.".to_owned(),
        },
        Alert {
            name: "MeshEventsDropped",
            severity: WARNING,
            pending: "0s",
            expr: "increase(orchestrator_events_dropped_total[15m]) > 0".to_owned(),
            summary: "events never reached the broker",
            description: "{{ $value | humanize }} events were refused by the broker or left the log before it took them.".to_owned(),
        },
    ]
}

fn trust(mesh: &Mesh) -> Vec<Alert> {
    vec![
        Alert {
            name: "MeshCertificateExpiring",
            severity: CRITICAL,
            pending: "0s",
            expr: format!(
                "sidecar_certificate_expiry_seconds - time() < {} and sidecar_certificate_expiry_seconds > 0",
                seconds(mesh.telemetry.thresholds.certificate_left)
            ),
            summary: "the certificate of {{ $labels.service }} expires",
            description: "The certificate of {{ $labels.service }} is valid for {{ $value | humanizeDuration }} more, and was not renewed.".to_owned(),
        },
        Alert {
            name: "MeshFilterFailingOpen",
            severity: CRITICAL,
            pending: "0s",
            expr: r#"sum by (service) (increase(sidecar_refusals_total{direction="inbound", reason="assertion_missing"}[10m])) > 0"#.to_owned(),
            summary: "a gateway lets requests pass that no filter saw",
            description: "{{ $labels.service }} refused {{ $value | humanize }} requests of the gateway without an assertion: its filters did not run.".to_owned(),
        },
        Alert {
            name: "MeshFilterFailing",
            severity: CRITICAL,
            pending: "0s",
            expr: "sum by (instance, filter) (increase(gateway_filter_failures_total[10m])) > 0".to_owned(),
            summary: "filter {{ $labels.filter }} fails",
            description: "{{ $labels.filter }} broke down {{ $value | humanize }} times at {{ $labels.instance }}; each time a request was refused.".to_owned(),
        },
        Alert {
            name: "MeshAuditLost",
            severity: WARNING,
            pending: "0s",
            expr: "sum by (agent, reason) (increase(sidecar_audit_lost_total[15m])) > 0".to_owned(),
            summary: "refusals are in no audit log",
            description: "{{ $value | humanize }} lines of {{ $labels.agent }} were lost: {{ $labels.reason }}.".to_owned(),
        },
    ]
}

fn model(mesh: &Mesh) -> Vec<Alert> {
    let Some(ollama) = &mesh.orchestrator.ollama else {
        return Vec::new();
    };
    let mut alerts = vec![Alert {
        name: "MeshModelBreakerOpen",
        severity: WARNING,
        pending: "1m",
        expr: r#"orchestrator_model_breaker{state="open"} == 1"#.to_owned(),
        summary: "the model server is not asked",
        description: "{{ $labels.instance }} asks the model server nothing, since too much failed: rules plan, agents without a model wait.".to_owned(),
    }];
    let places = u64::try_from(ollama.queue.max).unwrap_or(u64::MAX);
    if places > 0 {
        let most = places.saturating_mul(mesh.telemetry.thresholds.model_line_percent) / 100;
        alerts.push(Alert {
            name: "MeshModelLineFull",
            severity: WARNING,
            pending: "1m",
            expr: format!("orchestrator_model_calls_waiting > {most}"),
            summary: "the line at the model is nearly full",
            description: format!(
                "{{{{ $value }}}} calls wait for the model at {{{{ $labels.instance }}}}, and there is room for {places}; what comes beyond is refused."
            ),
        });
    }
    alerts
}

/// A number of seconds as PromQL has it.
fn seconds(time: Duration) -> String {
    let text = duration(time);
    match text.strip_suffix("ms") {
        Some(_) => format!("{}", time.as_secs_f64()),
        None => text.trim_end_matches('s').to_owned(),
    }
}
