//! Spans: begun with a parent, ended when dropped, exported in batches.

use crate::{Config, Context};

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The configuration cannot work.
    #[error("traces: {0}")]
    Config(String),
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

/// Begins spans; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer {}

/// Work that is under way; ends when dropped.
#[derive(Debug)]
pub struct Span {
    context: Option<Context>,
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
        let _ = service;
        config.check().map_err(TraceError::Config)?;
        Ok(Self {})
    }

    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        false
    }

    /// Begins a span; without a parent it begins a trace.
    pub fn start(&self, kind: Kind, name: &'static str, parent: Option<Context>) -> Span {
        let _ = (kind, name);
        Span { context: parent }
    }

    /// Exports what is left, for at most a few seconds. Blocks: call it at the end of `main`.
    pub fn shutdown(&self) {}
}

impl Span {
    /// Where children of this span begin: what is passed on. With a tracer that is off, the parent as it came.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Whether attributes are kept; spare the work of making them when not.
    pub fn is_recording(&self) -> bool {
        false
    }

    /// Says something about the work (OpenTelemetry's semantic conventions name the keys).
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        let _ = (key, value.into());
    }

    /// The same with a number.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        let _ = (key, value);
    }

    /// The work failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        let _ = why.into();
    }
}
