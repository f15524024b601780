//! What is counted of agents' connections. Labels are words of this code: no agent, nothing that one sends.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics.
#[derive(Debug)]
pub struct SocketMetrics {
    pub(super) connections: IntGauge,
    closed: IntCounterVec,
    messages: IntCounterVec,
    pub(super) delivered: IntCounter,
    pub(super) depth: Histogram,
}

impl SocketMetrics {
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
        let connections = IntGauge::new(
            "orchestrator_agent_connections",
            "Agents that are connected to this replica by WebSocket",
        )?;
        registry.register(Box::new(connections.clone()))?;
        let delivered = IntCounter::new(
            "orchestrator_agent_letters_delivered_total",
            "Messages that were written to their receiver, again ones included",
        )?;
        registry.register(Box::new(delivered.clone()))?;
        let depth = Histogram::with_opts(
            HistogramOpts::new(
                "orchestrator_agent_mailbox_depth",
                "Messages in the fullest mailbox that a message was put into",
            )
            .buckets(vec![1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]),
        )?;
        registry.register(Box::new(depth.clone()))?;
        Ok(Self {
            connections,
            closed: counters(
                "orchestrator_agent_connections_closed_total",
                "Connections of agents that ended, by why",
                &["reason"],
            )?,
            messages: counters(
                "orchestrator_agent_messages_total",
                "Messages of agents, by kind and what became of them",
                &["kind", "result"],
            )?,
            delivered,
            depth,
        })
    }

    pub(super) fn closed(&self, reason: &str) {
        self.closed.with_label_values(&[reason]).inc();
    }

    pub(super) fn message(&self, kind: &str, result: &str) {
        self.messages.with_label_values(&[kind, result]).inc();
    }
}
