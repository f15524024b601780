//! Where services are found: a port with two backends, and what stands on it.
//!
//! ```text
//!  health ──▶ announce ──register, report──▶ Registry (Consul | memory)
//!  balance ◀── Discovery ◀──instances, blocking──┘
//! ```

mod memory;

pub use memory::Memory;

use crate::config::ServiceName;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is said of one instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Distinguishes instances of one service.
    pub id: String,
    /// The service.
    pub service: ServiceName,
    /// Where peers connect, by mTLS.
    pub address: SocketAddr,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta: `capabilities`, `version`, `protocol`, `metrics_port`, and what was configured.
    pub meta: BTreeMap<String, String>,
    /// Its share of requests, against those of the others; at least 1.
    pub weight: u16,
    /// Without a report for this long it counts as gone.
    pub ttl: std::time::Duration,
    /// Gone for this long it is forgotten.
    pub forget_after: std::time::Duration,
}

/// What is reported of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Passing,
    /// It does not, and why.
    Critical(String),
}

/// An instance that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Distinguishes instances of one service.
    pub id: String,
    /// Where it is reached, by mTLS.
    pub address: SocketAddr,
    /// Its share of requests; at least 1.
    pub weight: u16,
    /// Where it runs, where the registry knows: instances with an equal zone are near.
    pub zone: Option<String>,
    /// What was said of it.
    pub meta: BTreeMap<String, String>,
}

/// The healthy instances of a service, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// Where the next question begins.
    pub index: u64,
    /// The instances.
    pub list: Vec<Instance>,
}

/// Why the registry does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It does not know the instance (any more): register it again.
    #[error("instance is not registered")]
    Unknown,
    /// It cannot be reached, or answers with an error.
    #[error("registry is away: {0}")]
    Away(String),
    /// It refuses: a token without the right, a name that it does not take. Asking again will not help.
    #[error("registry refuses: {0}")]
    Refused(String),
}

/// A registry of services.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Writes an instance, over what was there under its id. It is critical until its first report.
    async fn register(&self, instance: &Registered) -> Result<(), RegistryError>;

    /// Says how an instance is; keeps it alive for its TTL.
    async fn report(&self, id: &str, health: &Health) -> Result<(), RegistryError>;

    /// Takes an instance out; one that is not there is no error.
    async fn deregister(&self, id: &str) -> Result<(), RegistryError>;

    /// The healthy instances of a service: at once when `after` is `None`, else as soon as the registry's index
    /// is beyond it, or after a while with the same index.
    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError>;

    /// Names of all services that are registered.
    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError>;
}

/// The registry that `config` names.
///
/// # Errors
/// [`RegistryError`] when the configuration cannot work; a Consul that is away is no error.
pub fn connect(config: &crate::config::Registry) -> Result<Arc<dyn Registry>, RegistryError> {
    match config.consul() {
        None => Ok(Memory::new()),
        Some(_) => Err(RegistryError::Away("not built yet".to_owned())),
    }
}
