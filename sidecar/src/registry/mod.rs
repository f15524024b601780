//! Where services are found: a port with two backends, and what stands on it.
//!
//! ```text
//!  health ──▶ Announcer ──register, report──▶ Registry (Consul | memory)
//!  balance ◀── Discovery ◀──instances, blocking──┘
//! ```
//!
//! The registry may be away at any time. Nothing here fails for that: the announcer goes on trying, discovery
//! goes on with what it knew, and both say so.

mod announce;
pub(crate) mod consul;
#[cfg(feature = "contract")]
pub mod contract;
mod discovery;
pub(crate) mod found;
mod memory;
mod metrics;

pub use announce::{Announcement, Announcer};
pub use consul::Consul;
pub use discovery::{Discovery, Known, State, Times};
pub use memory::Memory;
pub use metrics::Metrics;

use crate::api::ApiError;
use crate::config::{self, ServiceName};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    pub ttl: Duration,
    /// Gone for this long it is forgotten.
    pub forget_after: Duration,
}

impl Registered {
    /// What `registration` says of `service`, whose peers connect to `address` and speak `protocol` there, and
    /// whose metrics are at `metrics_port` of the same host.
    ///
    /// What is known here wins over configured meta of the same name.
    pub fn new(
        service: &ServiceName,
        registration: &config::Registration,
        address: SocketAddr,
        protocol: &str,
        metrics_port: u16,
    ) -> Self {
        let mut meta = registration.meta.clone();
        if !registration.capabilities.is_empty() {
            let capabilities = registration.capabilities.join(",");
            meta.insert("capabilities".to_owned(), capabilities);
        }
        if let Some(version) = &registration.version {
            meta.insert("version".to_owned(), version.clone());
        }
        meta.insert("protocol".to_owned(), protocol.to_owned());
        meta.insert("metrics_port".to_owned(), metrics_port.to_string());
        Self {
            // The same after a restart, so that a new start takes the place of a killed one. It stands in
            // paths and in people's shells: letters, digits and `-` only.
            id: registration.id.clone().unwrap_or_else(|| {
                let place = address.to_string();
                format!(
                    "{service}-{}",
                    place.replace(['.', ':', '[', ']', '%'], "-")
                )
            }),
            service: service.clone(),
            address,
            tags: registration.tags.clone(),
            meta,
            weight: registration.weight.max(1),
            ttl: Duration::from_millis(registration.ttl_ms),
            forget_after: Duration::from_millis(registration.forget_after_ms),
        }
    }
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
///
/// Tens of thousands of them may be known at once, so that what they have in common is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Distinguishes instances of one service.
    pub id: Arc<str>,
    /// Where it is reached, by mTLS.
    pub address: SocketAddr,
    /// Its share of requests; at least 1.
    pub weight: u16,
    /// Where it runs, where the registry knows: instances with an equal zone are near.
    pub zone: Option<Arc<str>>,
    /// What was said of it.
    pub meta: Arc<BTreeMap<String, String>>,
}

/// The healthy instances of a service, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// Where the next question begins; at least 1. When it is smaller than the one that was asked with, the
    /// registry began anew: the next question must begin with `None`.
    pub index: u64,
    /// The instances, each id once, in the order of their ids.
    pub list: Vec<Instance>,
}

/// Why the registry does not do what it was asked. Holds no secret.
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

impl From<ApiError> for RegistryError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable { why, .. } | ApiError::Away(why) | ApiError::Illegible(why) => {
                Self::Away(why)
            }
            ApiError::Refused(why) => Self::Refused(why),
        }
    }
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

    /// The healthy instances of a service: at once when `after` is `None`, else as soon as the service's index
    /// is beyond it, or after a while with the same index. It may come early, too.
    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError>;

    /// Names of all services that are registered and are names of the mesh.
    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError>;
}

/// The registry that `config` names.
///
/// # Errors
/// [`RegistryError::Refused`] when the configuration cannot work; a Consul that is away is no error.
pub fn connect(config: &config::Registry) -> Result<Arc<dyn Registry>, RegistryError> {
    match config.consul() {
        None => Ok(Memory::new()),
        Some(consul) => Ok(Arc::new(Consul::new(consul)?)),
    }
}

/// What `GET /registry` shows: this service's own registration, and what is known of the others.
pub fn shown(
    announcement: Option<&Announcement>,
    discovery: Option<&Discovery>,
) -> serde_json::Value {
    serde_json::json!({
        "registration": announcement.map(Announcement::shown),
        "services": discovery.map(Discovery::shown),
    })
}
