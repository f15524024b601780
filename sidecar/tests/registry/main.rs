//! The registry as the mesh uses it: both backends by one contract, a real Consul that is killed and restarted,
//! and a double of one for what a real one does not do on request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod contract;
mod double;
mod faults;
mod memory;
mod outage;
mod rights;
mod scale;
mod setup;
