//! Who this service is, and whom it believes.

use super::{Faults, Registry, Secret};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who this service is, and whom it believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// The trust domain of SPIFFE ids; Consul says its own, which this must equal where both are given.
    pub trust_domain: Option<String>,
    /// Where certificates come from; nothing is proven or believed without.
    pub source: IdentitySource,
    /// `/ready` says so when the certificate expires within this time and no new one came, in seconds.
    pub warn_before_s: u64,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            trust_domain: None,
            source: IdentitySource::None,
            warn_before_s: 3_600,
        }
    }
}

/// Where certificates come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IdentitySource {
    /// Nowhere: such a sidecar takes steps off the bus and has no proxies.
    #[default]
    None,
    /// The certificate authority of Consul Connect, by the connection of `registry`.
    Consul {},
    /// PEM files, watched: whoever renews them replaces them.
    Files {
        /// The certificate and the intermediates after it.
        certificate: PathBuf,
        /// Its key (PKCS #8, SEC 1 or PKCS #1).
        key: PathBuf,
        /// The trust bundle.
        roots: PathBuf,
    },
    /// A certificate authority in a directory of this machine, made when it is not there. For one machine:
    /// whoever reads the directory can be any service.
    Development {
        /// The directory.
        directory: PathBuf,
        /// How long a certificate is valid, in seconds.
        #[serde(default = "day")]
        lifetime_s: u64,
    },
    /// Vault's PKI secrets engine.
    Vault {
        /// Base URL, such as `https://127.0.0.1:8200`.
        url: String,
        /// Where the engine is mounted.
        #[serde(default = "pki")]
        mount: String,
        /// The role that signs.
        role: String,
        /// Vault's token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        /// A file that holds it; read again when it changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
        /// PEM of the authorities that signed Vault's certificate; the system's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
}

fn day() -> u64 {
    86_400
}

fn pki() -> String {
    "pki".to_owned()
}

impl Identity {
    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.source != IdentitySource::None
    }

    pub(super) fn check(&self, registry: &Registry, faults: &mut Faults) {
        if let Some(domain) = &self.trust_domain {
            let legal = |b: u8| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            };
            if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(legal) {
                faults.push(
                    "identity.trust_domain must be 1 to 255 of a-z, 0-9, `.`, `-` and `_`, without spiffe://",
                );
            }
        }
        let named = self.trust_domain.is_some();
        match &self.source {
            IdentitySource::None => {}
            IdentitySource::Consul {} => {
                if registry.consul().is_none() {
                    faults.push("identity.source.consul needs registry.consul");
                }
            }
            IdentitySource::Files { .. } | IdentitySource::Vault { .. } if !named => {
                faults.push("identity.trust_domain is needed with this source");
            }
            IdentitySource::Files { .. } => {}
            IdentitySource::Development { lifetime_s, .. } => {
                if !named {
                    faults.push("identity.trust_domain is needed with this source");
                }
                if *lifetime_s < 2 {
                    faults.push("identity.source.development.lifetime_s must be at least 2");
                }
            }
            IdentitySource::Vault {
                url,
                token,
                token_file,
                ..
            } => {
                if !url::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https")) {
                    faults.push("identity.source.vault.url must be an http:// or https:// URL");
                }
                if token.is_some() == token_file.is_some() {
                    faults.push("identity.source.vault needs one of token and token_file");
                }
            }
        }
    }
}
