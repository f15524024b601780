//! A hyper gateway that runs a kong.yml on the Proxy-Wasm host.
//!
//! ```text
//! listener ─ shared by all workers
//!    └▶ worker (one thread, one current_thread runtime, one VM per module)
//!         connection ▶ route ▶ hygiene ▶ filters ▶ client of the service ▶ filters ▶ connection
//! ```
//!
//! A worker shares nothing that changes with another one: a VM is used by one thread alone, so that no
//! request waits for a lock, and a filter that uses up its time holds up one worker.
//!
//! It behaves as Kong 3.9 does where Kong is right, and strictly where Kong fails open or leaks. What a
//! kong.yml asks for and this gateway does not do, [`build`] refuses by name; nothing is left out in
//! silence.

mod answer;
mod body;
mod build;
mod calls;
mod config;
mod filters;
mod hygiene;
mod metrics;
mod path;
mod proxy;
mod routes;
mod upstream;
mod worker;

pub use build::{Bound, build};
pub use config::{BuildError, Config, Deps, RunError};
