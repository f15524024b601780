//! The filters' configurations: `mesh-config` writes them, the filters read them, and each filter's
//! `.meta.json` schema for Kong is generated from them.

mod rate_limit;

pub use rate_limit::*;

use serde::{Deserialize, Serialize};

/// Configuration of the `jwt_auth` filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JwtAuth {
    /// Revision of the mesh.yaml this was rendered from.
    #[serde(default)]
    pub revision: String,
    /// Issuers whose tokens are accepted, each with its own keys (RFC 8725, section 3.8).
    pub issuers: Vec<Issuer>,
    /// How far two machines' clocks may differ, in seconds; at most the leeway of whoever reads the
    /// assertion (`mesh_protocol::assertion::LEEWAY_S`).
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// Scopes that a token must all carry (`scope`, RFC 8693, section 4.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_scopes: Vec<String>,
    /// How the verified caller is handed on.
    pub assertion: AssertionSigner,
}

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens, compared byte by byte.
    pub issuer: String,
    /// A token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// One key of an issuer; it verifies exactly one algorithm (RFC 8725, section 3.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Chooses among the issuer's keys, never anything else; a key without one is tried for tokens
    /// without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// HS256: the secret in base64url, at least 32 bytes (RFC 7518, section 3.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Others: the public key as PEM (`BEGIN PUBLIC KEY`, RFC 5280 SubjectPublicKeyInfo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// JWS algorithms (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of at least 2048 bits.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// How the verified caller is handed on, see `mesh_protocol::assertion`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AssertionSigner {
    /// `iss` of the assertions: this gateway.
    pub issuer: String,
    /// `aud` of the assertions: the mesh's name.
    pub audience: String,
    /// Name of the signing key.
    pub kid: String,
    /// 32 bytes of Ed25519 private key in unpadded base64url. A secret.
    pub signing_key: String,
    /// How long an assertion is valid, in seconds.
    #[serde(default = "lifetime_s")]
    pub lifetime_s: u64,
}

impl std::fmt::Debug for AssertionSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssertionSigner")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("kid", &self.kid)
            .field("lifetime_s", &self.lifetime_s)
            .finish_non_exhaustive()
    }
}

fn leeway_s() -> u64 {
    30
}

fn lifetime_s() -> u64 {
    60
}
