//! The Proxy-Wasm 0.2.1 ABI on wasmtime.
//!
//! ```text
//! Engine ── one per process: compiler, instance pool, clock of the time limit
//! Module ── one per .wasm, compiled once, shared by all workers
//! Vm     ── one per worker and module: memory, root contexts (one per configuration), stream contexts
//! ```
//!
//! Nothing here is global, and nothing waits: what filters ask of other services is taken from the VM as
//! a list and brought back as an answer. Every call runs to its end on the calling thread, within a
//! bound of CPU time and of memory. What goes wrong is an error that means "refuse the request", never
//! "pass it"; the [`Vm`] it happened in is spent and has to be replaced, because a guest that trapped in
//! the middle of a change holds no state that anyone may rely on. A function of the ABI that is not
//! supported ends the call with the function's name.
//!
//! Where Kong leaks, this is strict: a header that a filter removes is gone, a value with a line break
//! is refused, a filter that fails lets nothing pass.

mod abi;
mod cache;
mod calls;
mod engine;
mod error;
mod exchange;
#[doc(hidden)]
pub mod fuzzing;
mod metrics;
mod module;
mod shared;
mod state;
mod usage;
mod vm;

pub use cache::Cache;
pub use calls::{Call, CallAnswer};
pub use engine::{Engine, Limits};
pub use error::HostError;
pub use exchange::{Exchange, Head, LocalResponse, Properties};
pub use metrics::{BUCKETS, MetricKind, MetricStore, MetricValue};
pub use module::Module;
pub use shared::Shared;
pub use usage::Usage;
pub use vm::{Action, ContextId, RootId, Vm};
