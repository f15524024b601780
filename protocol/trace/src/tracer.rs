//! Spans: begun with a parent, ended when dropped, exported in batches.

use crate::export::{self, Counts};
use crate::{Config, Context};
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Context as Parent, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider, SpanExporter,
};
use std::sync::Arc;
use std::time::Duration;

/// How long the last export may take: a process that is told to end has little more.
const SHUTDOWN: Duration = Duration::from_secs(3);
/// Longest value that a span keeps, in bytes: what a stranger sends, such as a path, waits in the queue as
/// often as there are spans.
const MAX_VALUE: usize = 1024;

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The configuration cannot work.
    #[error("traces: {0}")]
    Config(String),
    /// The exporter cannot be set up.
    #[error("traces: {0}")]
    Exporter(String),
}

/// What a span stands for (OpenTelemetry's span kinds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within a part.
    Internal,
    /// A request that came in.
    Server,
    /// A request that goes out.
    Client,
    /// A message that is sent.
    Producer,
    /// A message that is carried out.
    Consumer,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
        }
    }
}

/// Begins spans; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    counts: Counts,
}

/// Work that is under way; ends when dropped.
#[derive(Debug, Default)]
pub struct Span {
    context: Option<Context>,
    // Boxed: most spans in a future's state are none.
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    kind: Kind,
    span: opentelemetry_sdk::trace::Span,
}

impl Tracer {
    /// A tracer that exports nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// A tracer for `service` (OpenTelemetry's `service.name`); off when `config` names no endpoint.
    ///
    /// # Errors
    /// [`TraceError`] when the configuration cannot work; a receiver that is away is no error.
    pub fn new(service: &str, config: &Config) -> Result<Self, TraceError> {
        config.check().map_err(TraceError::Config)?;
        let Some(endpoint) = &config.endpoint else {
            return Ok(Self::off());
        };
        let counts = Counts::new().map_err(|e| TraceError::Exporter(e.to_string()))?;
        let exporter = export::connect(endpoint, config.protocol, counts.clone())?;
        Ok(Self::exporting(service, config.sample, exporter, counts))
    }

    /// A tracer on an exporter that reports to `counts`.
    pub(crate) fn exporting(
        service: &str,
        sample: f64,
        exporter: impl SpanExporter + 'static,
        counts: Counts,
    ) -> Self {
        let instance = RandomIdGenerator::default().new_trace_id();
        // Not the builder that reads the environment: that is for `main` to do.
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_service_name(service.to_owned())
            .with_attributes([
                KeyValue::new("service.instance.id", instance.to_string()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                sample,
            ))))
            .with_span_processor(export::queue(exporter, counts.clone()))
            .build();
        let scope = InstrumentationScope::builder("mesh")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self {
            inner: Some(Arc::new(Inner {
                tracer: provider.tracer_with_scope(scope),
                provider,
                counts,
            })),
        }
    }

    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Begins a span; without a parent it begins a trace.
    ///
    /// `name` is the same for all work of a sort, so that receivers can count by it; what tells one from
    /// another goes into attributes.
    pub fn start(&self, kind: Kind, name: &'static str, parent: Option<Context>) -> Span {
        let Some(inner) = &self.inner else {
            return Span::passing(parent);
        };
        // Whoever began the trace has decided that it is not recorded.
        if parent.as_ref().is_some_and(|p| !p.sampled()) {
            return Span::passing(parent);
        }
        let place = match &parent {
            Some(parent) => Parent::new().with_remote_span_context(parent.to_span()),
            None => Parent::new(),
        };
        let builder = inner.tracer.span_builder(name).with_kind(kind.into());
        let span = inner.tracer.build_with_context(builder, &place);
        let state = parent.as_ref().and_then(|p| p.state.clone());
        // After the shutdown there are no spans any more.
        let Some(context) = Context::of_span(span.span_context(), state) else {
            return Span::passing(parent);
        };
        Span {
            context: Some(context),
            recording: span
                .is_recording()
                .then(|| Box::new(Recording { kind, span })),
        }
    }

    /// Shows in `registry` what became of the spans; nothing with a tracer that is off.
    ///
    /// # Errors
    /// A metric of that name is there already.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        match &self.inner {
            None => Ok(()),
            Some(inner) => inner.counts.register(registry),
        }
    }

    /// Exports what is left, for at most a few seconds. Blocks: call it at the end of `main`.
    pub fn shutdown(&self) {
        let Some(inner) = &self.inner else { return };
        if let Err(error) = inner.provider.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(%error, "the last spans are not exported");
        }
    }
}

impl Span {
    /// A span that records nothing, and passes on what came.
    pub fn passing(parent: Option<Context>) -> Self {
        Self {
            context: parent,
            recording: None,
        }
    }

    /// Where children of this span begin: what is passed on. With a tracer that is off, the parent as it came.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Whether attributes are kept; spare the work of making them when not.
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// What it stands for, while it is recorded.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.recording.as_ref().map(|r| r.kind)
    }

    /// Says something about the work (OpenTelemetry's semantic conventions name the keys). Long texts are cut.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        if self.is_recording() {
            self.attribute(key, clip(value.into()));
        }
    }

    /// The same with a number.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        self.attribute(key, value);
    }

    /// The same with yes or no.
    pub fn set_flag(&mut self, key: &'static str, value: bool) {
        self.attribute(key, value);
    }

    fn attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// The work failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        if let Some(recording) = &mut self.recording {
            recording.span.set_status(Status::error(clip(why.into())));
        }
    }

    /// A span of the log for the same work, so that its lines can be found by the trace: none when nothing
    /// is recorded.
    pub fn log_span(&self) -> tracing::Span {
        match (&self.recording, &self.context) {
            (Some(_), Some(context)) => tracing::error_span!(
                "trace",
                trace_id = %context.trace_id_hex(),
                span_id = %context.span_id_hex()
            ),
            _ => tracing::Span::none(),
        }
    }
}

/// At most [`MAX_VALUE`] bytes of `text`.
fn clip(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_VALUE));
    text
}

#[cfg(test)]
mod tests;
