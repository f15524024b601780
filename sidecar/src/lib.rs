//! Stands beside a service that knows nothing of the mesh: mTLS in and out, who may call whom, registration
//! and discovery; beside an agent it also takes steps off the bus, hands them over and reports what came of them.
//!
//! A library, so that one process can run many of them: [`build`] binds and checks, [`Bound::run`]
//! works until it is told to stop. Environment, signals and the log belong to `main.rs`.

mod admin;
mod api;
mod app;
pub mod config;
mod health;
pub mod identity;
mod metrics;
mod policy;
mod proxy;
pub mod registry;
mod status;
mod ways;
mod worker;

pub use app::{Bound, Deps, build};
pub use proxy::runtime;
pub use ways::to_be_registered;

/// Why a sidecar cannot start. What goes wrong later is mended, or shown in `/ready`.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The configuration cannot work; every fault of it at once.
    #[error("configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The admin address is taken or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where it was to listen.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Its own address cannot be found out.
    #[error("the address that others reach this sidecar at is not known; set MESH_ADVERTISE")]
    Address(#[source] std::io::Error),
    /// The directory of the worker's state cannot be used.
    #[error("worker.state_dir cannot be used")]
    State(#[source] std::io::Error),
    /// There can be no identity.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The system has no thread for a proxy.
    #[error("threads of the proxies cannot be started")]
    Threads(#[source] std::io::Error),
    /// The metrics are in the registry already: one registry serves one sidecar.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}
