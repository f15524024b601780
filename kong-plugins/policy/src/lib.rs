//! Pure decisions of the filters, native and wasm: request values in, a decision value out.
//!
//! Nothing here performs anything. A filter compiles its configuration once, then decides per request.
//! The time is an argument, never a clock: in a filter it is a host call, in a test a number.

pub mod config;
pub mod decision;
pub mod filter;
pub mod jwt;
pub mod request;

#[cfg(test)]
mod meta;

pub use decision::{Caller, Decision, Pass, Refusal};
pub use filter::{ConfigError, Filter};
pub use mesh_protocol::Timestamp;
pub use request::{RequestHead, Unreadable};
