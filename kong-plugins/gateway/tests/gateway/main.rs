//! The gateway as clients and services see it: real sockets, real modules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what stands here runs in tests only"
)]

mod filters;
mod hygiene;
mod jwt;
mod lifecycle;
mod rate_limit;
mod routing;
mod support;
