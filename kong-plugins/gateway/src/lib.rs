//! A hyper gateway that runs a kong.yml on the Proxy-Wasm host.
//!
//! ```text
//! listener ─ shared by all workers
//!    └▶ worker (one thread, one current_thread runtime, one VM per module)
//!         connection ▶ route ▶ hygiene ▶ plugins ▶ filters ▶ client of the service ▶ filters ▶ connection
//! ```
//!
//! A worker shares nothing that changes with another one: a VM is used by one thread alone, so that no
//! request waits for a lock, and a filter that uses up its time holds up one worker.
//!
//! It behaves as Kong 3.9 does where Kong is right, and strictly where Kong fails open or leaks. What a
//! kong.yml asks for and this gateway does not do, [`build`] refuses by name; nothing is left out in
//! silence.

mod access;
mod answer;
mod balance;
mod body;
mod build;
mod calls;
mod checked;
mod config;
mod connection;
mod filters;
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod hygiene;
mod local;
mod metrics;
mod path;
mod plugins;
mod proxy;
mod reload;
mod routes;
mod status;
mod upstream;
mod worker;

pub use build::{Bound, build};
pub use config::{AccessLog, BuildError, Config, Deps, RunError};
pub use reload::Handle;
pub use status::Status;
