//! What a sidecar counts, in a registry that is passed in.
//!
//! Everything carries the label `agent`. The children that every step touches are looked up once.

use crate::config::ServiceName;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The metrics of one sidecar.
pub(crate) struct Metrics {
    agent: String,
    processed: IntCounterVec,
    completed: IntCounter,
    /// From the moment a step was taken until its outcome stood, in seconds.
    pub(crate) duration: Histogram,
    /// Steps taken and not settled.
    pub(crate) in_flight: IntGauge,
    /// 1 while the broker can be reached.
    pub(crate) bus_connected: IntGauge,
    /// Deliveries that had been delivered before.
    pub(crate) redeliveries: IntCounter,
    /// Deliveries answered from the table of recent results, or that joined a step at the agent.
    pub(crate) repeats: IntCounter,
    /// Calls to the agent beyond a step's first.
    pub(crate) retries: IntCounter,
    dead_letters: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics of `agent` and registers them.
    pub(crate) fn register(registry: &Registry, agent: &ServiceName) -> prometheus::Result<Self> {
        let agent = agent.as_str();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let gauge = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["agent"])?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec.with_label_values(&[agent]))
        };
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "agent_task_duration_seconds",
                "From taking a step until its outcome stood",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                60.0,
            ]),
            &["agent"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let processed = counter(
            "agent_tasks_processed_total",
            "Steps that ended, by outcome: completed, or the error's code",
            &["agent", "outcome"],
        )?;
        Ok(Self {
            agent: agent.to_owned(),
            completed: processed.with_label_values(&[agent, "completed"]),
            processed,
            duration: duration.with_label_values(&[agent]),
            in_flight: gauge("agent_tasks_in_flight", "Steps taken and not settled")?,
            bus_connected: gauge("sidecar_bus_connected", "1 while the broker can be reached")?,
            redeliveries: counter(
                "sidecar_redeliveries_total",
                "Deliveries that had been delivered before",
                &["agent"],
            )?
            .with_label_values(&[agent]),
            repeats: counter(
                "sidecar_repeats_total",
                "Deliveries of a step that was known, answered without another call",
                &["agent"],
            )?
            .with_label_values(&[agent]),
            retries: counter(
                "sidecar_agent_retries_total",
                "Calls to the agent beyond a step's first",
                &["agent"],
            )?
            .with_label_values(&[agent]),
            dead_letters: counter(
                "sidecar_dead_letters_total",
                "Deliveries put aside, by reason: message, not_allowed, unroutable, refused",
                &["agent", "reason"],
            )?,
        })
    }

    /// Counts a step that ended: `None` is completed, otherwise the error's code.
    pub(crate) fn ended(&self, code: Option<&str>) {
        match code {
            None => self.completed.inc(),
            Some(code) => self
                .processed
                .with_label_values(&[self.agent.as_str(), code])
                .inc(),
        }
    }

    /// Counts a delivery that was put aside.
    pub(crate) fn dead_letter(&self, reason: &str) {
        self.dead_letters
            .with_label_values(&[self.agent.as_str(), reason])
            .inc();
    }
}
