//! Issuers of tokens and their keys, as configured.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One issuer of tokens. It needs `keys`, `jwks` or `jwks_url`; with several, all their keys are its.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens, compared byte by byte.
    pub issuer: String,
    /// A token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// `typ` that its tokens must have, one of these. When left out: `JWT`, `at+jwt` or none at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Its keys, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// Its keys as a set; one that cannot be used is a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
    /// Its keys as a set that is fetched, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<JwksUrl>,
}

impl Issuer {
    /// An issuer with these keys, everything else as when left out.
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>, keys: Vec<Key>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences,
            types: Vec::new(),
            keys,
            jwks: None,
            jwks_url: None,
        }
    }
}

/// One key of an issuer; it verifies exactly one algorithm (RFC 8725, section 3.1). It has one of
/// `secret`, `public_key` and `jwk`.
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
    /// HS256, HS384, HS512: the secret in base64url, at least 32, 48, 64 bytes (RFC 7518, section 3.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Others: the public key as PEM (`BEGIN PUBLIC KEY`, RFC 5280 SubjectPublicKeyInfo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The key as a JSON Web Key; its `kid` and `alg`, if any, are those of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwk: Option<Jwk>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("public_key", &self.public_key)
            .field("jwk", &self.jwk)
            .finish_non_exhaustive()
    }
}

/// A set of JSON Web Keys (RFC 7517, section 5). Members that are not known are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// A JSON Web Key (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2). Members that are
/// not known are ignored; binary ones are in unpadded base64url.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Jwk {
    /// `EC`, `OKP`, `RSA` or `oct`.
    pub kty: String,
    /// `sig`, if it says what it is for.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Holds `verify`, if it says what it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// The one algorithm it is for, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// EC: `P-256`, `P-384` or `P-521`. OKP: `Ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// EC: the point's first coordinate. OKP: the public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// EC: the point's second coordinate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// RSA: the modulus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA: the exponent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// oct: the secret. A secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
    /// The private half, which has no place here: a key that brings it is refused. A secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
}

impl fmt::Debug for Jwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwk")
            .field("kty", &self.kty)
            .field("alg", &self.alg)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A set of keys that is fetched through the sidecar beside the gateway, which alone resolves names and
/// speaks TLS to the issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JwksUrl {
    /// Address of that sidecar, `127.0.0.1:PORT`.
    pub authority: String,
    /// `host` of the request: the issuer's host, as the sidecar knows it.
    pub host: String,
    /// Path and query of the set, as `/.well-known/jwks.json`.
    pub path: String,
    /// The algorithms that its keys may be for, no HS ones. A key that does not say its own is for the
    /// one of these that it can be for, and is skipped if it can be for several.
    pub algorithms: Vec<Algorithm>,
    /// Seconds between two fetches, at most: each worker of a gateway fetches for itself, and up to a
    /// tenth earlier by chance, so that not all ask at once.
    #[serde(default = "refresh_s")]
    pub refresh_s: u64,
    /// How long the last set is used when no new one comes, in seconds since it came.
    #[serde(default = "stale_s")]
    pub stale_s: u64,
    /// How long a fetch may take, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
}

impl JwksUrl {
    /// A set at `path` of `host`, everything else as when left out.
    pub fn new(
        authority: impl Into<String>,
        host: impl Into<String>,
        path: impl Into<String>,
        algorithms: Vec<Algorithm>,
    ) -> Self {
        Self {
            authority: authority.into(),
            host: host.into(),
            path: path.into(),
            algorithms,
            refresh_s: refresh_s(),
            stale_s: stale_s(),
            timeout_ms: timeout_ms(),
        }
    }
}

/// JWS algorithms (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of at least 2048 bits.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384, keys of at least 2048 bits.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512, keys of at least 2048 bits.
    RS512,
    /// RSASSA-PSS with SHA-256, keys of at least 2048 bits.
    PS256,
    /// RSASSA-PSS with SHA-384, keys of at least 2048 bits.
    PS384,
    /// RSASSA-PSS with SHA-512, keys of at least 2048 bits.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512. A token not seen before costs a worker milliseconds, five times what
    /// P-256 costs.
    ES512,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Every algorithm, and its name in `alg`.
    pub const NAMED: [(&'static str, Self); 13] = [
        ("HS256", Self::HS256),
        ("HS384", Self::HS384),
        ("HS512", Self::HS512),
        ("RS256", Self::RS256),
        ("RS384", Self::RS384),
        ("RS512", Self::RS512),
        ("PS256", Self::PS256),
        ("PS384", Self::PS384),
        ("PS512", Self::PS512),
        ("ES256", Self::ES256),
        ("ES384", Self::ES384),
        ("ES512", Self::ES512),
        ("EdDSA", Self::EdDSA),
    ];

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, algorithm)| *algorithm)
    }

    /// Whether whoever can verify can sign, too: its key is a secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

fn refresh_s() -> u64 {
    300
}

fn stale_s() -> u64 {
    3600
}

fn timeout_ms() -> u32 {
    2000
}
