//! One trace from the client's request to the agent and back: the W3C context, spans, and OTLP.
//!
//! Nothing global: a [`Tracer`] comes in with what else a part is given, and one that is off costs a
//! comparison. A part that exports nothing passes a context on as it came, so that a trace does not break
//! where one part is not configured.

mod config;
mod context;
mod tracer;

pub use config::{Config, Protocol};
pub use context::Context;
pub use tracer::{Kind, Span, TraceError, Tracer};
