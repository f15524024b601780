//! `mesh render`, `mesh diff` and `mesh apply` against a real RabbitMQ (3 and 4, with its management API) and a real
//! Consul. Kong stands in as a double (`double.rs`), which says how far it is one.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod double;
mod drift;
mod imported;
mod killed;
mod kong;
mod others;
mod queues;
mod scene;
mod stalling;
