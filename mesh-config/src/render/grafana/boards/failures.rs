//! What fails?

use crate::render::grafana::model::{Dashboard, Good};

pub(super) fn failures() -> Dashboard {
    Dashboard::new(
        "mesh-failures",
        "What fails?",
        "Tasks, steps, requests, and what was refused",
    )
    .number(
        "Tasks that fail",
        "Of those that ended in five minutes",
        "percentunit",
        Good::Any,
        "mesh:task_error_ratio:rate5m",
    )
    .number(
        "Dead letters in an hour",
        "Deliveries that were put aside",
        "none",
        Good::Zero,
        "sum(increase(sidecar_dead_letters_total[1h]))",
    )
    .number(
        "Breakers open",
        "Services that are sent nothing",
        "none",
        Good::Zero,
        "sum(sidecar_breaker_open)",
    )
    .number(
        "Filters that failed in an hour",
        "Calls that a filter did not bring to their end",
        "none",
        Good::Zero,
        "sum(increase(gateway_filter_failures_total[1h]))",
    )
    .graph(
        "Tasks",
        "That ended, per second",
        "ops",
        &[("mesh:tasks:rate5m", "{{outcome}}")],
    )
    .graph(
        "Steps that did not complete",
        "Per second, by agent and the error's code",
        "ops",
        &[(
            r#"mesh:agent_steps:rate5m{outcome!="completed"}"#,
            "{{agent}} {{outcome}}",
        )],
    )
    .graph(
        "Dead letters",
        "In ten minutes, by agent and reason",
        "none",
        &[(
            "sum by (agent, reason) (increase(sidecar_dead_letters_total[10m])) > 0",
            "{{agent}} {{reason}}",
        )],
    )
    .graph(
        "Requests answered with 5xx",
        "Share of those between two services",
        "percentunit",
        &[("mesh:request_error_ratio:rate5m", "{{service}} to {{peer}}")],
    )
    .graph(
        "Refused by sidecars",
        "Per second, by why",
        "ops",
        &[(
            "sum by (service, reason) (rate(sidecar_refusals_total[5m])) > 0",
            "{{service}} {{reason}}",
        )],
    )
    .graph(
        "Refused by the gateway",
        "Requests with 4xx per second; the filters' 401, 403 and 429 among them",
        "reqps",
        &[(
            r#"sum by (route, status) (rate(gateway_requests_total{status=~"4.."}[5m]))"#,
            "{{route}} {{status}}",
        )],
    )
    .graph(
        "Tries again, ejections",
        "Per second, between services",
        "ops",
        &[
            (
                "sum by (service, peer) (rate(sidecar_retries_total[5m]))",
                "retries {{service}} to {{peer}}",
            ),
            (
                "sum by (service, peer) (rate(sidecar_ejections_total[5m]))",
                "ejections {{service}} of {{peer}}",
            ),
        ],
    )
    .graph(
        "Store, broker, takeovers",
        "What orchestrators met, per second",
        "ops",
        &[
            (
                "sum(rate(orchestrator_store_errors_total[5m]))",
                "store errors",
            ),
            (
                "sum by (kind) (rate(orchestrator_bus_errors_total[5m]))",
                "bus errors {{kind}}",
            ),
            (
                "sum(rate(orchestrator_runs_taken_up_total[5m]))",
                "runs taken over",
            ),
            (
                "sum(rate(orchestrator_store_emptied_total[5m]))",
                "store emptied",
            ),
        ],
    )
}
