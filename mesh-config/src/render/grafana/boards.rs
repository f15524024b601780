//! The dashboards: the plan's overview, and one for each question. Is it up? Where does it queue? What fails? What does
//! it cost?

use super::model::{Dashboard, Good};
use crate::mesh::Mesh;

/// All of them; uids are stable, since people keep links.
pub(super) fn boards(mesh: &Mesh) -> Vec<Dashboard> {
    vec![overview(), up(), queues(), failures(), cost(mesh)]
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
            "1 where this server is the leader's follower or the leader: raft has peers",
            "none",
            &[("consul_raft_peers", "{{instance}}")],
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

fn failures() -> Dashboard {
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

fn cost(mesh: &Mesh) -> Dashboard {
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
