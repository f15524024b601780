//! Starts real servers for the tests of the whole mesh.
//!
//! Each server runs on free loopback ports in a directory of its own, and ends with the test process
//! however that ends: a guardian outlives the process just long enough to see to it ([`server`]).
//! A server that is not installed fails the test, it never skips it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this crate runs in tests only, and a test that cannot begin must fail"
)]

pub mod binary;
pub mod consul;
pub mod envoy;
pub mod mesh;
pub mod otel;
pub mod prometheus;
pub mod rabbitmq;
pub mod redis;
pub mod server;

use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How long a condition may take to come true. Nothing here takes a tenth of it on an idle machine;
/// a shared one can be slow.
pub const GENEROUS: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, asking again every few milliseconds.
///
/// # Panics
/// Naming `what` was waited for, after [`GENEROUS`] time.
pub async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + GENEROUS;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for `future`, but not for ever.
///
/// # Panics
/// Naming `what` was waited for, after [`GENEROUS`] time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GENEROUS, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
