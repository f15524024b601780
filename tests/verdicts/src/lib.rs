//! One corpus of requests, and one verdict on each: from the native policies, from our gateway, from a
//! real Envoy, and, when asked for, from a gateway that runs elsewhere.
//!
//! ```text
//!  tests/corpus/FILTER/*.yaml ─▶ corpus ─▶ request ──▶ native   ─┐
//!                                 (tokens are signed   ▶ local    ├─▶ expect ─▶ report
//!                                  as they are sent)   ▶ Envoy    │     ▲
//!                                                      ▶ elsewhere┘     └ what the echo saw
//! ```
//!
//! A file of the corpus is one chain of filters and the cases that meet it; `docs/verdicts.md` says how to
//! write one. The upstream of every gateway is [`echo`], which answers with what it saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this crate runs in tests only, and a test that cannot begin must fail"
)]

pub mod chains;
pub mod corpus;
pub mod echo;
mod expect;
mod gateways;
mod keys;
pub mod kong;
mod native;
pub mod report;
mod request;
pub mod run;
mod text;
mod token;
mod wire;
