//! The way of a span from its end to the receiver: a bounded queue, and a thread that empties it.
//!
//! ```text
//!  span ends ─▶ Queue (counts, drops) ─▶ the SDK's batches, its thread ─▶ Watched (counts, logs) ─▶ OTLP
//! ```
//!
//! Nobody who answers requests ever waits here: a full queue drops spans. A receiver that is away costs the
//! spans of that time, a number in the metrics and a line a minute in the log.
//!
//! The exporter over gRPC needs a runtime that goes on while the process shuts down, whose own may have one
//! thread that waits for the last export: so it has one, which ends with the exporter, on the SDK's thread.

use crate::{Protocol, TraceError};
use opentelemetry::Context;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Spans that wait: a fifth of a second of a busy gateway, and a few MB.
pub(crate) const QUEUE: usize = 4096;
/// Spans of one export; OpenTelemetry's own default.
const BATCH: usize = 512;
/// Longest time that a span waits for others: people look for a trace soon after the request.
const DELAY: Duration = Duration::from_secs(1);
/// How long one export may take, tries together.
const EXPORT: Duration = Duration::from_secs(5);
/// Between two lines of the log on spans that are lost.
const SILENCE: Duration = Duration::from_secs(60);

/// What became of spans that ended.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    all: IntCounterVec,
    exported: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
    waiting: Arc<AtomicUsize>,
}

impl Counts {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let all = IntCounterVec::new(
            Opts::new(
                "trace_spans_total",
                "Spans that ended, by what became of them: exported, failed (the receiver did not take them), \
                 dropped (too many waited)",
            ),
            &["outcome"],
        )?;
        Ok(Self {
            exported: all.with_label_values(&["exported"]),
            failed: all.with_label_values(&["failed"]),
            dropped: all.with_label_values(&["dropped"]),
            waiting: Arc::default(),
            all,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.all.clone()))
    }

    fn lost(&self) -> u64 {
        self.failed.get() + self.dropped.get()
    }
}

/// The exporter for a receiver at `endpoint`, which need not be there.
pub(crate) fn connect(
    endpoint: &str,
    protocol: Protocol,
    counts: Counts,
) -> Result<Watched<opentelemetry_otlp::SpanExporter>, TraceError> {
    let wrong = |error: &dyn std::fmt::Display| TraceError::Exporter(error.to_string());
    match protocol {
        Protocol::Grpc => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("otlp")
                .enable_all()
                .build()
                .map_err(|e| wrong(&e))?;
            let inside = runtime.enter();
            let mut builder = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT);
            if endpoint.starts_with("https:") {
                builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
            }
            let built = builder.build();
            drop(inside);
            match built {
                Ok(exporter) => Ok(Watched::new(exporter, Some(runtime), counts)),
                Err(error) => {
                    // Whoever calls may be within a runtime, where none may be waited for.
                    runtime.shutdown_background();
                    Err(wrong(&error))
                }
            }
        }
        Protocol::Http => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
                .with_timeout(EXPORT)
                .with_http_client(blocking_client()?)
                .build()
                .map_err(|e| wrong(&e))?;
            Ok(Watched::new(exporter, None, counts))
        }
    }
}

/// A client for the SDK's thread, straight to the receiver: neither by a proxy that the environment names,
/// nor to where an answer points. Made on a thread of its own, since it must not be made within a runtime.
fn blocking_client() -> Result<reqwest::blocking::Client, TraceError> {
    let made = std::thread::spawn(|| {
        reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(EXPORT)
            .build()
    });
    match made.join() {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(TraceError::Exporter(error.to_string())),
        Err(_) => Err(TraceError::Exporter("no HTTP client".to_owned())),
    }
}

/// The queue before `exporter`, with the thread behind it.
pub(crate) fn queue(exporter: impl SpanExporter + 'static, counts: Counts) -> Queue {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let next = BatchSpanProcessor::builder(exporter)
        .with_batch_config(config)
        .build();
    Queue { next, counts }
}

/// Bounds and counts what waits; the SDK's own queue does, too, and keeps the number to itself.
#[derive(Debug)]
pub(crate) struct Queue {
    next: BatchSpanProcessor,
    counts: Counts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let waiting = &self.counts.waiting;
        if waiting.fetch_add(1, Ordering::AcqRel) < QUEUE {
            self.next.on_end(span);
        } else {
            waiting.fetch_sub(1, Ordering::AcqRel);
            self.counts.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// An exporter whose exports end in time, are counted, and are told of when they fail.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    exporter: E,
    runtime: Option<Runtime>,
    counts: Counts,
    told: Mutex<Told>,
}

/// What the log knows.
#[derive(Debug, Default)]
struct Told {
    lost: u64,
    at: Option<Instant>,
    failing: bool,
}

impl<E> Watched<E> {
    pub(crate) fn new(exporter: E, runtime: Option<Runtime>, counts: Counts) -> Self {
        Self {
            exporter,
            runtime,
            counts,
            told: Mutex::default(),
        }
    }

    /// Tells the log what has changed, rarely.
    fn tell(&self, outcome: &OTelSdkResult) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_ok() && told.failing {
            tracing::info!("spans are exported again");
        }
        told.failing = outcome.is_err();
        let lost = self.counts.lost();
        if lost == told.lost || told.at.is_some_and(|at| at.elapsed() < SILENCE) {
            return;
        }
        let spans = lost - told.lost;
        match outcome {
            Ok(()) => tracing::warn!(spans, "spans are lost: more end than can be exported"),
            Err(error) => {
                tracing::warn!(spans, %error, "spans are lost: the receiver does not take them")
            }
        }
        told.lost = lost;
        told.at = Some(Instant::now());
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.counts.waiting.fetch_sub(spans, Ordering::AcqRel);
        let exported = self.exporter.export(batch);
        let outcome = match &self.runtime {
            None => exported.await,
            // The exporter's own limit does not hold while it connects.
            Some(runtime) => {
                let limited = {
                    let _inside = runtime.enter();
                    tokio::time::timeout(EXPORT, exported)
                };
                limited.await.unwrap_or(Err(OTelSdkError::Timeout(EXPORT)))
            }
        };
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        match &outcome {
            Ok(()) => self.counts.exported.inc_by(spans),
            Err(_) => self.counts.failed.inc_by(spans),
        }
        self.tell(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
