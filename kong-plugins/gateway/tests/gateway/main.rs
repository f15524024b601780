//! The gateway as clients and services see it: real sockets, real modules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what stands here runs in tests only"
)]

mod access;
mod balance;
mod filters;
mod hygiene;
mod jwks;
mod jwt;
mod lifecycle;
mod plugins;
mod protocols;
mod rate_limit;
mod reload;
mod routing;
mod support;
mod tunnel;
