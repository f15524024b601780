//! What a sidecar counts, in a registry that is passed in.
//!
//! Everything carries the label `agent`. The children that every step touches are looked up once.

mod unsettled;

use crate::config::ServiceName;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::time::Duration;

/// From an agent that computes to one that asks a model.
const DURATIONS_S: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Up to the longest that a task waits.
const WAITS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// Why a delivery is put aside.
const DEAD_LETTERS: [&str; 7] = [
    "message",
    "not_allowed",
    "unroutable",
    "refused",
    "exhausted",
    "poison",
    "refused_by_agent",
];

pub(crate) use unsettled::{Taken, Unsettled};

/// The metrics of one sidecar.
pub(crate) struct Metrics {
    agent: String,
    processed: IntCounterVec,
    completed: IntCounter,
    /// From the moment a step was taken until its outcome stood, in seconds.
    pub(crate) duration: Histogram,
    /// From the moment a step was sent until it was taken, in seconds, by the clocks of two machines.
    pub(crate) queue_wait: Histogram,
    /// What the broker waits for.
    pub(crate) unsettled: Unsettled,
    /// Steps taken and not settled.
    pub(crate) in_flight: IntGauge,
    /// 1 while the broker can be reached; only where steps are taken, since nobody else uses the broker.
    bus_connected: IntGaugeVec,
    /// Deliveries that had been delivered before.
    pub(crate) redeliveries: IntCounter,
    /// Deliveries answered from the table of recent results, or that joined a step at the agent.
    pub(crate) repeats: IntCounter,
    /// Calls to the agent beyond a step's first.
    pub(crate) retries: IntCounter,
    /// Deliveries that were put off, each part of a wait.
    pub(crate) delays: IntCounter,
    /// Deliveries that went back because the broker would have taken them.
    pub(crate) ack_deadline_returns: IntCounter,
    dead_letters: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics of `agent` and registers them.
    ///
    /// How much of `ack_deadline` is left is shown where there is one: beside an agent that takes steps.
    pub(crate) fn register(
        registry: &Registry,
        agent: &ServiceName,
        ack_deadline: Option<Duration>,
    ) -> prometheus::Result<Self> {
        let agent = agent.as_str();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let gauges = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["agent"])?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let vec = HistogramVec::new(opts, &["agent"])?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec.with_label_values(&[agent]))
        };
        let unsettled = Unsettled::new(agent, ack_deadline.unwrap_or_default())?;
        if ack_deadline.is_some() {
            registry.register(Box::new(unsettled.clone()))?;
        }
        let processed = counter(
            "agent_tasks_processed_total",
            "Steps that ended, by outcome: completed, or the error's code",
            &["agent", "outcome"],
        )?;
        let dead_letters = counter(
            "sidecar_dead_letters_total",
            "Deliveries put aside, by reason: message, not_allowed, unroutable, refused, exhausted, poison, refused_by_agent",
            &["agent", "reason"],
        )?;
        // From zero, so that the first is an increase.
        for reason in DEAD_LETTERS {
            dead_letters.with_label_values(&[agent, reason]);
        }
        Ok(Self {
            agent: agent.to_owned(),
            completed: processed.with_label_values(&[agent, "completed"]),
            processed,
            duration: histogram(
                "agent_task_duration_seconds",
                "From taking a step until its outcome stood",
                &DURATIONS_S,
            )?,
            queue_wait: histogram(
                "agent_task_queue_wait_seconds",
                "From sending a step until it was taken for the first time",
                &WAITS_S,
            )?,
            unsettled,
            in_flight: gauges("agent_tasks_in_flight", "Steps taken and not settled")?
                .with_label_values(&[agent]),
            bus_connected: gauges("sidecar_bus_connected", "1 while the broker can be reached")?,
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
            delays: counter(
                "sidecar_delays_total",
                "Deliveries that were put off in a queue of the broker, each part of a wait",
                &["agent"],
            )?
            .with_label_values(&[agent]),
            ack_deadline_returns: counter(
                "sidecar_ack_deadline_returns_total",
                "Deliveries that went back because the broker would have taken them soon",
                &["agent"],
            )?
            .with_label_values(&[agent]),
            dead_letters,
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

    /// Shows whether the broker can be reached.
    pub(crate) fn connected(&self, now: bool) {
        let agent = [self.agent.as_str()];
        let gauge = self.bus_connected.with_label_values(&agent);
        gauge.set(i64::from(now));
    }

    /// Counts a delivery that was put aside.
    pub(crate) fn dead_letter(&self, reason: &str) {
        self.dead_letters
            .with_label_values(&[self.agent.as_str(), reason])
            .inc();
    }
}
