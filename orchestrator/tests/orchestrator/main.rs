//! The orchestrator as a whole: API, planner and runs over the memory bus, the run store over Redis.
//!
//! One binary, since linking is what these tests cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what stands here runs in tests only"
)]

mod api;
mod faults;
mod killed;
mod mesh;
mod planner;
mod redis;
mod runs;
