//! Certificates and mTLS: what is believed, what is refused and how it is counted, and how material is renewed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod authority;
mod consul;
mod development;
mod files;
mod mesh;
mod refusals;
mod resumption;
mod rotation;
mod strangers;
mod traffic;
mod vault;
