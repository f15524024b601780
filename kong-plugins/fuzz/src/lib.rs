//! What may not happen on any input: one function per fuzz target.
//!
//! A function takes bytes as somebody outside could send them, says whether they were accepted, and panics
//! where a promise is broken, first of all that nothing panics. `make fuzz` looks for such bytes (the crate in `fuzz/`), and the test of
//! this crate gives each function its seeds, `seeds/TARGET/*`. What the fuzzer found is a seed, too.
//!
//! Seeds are written by people, so each target reads a text that a person can write: a request's head, a
//! JSON text, a kong.yml.

// A broken promise is told by a panic here.
#![allow(clippy::expect_used)]

mod config;
mod jwks;
mod pairs;
mod refusal;
mod route;
mod task_body;
mod token;

pub use config::config;
pub use jwks::jwks;
pub use pairs::pairs;
pub use route::route;
pub use task_body::task_body;
pub use token::token;

/// A target: its name, and what it does with an input; the answer is whether that was accepted.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets. Each has a directory of seeds and a file in `fuzz/fuzz_targets` of its name.
pub const TARGETS: [Target; 6] = [
    ("token", token),
    ("jwks", jwks),
    ("task_body", task_body),
    ("route", route),
    ("pairs", pairs),
    ("config", config),
];
