//! One trace from the client's request to the agent and back: the W3C context, spans, and OTLP; and the
//! log that every program writes alike.
//!
//! ```text
//!  headers, message properties ─▶ Context ─▶ Tracer ─▶ Span ─ends─▶ queue ─▶ OTLP (a thread of its own)
//!                                   ▲                   │
//!                                   └── what children and others are told
//! ```
//!
//! Nothing global: a [`Tracer`] comes in with what else a part is given, and one that is off costs a
//! comparison. A part that exports nothing passes a context on as it came, so that a trace does not break
//! where one part is not configured. Only [`logs::install`] is for a whole process, and for `main` alone.

mod config;
mod context;
mod export;
pub mod logs;
mod semantics;
mod tracer;

pub use config::{Config, Protocol};
pub use context::{Context, TRACEPARENT, TRACESTATE};
pub use logs::{LogError, LogHandle};
pub use semantics::{MessageOperation, method_name};
pub use tracer::{Kind, Span, TraceError, Tracer};
