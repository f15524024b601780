//! Certificates that the gateway shows its clients, by the name that they ask for.

use serde::{Deserialize, Serialize};

/// One certificate with its key, as PEM text or as Kong's own references (`{vault://env/name}`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, and those between it and its authority.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// A second certificate with another kind of key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_alt: Option<String>,
    /// The private key of the second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_alt: Option<String>,
    /// The names that it is for; `*` is every other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snis: Vec<Sni>,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A name that clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sni {
    /// The name, with `*` as its first or last label at most.
    pub name: String,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

// The key stays out of Debug.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("snis", &self.snis)
            .finish_non_exhaustive()
    }
}
