//! The dashboards: the plan's overview, and one for each question. Is it up? Where does it queue? What fails? What does
//! it cost?

mod cost;
mod failures;

use super::model::{Dashboard, Good};
use crate::mesh::Mesh;

/// All of them; uids are stable, since people keep links.
pub(super) fn boards(mesh: &Mesh) -> Vec<Dashboard> {
    vec![
        overview(),
        up(),
        queues(),
        failures::failures(),
        cost::cost(mesh),
    ]
}

/// The plan's four panels with its titles and expressions, which are contracts; its panel kind `graph` is called
/// `timeseries` now.
fn overview() -> Dashboard {
    Dashboard::new(
        "mesh-overview",
        "System Overview",
        "The mesh and what it leans on, at a glance",
    )
    .graph(
        "Service Mesh Health",
        "1 for each part that answers Prometheus",
        "none",
        &[("up{job=~'kong|consul|rabbitmq'}", "{{job}} {{instance}}")],
    )
    .graph(
        "AI Agent Performance",
        "Steps that ended per second",
        "ops",
        &[(
            "rate(agent_tasks_processed_total[5m])",
            "{{agent}} {{outcome}}",
        )],
    )
    .graph(
        "Vector Store Operations",
        "As the vector stores count them, where they do",
        "ops",
        &[(
            "rate(vector_operations_total[5m])",
            "{{vector_store}} {{operation}}",
        )],
    )
    .graph(
        "System Resources",
        "Memory that is free, of a hundred; of node-exporter",
        "percent",
        &[(
            "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes * 100",
            "{{instance}}",
        )],
    )
}

fn up() -> Dashboard {
    Dashboard::new("mesh-up", "Is it up?", "Every part, and what it needs to work")
        .number(
            "Targets down",
            "Targets that do not answer Prometheus",
            "none",
            Good::Zero,
            "count(up == 0) or vector(0)",
        )
        .number(
            "Jobs without targets",
            "Jobs of mesh.yaml for which Prometheus found nobody",
            "none",
            Good::Zero,
            "count(mesh:job_expected unless on (job) up) or vector(0)",
        )
        .number(
            "Agents down",
            "Agents of mesh.yaml without a sidecar that answers",
            "none",
            Good::Zero,
            r#"count(mesh:agent_expected unless on (agent_name) (up{job="ai-agents"} == 1)) or vector(0)"#,
        )
        .number(
            "Alerts",
            "Alerts that fire",
            "none",
            Good::Zero,
            r#"count(ALERTS{alertstate="firing"}) or vector(0)"#,
        )
        .graph("Parts", "1 while it answers", "none", &[("min by (job) (up)", "{{job}}")])
        .graph(
            "Agents",
            "1 while the sidecar beside it answers",
            "none",
            &[(r#"max by (agent_name) (up{job="ai-agents"})"#, "{{agent_name}}")],
        )
        .graph(
            "Broker and registry, as sidecars see them",
            "1 while it is reached",
            "none",
            &[
                ("sidecar_bus_connected", "broker, {{agent}}"),
                ("sidecar_registry_up", "registry, {{agent}}"),
            ],
        )
        .graph(
            "Certificates",
            "How long each is still valid",
            "s",
            &[("sidecar_certificate_expiry_seconds - time()", "{{service}}")],
        )
        .graph(
            "Consul",
            "Questions to its servers, per second",
            "ops",
            &[("rate(consul_client_rpc[5m])", "{{instance}}")],
        )
        .graph(
            "Running since",
            "Age of each process",
            "s",
            &[("time() - process_start_time_seconds", "{{job}} {{service}} {{instance}}")],
        )
}

fn queues() -> Dashboard {
    Dashboard::new("mesh-queues", "Where does it queue?", "What waits, where, and for how long")
        .number(
            "Tasks under way",
            "Tasks that have not ended",
            "none",
            Good::Any,
            "sum(orchestrator_tasks_in_flight)",
        )
        .number(
            "Messages in the broker",
            "Ready, in all queues",
            "none",
            Good::Any,
            "sum(rabbitmq_queue_messages_ready)",
        )
        .number(
            "Calls waiting for the model",
            "At all orchestrators",
            "none",
            Good::Any,
            "sum(orchestrator_model_calls_waiting)",
        )
        .number(
            "Events waiting",
            "Changes that wait to be told on ai.events",
            "none",
            Good::Any,
            "sum(orchestrator_events_waiting)",
        )
        .graph(
            "Wait in the queue (95 of 100)",
            "From sending a step until it was taken for the first time",
            "s",
            &[("mesh:agent_queue_wait_seconds:p95", "{{agent}}")],
        )
        .graph(
            "Steps at agents",
            "Taken and not settled",
            "none",
            &[("sum by (agent) (agent_tasks_in_flight)", "{{agent}}")],
        )
        .graph(
            "Messages in the broker",
            "Ready and not acknowledged",
            "none",
            &[
                ("sum(rabbitmq_queue_messages_ready)", "ready"),
                ("sum(rabbitmq_queue_messages_unacked)", "unacked"),
            ],
        )
        .graph(
            "Left until the consumer timeout",
            "Until the broker takes the oldest step back",
            "s",
            &[("min by (agent) (sidecar_ack_deadline_left_seconds)", "{{agent}}")],
        )
        .graph(
            "The model's line",
            "Calls that wait and calls under way",
            "none",
            &[
                ("sum(orchestrator_model_calls_waiting)", "waiting"),
                ("sum(orchestrator_model_calls_under_way)", "under way"),
            ],
        )
        .graph(
            "Wait for the model (95 of 100)",
            "Those refused included",
            "s",
            &[(
                "histogram_quantile(0.95, sum by (le) (rate(orchestrator_model_queue_wait_seconds_bucket[5m])))",
                "p95",
            )],
        )
        .graph(
            "Planning (95 of 100)",
            "Time to a checked plan, by who made it",
            "s",
            &[("mesh:plan_duration_seconds:p95", "{{source}}")],
        )
        .graph(
            "Steps put off",
            "Deliveries that wait in delay queues before they are tried again, per second",
            "ops",
            &[("sum by (agent) (rate(sidecar_delays_total[5m]))", "{{agent}}")],
        )
}
