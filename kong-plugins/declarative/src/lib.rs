//! Kong's declarative configuration (kong.yml, format 3.0) as types.
//!
//! One set of types for both ends: `mesh-config` writes them, the local gateway reads them, so what is
//! rendered for Kong is what runs locally. Only fields that this project renders, or that the plan's
//! own kong.yml needs to be read, exist here; any other field is an error that names it. What has its
//! default is not written, and fields are written in the order of the types, so that two renderings of
//! one mesh are equal byte by byte.

mod certificate;
mod chain;
mod route;
mod rules;
mod service;
mod upstream;

pub use certificate::{Certificate, Sni};
pub use chain::{FilterChain, FilterUse, Plugin};
pub use route::{PathHandling, Protocol, Route};
pub use rules::{PathError, check_path, is_name, normalise};
pub use service::{Service, Target};
pub use upstream::{Active, Healthchecks, Healthy, Passive, Unhealthy, Upstream, UpstreamTarget};

use serde::{Deserialize, Serialize};

/// Largest kong.yml that is read, in bytes; a mesh of a thousand services stays below a tenth of it.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most that aliases may add, in events of the reader (a value each, about): far more than a person writes,
/// and little enough that a few lines cannot grow into a document that takes seconds.
const MAX_ALIASED: usize = 10_000;

/// A whole kong.yml.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the format.
    #[serde(rename = "_format_version")]
    pub format_version: FormatVersion,
    /// Whether Kong may apply its schema's transformations (credentials and the like).
    #[serde(
        rename = "_transform",
        default = "yes",
        skip_serializing_if = "Clone::clone"
    )]
    pub transform: bool,
    /// Where requests may go, with the routes that lead there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Routes that name their service instead of standing in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Pools of targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// Certificates that clients are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// Plugins of all services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    /// Proxy-Wasm filters, in the order in which they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_chains: Vec<FilterChain>,
}

/// Versions of the format that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FormatVersion {
    /// Kong 3.x.
    #[default]
    #[serde(rename = "3.0")]
    V3,
}

/// What is wrong with a kong.yml.
#[derive(Debug, thiserror::Error)]
pub enum DeclarativeError {
    /// No kong.yml of the form read here; the text has line, column and the field.
    #[error("kong.yml cannot be read: {0}")]
    Read(String),
    /// Larger than [`MAX_BYTES`].
    #[error("kong.yml has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// The value cannot be written as YAML.
    #[error("kong.yml cannot be written: {0}")]
    Write(String),
    /// A service says nowhere, or in two ways, where it is.
    #[error("service {service}: {problem}")]
    Service {
        /// Name of the service.
        service: String,
        /// What is wrong.
        problem: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format_version: FormatVersion::V3,
            transform: true,
            services: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            certificates: Vec::new(),
            plugins: Vec::new(),
            filter_chains: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a kong.yml.
    ///
    /// # Errors
    /// [`DeclarativeError::Read`] with line and column for what is no YAML, has unknown fields or
    /// wrong types; [`DeclarativeError::TooLarge`].
    pub fn from_yaml(text: &str) -> Result<Self, DeclarativeError> {
        if text.len() > MAX_BYTES {
            return Err(DeclarativeError::TooLarge(text.len()));
        }
        // A snippet could show a key or a password that stands near the fault. Plain words such as `on`
        // are booleans in values without a type, as in Kong's reader; the writer quotes them.
        let options = serde_saphyr::options! {
            with_snippet: false,
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MAX_ALIASED,
            },
        };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| DeclarativeError::Read(e.to_string()))
    }

    /// Writes this as kong.yml: stable order, defaults left out.
    ///
    /// # Errors
    /// [`DeclarativeError::Write`] for a value that YAML cannot hold.
    pub fn to_yaml(&self) -> Result<String, DeclarativeError> {
        // Folding changes how a long token looks, and a key must be found by searching for it.
        let options = serde_saphyr::ser_options! {
            min_fold_chars: usize::MAX,
            folded_wrap_chars: usize::MAX,
        };
        serde_saphyr::to_string_with_options(self, options)
            .map_err(|e| DeclarativeError::Write(e.to_string()))
    }
}

pub(crate) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
