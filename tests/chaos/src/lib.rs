//! A whole mesh under load while everything in it fails, and every task counted.
//!
//! ```text
//!  stage (all programs, wires between them) ◀── schedule: fault after fault, then pairs
//!    ▲ mesh load: every task followed to its end
//!    ▲ twice: answers given again, answers of nobody
//!    └─▶ effects, as the agents wrote them down ─▶ report
//! ```
//!
//! The programs are those that users run, the load is `mesh load`, and what is counted is what the agents did, not
//! what somebody says that they did.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "this crate runs in tests only, and a test that cannot begin must fail"
)]

pub mod agent;
mod backlog;
mod fault;
mod link;
mod play;
mod schedule;
mod stage;
mod store;
mod twice;

pub use backlog::Backlog;
pub use fault::Fault;
pub use play::{Play, Report, play};
