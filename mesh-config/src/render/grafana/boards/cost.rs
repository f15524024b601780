//! What does it cost?

use crate::mesh::Mesh;
use crate::render::grafana::model::{Dashboard, Good};

pub(super) fn cost(mesh: &Mesh) -> Dashboard {
    let board = Dashboard::new(
        "mesh-cost",
        "What does it cost?",
        "Tokens, processor, memory and requests, by who uses them",
    )
    .number(
        "Requests per second",
        "That sidecars took in",
        "reqps",
        Good::Any,
        r#"sum(mesh:requests:rate5m{direction="inbound"})"#,
    )
    .number(
        "Tasks per second",
        "That ended",
        "ops",
        Good::Any,
        "sum(mesh:tasks:rate5m)",
    )
    .number(
        "Processors in use",
        "By all parts that are scraped",
        "none",
        Good::Any,
        "sum(rate(process_cpu_seconds_total[5m]))",
    )
    .number(
        "Memory",
        "Resident, of all parts that are scraped",
        "bytes",
        Good::Any,
        "sum(process_resident_memory_bytes)",
    );
    let board = if mesh.orchestrator.ollama.is_some() {
        board
            .graph(
                "Tokens",
                "Per second, by consumer and direction",
                "ops",
                &[("mesh:model_tokens:rate5m", "{{consumer}} {{direction}}")],
            )
            .graph(
                "Calls to the model",
                "Per second, by consumer and outcome",
                "ops",
                &[(
                    "sum by (consumer, outcome) (rate(orchestrator_model_calls_total[5m]))",
                    "{{consumer}} {{outcome}}",
                )],
            )
    } else {
        board
    };
    board
        .graph(
            "Processor by part",
            "Processors in use",
            "none",
            &[(
                "sum by (job, service) (rate(process_cpu_seconds_total[5m]))",
                "{{job}} {{service}}",
            )],
        )
        .graph(
            "Memory by part",
            "Resident",
            "bytes",
            &[(
                "sum by (job, service) (process_resident_memory_bytes)",
                "{{job}} {{service}}",
            )],
        )
        .graph(
            "Processor by container",
            "Processors in use, as cAdvisor sees them: agents as well",
            "none",
            &[(
                r#"sum by (name) (rate(container_cpu_usage_seconds_total{name!=""}[5m]))"#,
                "{{name}}",
            )],
        )
        .graph(
            "Memory by container",
            "Working set, as cAdvisor sees it",
            "bytes",
            &[(
                r#"sum by (name) (container_memory_working_set_bytes{name!=""})"#,
                "{{name}}",
            )],
        )
        .graph(
            "Requests at the gateway",
            "Per second, by route and status",
            "reqps",
            &[(
                "sum by (route, status) (rate(gateway_requests_total[5m]))",
                "{{route}} {{status}}",
            )],
        )
        .graph(
            "Requests between services",
            "Per second",
            "reqps",
            &[(
                r#"sum by (service, peer) (mesh:requests:rate5m{direction="outbound"})"#,
                "{{service}} to {{peer}}",
            )],
        )
        .graph(
            "Time of requests (99 of 100)",
            "From the head of a request until the last byte of its answer",
            "s",
            &[(
                "mesh:request_duration_seconds:p99",
                "{{service}} {{direction}}",
            )],
        )
        .graph(
            "Time of steps (95 of 100)",
            "From taking a step until its outcome stood",
            "s",
            &[("mesh:agent_task_duration_seconds:p95", "{{agent}}")],
        )
}
