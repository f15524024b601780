//! The contract on both backends, and what only a real broker can do to a bus.
//!
//! One binary, so that one broker serves all of it.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;
mod gone;
mod illegible;
mod oversize;
mod rabbitmq;
mod recovery;
mod settling;
