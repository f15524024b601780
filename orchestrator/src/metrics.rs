//! What the orchestrator counts. Labels are words of this code, or agents of the configuration;
//! nothing that a client sends becomes one.

mod resources;

use crate::planner::check::Finding;
use mesh_protocol::AgentId;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use std::time::Duration;

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    tasks: IntCounterVec,
    /// Tasks that have not ended.
    pub in_flight: IntGauge,
    plans: HistogramVec,
    findings: IntCounterVec,
    steps: IntCounterVec,
    results: IntCounterVec,
    /// Store calls that failed.
    pub store_errors: IntCounter,
    /// Runs that this replica took over, or took up after a start.
    pub taken_up: IntCounter,
    /// Runs that another replica took over from this one.
    pub superseded: IntCounter,
    /// Runs that the store had lost and has again.
    pub written_again: IntCounter,
    /// Times that the store was found emptied.
    pub store_emptied: IntCounter,
    /// Results that other replicas' runs were handed.
    pub handed_over: IntCounter,
    bus_errors: IntCounterVec,
    /// Events handed to the broker.
    pub events_published: IntCounter,
    /// Changes, or events of them, that never will be.
    pub events_dropped: IntCounter,
    /// Changes that wait to be told.
    pub events_waiting: IntGauge,
    replies: IntCounterVec,
    intake: IntCounterVec,
    /// Clients that follow a task.
    pub sse_clients: IntGauge,
    answers: IntCounterVec,
    exchanges: IntCounterVec,
    exchange_entries: IntCounter,
    gateways: IntGauge,
    load_questions: IntCounterVec,
    internal_refused: IntCounter,
    assignments: IntCounterVec,
    /// Leases on what steps share.
    pub(crate) resources: resources::ResourceMetrics,
}

impl Metrics {
    /// Registers everything in `registry`.
    ///
    /// # Errors
    /// A name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let plans = HistogramVec::new(
            HistogramOpts::new(
                "orchestrator_plan_duration_seconds",
                "Time to a checked plan, by who made it",
            )
            .buckets(vec![
                0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ]),
            &["source"],
        )?;
        registry.register(Box::new(plans.clone()))?;
        let tasks = counters(
            "orchestrator_tasks_total",
            "Tasks that ended, by outcome",
            &["outcome"],
        )?;
        // From zero, so that the first is an increase.
        for outcome in ["completed", "failed", "cancelled"] {
            tasks.with_label_values(&[outcome]);
        }
        Ok(Self {
            tasks,
            in_flight: gauge("orchestrator_tasks_in_flight", "Tasks that have not ended")?,
            plans,
            findings: counters(
                "orchestrator_plan_findings_total",
                "Faults found in plans of models, by code",
                &["code"],
            )?,
            steps: counters(
                "orchestrator_steps_total",
                "Steps that were settled, by agent and outcome",
                &["agent", "outcome"],
            )?,
            results: counters(
                "orchestrator_results_total",
                "Results that came in, by what became of them",
                &["kind"],
            )?,
            store_errors: counter("orchestrator_store_errors_total", "Store calls that failed")?,
            taken_up: counter(
                "orchestrator_runs_taken_up_total",
                "Runs that this replica took over, or took up after a start",
            )?,
            superseded: counter(
                "orchestrator_runs_superseded_total",
                "Runs that another replica took over from this one",
            )?,
            written_again: counter(
                "orchestrator_runs_written_again_total",
                "Runs that the store had lost and has again",
            )?,
            store_emptied: counter(
                "orchestrator_store_emptied_total",
                "Times that the store was found emptied",
            )?,
            handed_over: counter(
                "orchestrator_results_handed_over_total",
                "Results that other replicas' runs were handed",
            )?,
            bus_errors: counters(
                "orchestrator_bus_errors_total",
                "Bus calls that failed, by kind",
                &["kind"],
            )?,
            events_published: counter(
                "orchestrator_events_published_total",
                "Events handed to the broker",
            )?,
            events_dropped: counter(
                "orchestrator_events_dropped_total",
                "Changes or events that the broker never had: refused, or out of the log before it took them",
            )?,
            events_waiting: gauge(
                "orchestrator_events_waiting",
                "Changes that wait to be told on ai.events, at the replica that does it",
            )?,
            replies: counters(
                "orchestrator_replies_total",
                "Answers to those who submitted over AMQP, by what became of them",
                &["outcome"],
            )?,
            intake: counters(
                "orchestrator_intake_total",
                "Messages in the intake, by what became of them",
                &["outcome"],
            )?,
            sse_clients: gauge("orchestrator_sse_clients", "Clients that follow a task")?,
            answers: counters(
                "orchestrator_http_answers_total",
                "Answers of the API, by status",
                &["status"],
            )?,
            exchanges: counters(
                "orchestrator_quota_exchanges_total",
                "Exchanges of usage with gateways, by outcome",
                &["outcome"],
            )?,
            exchange_entries: counter(
                "orchestrator_quota_entries_total",
                "Buckets that gateways told of or asked for",
            )?,
            gateways: gauge(
                "orchestrator_quota_gateways",
                "Gateways that share quotas, as of the last exchange",
            )?,
            load_questions: counters(
                "orchestrator_load_questions_total",
                "Questions how busy agents are, by whether all of them could be told of",
                &["outcome"],
            )?,
            internal_refused: counter(
                "orchestrator_internal_refused_total",
                "Requests for filters' paths without the internal token",
            )?,
            assignments: counters(
                "orchestrator_assignments_total",
                "Steps of a capability that were given to an agent, by agent and reason",
                &["agent", "reason"],
            )?,
            resources: resources::ResourceMetrics::new(registry)?,
        })
    }

    pub(crate) fn planned(&self, source: &str, took: Duration) {
        self.plans
            .with_label_values(&[source])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn rejected(&self, findings: &[Finding]) {
        for finding in findings {
            self.findings
                .with_label_values(&[finding.code.as_str()])
                .inc();
        }
    }

    pub(crate) fn rejected_as(&self, code: &'static str) {
        self.findings.with_label_values(&[code]).inc();
    }

    pub(crate) fn task(&self, outcome: &str) {
        self.tasks.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn step(&self, agent: &AgentId, outcome: &str) {
        self.steps
            .with_label_values(&[agent.as_str(), outcome])
            .inc();
    }

    pub(crate) fn results(&self, kind: &str) {
        self.results.with_label_values(&[kind]).inc();
    }

    pub(crate) fn reply(&self, outcome: &str) {
        self.replies.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn intake(&self, outcome: &str) {
        self.intake.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn bus_error(&self, kind: &str) {
        self.bus_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn exchange(&self, outcome: &str) {
        self.exchanges.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn exchanged(&self, entries: usize, gateways: u32) {
        self.exchange("counted");
        self.exchange_entries
            .inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
        self.gateways.set(gateways.into());
    }

    pub(crate) fn load_asked(&self, outcome: &str) {
        self.load_questions.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn internal_refused(&self) {
        self.internal_refused.inc();
    }

    pub(crate) fn assigned(&self, agent: &AgentId, reason: &str) {
        self.assignments
            .with_label_values(&[agent.as_str(), reason])
            .inc();
    }

    pub(crate) fn answer(&self, status: http::StatusCode) {
        self.answers.with_label_values(&[status.as_str()]).inc();
    }
}
