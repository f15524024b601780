//! The orchestrator as a whole: API, planner and runs over the memory bus, the run store and the
//! quotas over Redis.
//!
//! One binary, since linking is what these tests cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what stands here runs in tests only"
)]

mod api;
mod arbiter;
mod arbitration;
mod assignment;
mod backpressure;
mod budgets;
mod coordinate;
mod crowd;
mod faults;
mod feed;
mod hub;
mod intake;
mod keys;
mod killed;
mod load;
mod mesh;
mod models;
mod ollama_client;
mod originators;
mod outbox;
mod planner;
mod quota;
mod redis;
mod replicas;
mod resources;
mod runs;
mod shared_model;
mod socket;
mod together;
mod told;
mod ws;
