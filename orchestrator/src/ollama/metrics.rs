//! What is counted of the model. Consumers are words of the configuration (`planner`, `local`, agents), and
//! whoever else has a certificate of the mesh is `other`.

use super::breaker::State;
use super::client::Usage;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::time::Duration;

/// From a tenth of a second, which is a word or two, to ten minutes, the longest answer.
const SECONDS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// The metrics of one model server.
#[derive(Debug)]
pub struct Metrics {
    calls: IntCounterVec,
    tokens: IntCounterVec,
    waited: Histogram,
    server: HistogramVec,
    /// Calls that wait for their turn.
    pub waiting: IntGauge,
    /// Calls under way.
    pub under_way: IntGauge,
    breaker: IntGaugeVec,
    ready: IntGaugeVec,
    pulled: IntGaugeVec,
    cache: IntCounterVec,
    /// Times that a budget could not be asked for or told.
    pub budgets_unavailable: IntCounter,
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
        let gauges = |name: &str, help: &str, label: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let options =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let waited = Histogram::with_opts(options(
            "orchestrator_model_queue_wait_seconds",
            "Time that calls to the model waited for their turn, those refused included",
        ))?;
        registry.register(Box::new(waited.clone()))?;
        let server = HistogramVec::new(
            options(
                "orchestrator_model_server_seconds",
                "Time that the model server says it needed for a call, by what for",
            ),
            &["part"],
        )?;
        registry.register(Box::new(server.clone()))?;
        let unavailable = IntCounter::new(
            "orchestrator_model_budgets_unavailable_total",
            "Times that a budget of tokens could not be asked for or told: the call went through",
        )?;
        registry.register(Box::new(unavailable.clone()))?;
        Ok(Self {
            calls: counters(
                "orchestrator_model_calls_total",
                "Calls to the model, by consumer and outcome",
                &["consumer", "outcome"],
            )?,
            tokens: counters(
                "orchestrator_model_tokens_total",
                "Tokens, by consumer and direction",
                &["consumer", "direction"],
            )?,
            waited,
            server,
            waiting: gauge(
                "orchestrator_model_calls_waiting",
                "Calls to the model that wait for their turn",
            )?,
            under_way: gauge(
                "orchestrator_model_calls_under_way",
                "Calls to the model under way",
            )?,
            breaker: gauges(
                "orchestrator_model_breaker",
                "1 for the state of the model's breaker",
                "state",
            )?,
            ready: gauges(
                "orchestrator_model_ready",
                "Whether the server has the model",
                "model",
            )?,
            pulled: gauges(
                "orchestrator_model_pulled_bytes",
                "Bytes of the model that the server has of what it pulls",
                "model",
            )?,
            cache: counters(
                "orchestrator_plan_cache_total",
                "Looks into the plan cache and what became of plans, by outcome",
                &["outcome"],
            )?,
            budgets_unavailable: unavailable,
        })
    }

    pub(super) fn called(&self, consumer: &str, outcome: &str) {
        self.calls.with_label_values(&[consumer, outcome]).inc();
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    pub(super) fn used(&self, consumer: &str, usage: &Usage) {
        let tokens = |direction, number| {
            let counter = self.tokens.with_label_values(&[consumer, direction]);
            counter.inc_by(number);
        };
        tokens("input", usage.input);
        tokens("output", usage.output);
        for (part, nanos) in [
            ("load", usage.load_ns),
            ("prompt", usage.prompt_ns),
            ("eval", usage.eval_ns),
        ] {
            if let Some(nanos) = nanos {
                let seconds = Duration::from_nanos(nanos).as_secs_f64();
                self.server.with_label_values(&[part]).observe(seconds);
            }
        }
    }

    pub(super) fn breaker(&self, state: State) {
        for one in State::ALL {
            self.breaker
                .with_label_values(&[one.as_str()])
                .set((one == state).into());
        }
    }

    pub(super) fn ready(&self, model: &str, ready: bool) {
        self.ready.with_label_values(&[model]).set(ready.into());
    }

    pub(super) fn pulled(&self, model: &str, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.pulled.with_label_values(&[model]).set(bytes);
    }

    /// What the plan cache was asked, or what became of a plan in it.
    pub fn cache(&self, outcome: &str) {
        self.cache.with_label_values(&[outcome]).inc();
    }
}
