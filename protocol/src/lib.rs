//! The words all parts of the mesh share.
//!
//! Types and names only, plus the one signature that every part must read alike (the assertion). No
//! I/O and no clock, so that the same crate builds into the filters (wasm32) and into the servers.

pub mod assertion;
pub mod callers;
pub mod collaboration;
pub mod event;
pub mod load;
pub mod message;
pub mod names;
pub mod outcome;
pub mod plan;
pub mod problem;
pub mod quota;
pub mod task;
pub mod time;

pub use names::{AgentId, StepId, TaskId};
pub use time::Timestamp;
