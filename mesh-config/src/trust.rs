//! The checked side of `identity:`, `registry:`, `intentions:` and the sidecars' listeners.

use crate::secret::Source;
use mesh_sidecar::config::{Action, Callers, From, ServiceName, Settings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Beginning of the directory beside mesh.yaml with the certificate authority of a development mesh; its name ends it,
/// since two meshes in one directory do not believe each other.
pub const DEVELOPMENT_CA: &str = ".mesh/ca-";
/// What stands in the paths of certificate files for the name of the service.
pub const SERVICE_PLACEHOLDER: &str = "{service}";

/// Who is who, and who may call whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    /// Where certificates come from.
    pub identity: Identity,
    /// Where services are found.
    pub registry: Registry,
    /// Who may call whom; the mesh's own ways alone when absent.
    pub intentions: Option<Vec<Intention>>,
    /// Header that agents get, and the claim of the verified assertion that it holds.
    pub identity_headers: BTreeMap<String, String>,
    /// Where refusals are written down.
    pub audit: Option<PathBuf>,
    /// Spans.
    pub traces: mesh_trace::Config,
    /// How the orchestrator is called, and what stands under each agent's own.
    pub traffic: Settings,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The trust domain; Consul's own when absent.
    pub trust_domain: Option<String>,
    /// When `/ready` warns.
    pub warn_before: Duration,
    /// The source.
    pub source: IdentitySource,
}

/// A source of certificates.
#[derive(Debug, Clone, PartialEq)]
pub enum IdentitySource {
    /// An authority in a directory.
    Development {
        /// The directory, relative to mesh.yaml.
        directory: PathBuf,
        /// How long a certificate is valid.
        lifetime: Duration,
    },
    /// Consul Connect.
    Consul,
    /// Files that somebody else renews.
    Files {
        /// Certificate and intermediates.
        certificate: String,
        /// Its key.
        key: String,
        /// The trust bundle.
        roots: String,
    },
    /// Vault's PKI secrets engine.
    Vault {
        /// Base URL.
        url: Url,
        /// Where the engine is mounted.
        mount: String,
        /// The role that signs.
        role: String,
        /// Vault's token.
        token: Source,
        /// PEM of the authorities that signed its certificate; the system's when absent.
        ca: Option<PathBuf>,
    },
}

/// Where services are found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Registry {
    /// Consul; within the process when absent.
    pub consul: Option<Consul>,
}

/// The agent of Consul on each machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Consul {
    /// Base URL.
    pub url: Url,
    /// ACL token.
    pub token: Option<Source>,
    /// PEM of the authorities that signed Consul's certificate.
    pub ca: Option<PathBuf>,
}

/// One way that is open, or closed.
#[derive(Debug, Clone, PartialEq)]
pub struct Intention {
    /// Who calls.
    pub from: From,
    /// Who is called.
    pub to: From,
    /// Whether they may.
    pub action: Action,
    /// Methods; all when empty.
    pub methods: Vec<String>,
    /// Prefixes of the path; all when empty.
    pub paths: Vec<String>,
    /// Whom the assertion must name.
    pub callers: Option<Callers>,
}

impl Intention {
    /// Whether it speaks of calls to `service`.
    pub fn leads_to(&self, service: &ServiceName) -> bool {
        match &self.to {
            From::Any => true,
            From::Services(services) => services.contains(service),
        }
    }
}

/// The listeners of the sidecar beside a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// Where peers connect.
    pub listen: Option<SocketAddr>,
    /// Where they are told to connect.
    pub advertise: Option<SocketAddr>,
    /// Where the program sends its requests.
    pub outbound: Option<SocketAddr>,
    /// Where health and metrics are served; a free loopback port when absent.
    pub admin_listen: Option<SocketAddr>,
}
