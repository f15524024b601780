//! Pure decisions of the filters, native and wasm: request values in, a decision value out.
//!
//! Nothing here performs anything. A filter compiles its configuration once, then decides per request.
//! What a decision needs beside the request it asks of a [`Host`]: in a filter that is host calls, in a
//! test a table in memory and a number for the time.

pub mod admission;
mod callers;
pub mod config;
pub mod decision;
pub mod fetch;
pub mod filter;
pub mod host;
pub mod jwt;
mod knowledge;
pub mod path;
pub mod rate_limit;
pub mod request;
pub mod routing;
mod scopes;
pub mod task_body;

#[cfg(test)]
mod meta;

pub use decision::{Caller, Decision, Pass, Refusal};
pub use fetch::{Fetch, Fetched};
pub use filter::{ConfigError, Filter};
pub use host::Host;
pub use mesh_protocol::Timestamp;
pub use request::{RequestHead, Unreadable};
