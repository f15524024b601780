//! What the orchestrator counts. Labels are words of this code, or agents of the configuration;
//! nothing that a client sends becomes one.

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
    bus_errors: IntCounterVec,
    /// Events handed to the broker.
    pub events_published: IntCounter,
    /// Events that were not.
    pub events_dropped: IntCounter,
    /// Clients that follow a task.
    pub sse_clients: IntGauge,
    answers: IntCounterVec,
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
        Ok(Self {
            tasks: counters(
                "orchestrator_tasks_total",
                "Tasks that ended, by outcome",
                &["outcome"],
            )?,
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
                "Events that were not handed to the broker",
            )?,
            sse_clients: gauge("orchestrator_sse_clients", "Clients that follow a task")?,
            answers: counters(
                "orchestrator_http_answers_total",
                "Answers of the API, by status",
                &["status"],
            )?,
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

    pub(crate) fn bus_error(&self, kind: &str) {
        self.bus_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn answer(&self, status: http::StatusCode) {
        self.answers.with_label_values(&[status.as_str()]).inc();
    }
}
