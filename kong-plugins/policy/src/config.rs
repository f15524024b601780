//! The filters' configurations: `mesh-config` writes them, the filters read them, and each filter's
//! `.meta.json` schema for Kong is generated from them.

mod admission;
mod load;
mod routing;

pub use admission::{AboveCeiling, Ceiling, Ceilings, TaskAdmission, TaskTypes, TimeoutBounds};
pub use load::{Load, WhenStale};
pub use routing::{
    AgentRouter, By, DeclaredAgent, HeaderMatch, Matchers, Otherwise, Path, Rule, Sticky, Target,
    Weighted,
};
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

/// Configuration of the `rate_limit` filter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Revision of the mesh.yaml this was rendered from.
    #[serde(default)]
    pub revision: String,
    /// What is limited; a request passes if every limit lets it.
    pub limits: Vec<Limit>,
    /// 32 bytes or more in unpadded base64url; decides where keys lie in shared data, so that nobody
    /// can aim at somebody else's place. A secret.
    pub table_key: String,
    /// Keys that are kept at a time; each takes about 120 bytes of the gateway's shared data.
    #[serde(default = "slots")]
    pub slots: u32,
    /// Addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` is believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
    /// Which headers tell the client how much is left.
    #[serde(default)]
    pub headers: LimitHeaders,
    /// What happens when the gateway's shared data cannot be used.
    #[serde(default)]
    pub when_unusable: WhenUnusable,
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("revision", &self.revision)
            .field("limits", &self.limits)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its name in the `RateLimit` headers: 1 to 32 of `a-z 0-9 - _`.
    pub name: String,
    /// Units per window, or at the same time.
    pub quota: u64,
    /// The window in seconds; of `concurrent_requests`, after how long a request counts as lost.
    pub window_s: u64,
    /// Units that may be used at once; the quota when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Whose units they are: each combination of these has its own. Nothing: all requests share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Dimension>,
    /// What a unit is.
    #[serde(default)]
    pub unit: Unit,
    /// What a request costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The verified caller: issuer and subject. Requests without one share.
    Consumer,
    /// The client's address; of IPv6 its network of 64 bits.
    Address,
    /// The path, without its query.
    Path,
    /// The agent that the router chose before.
    Agent,
    /// A request header; requests without it share.
    Header(String),
}

/// What a unit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests in a window.
    #[default]
    Requests,
    /// Requests at the same time.
    ConcurrentRequests,
}

/// What a request costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cost {
    /// As many units as this request header says, 1 where it says nothing.
    Header {
        /// Its name.
        name: String,
        /// Most units that it may say; a request that says more is refused.
        max: u64,
    },
}

/// Which headers tell the client how much is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    #[default]
    Draft,
    /// Those, and the older `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    DraftAndOlder,
    /// None.
    None,
}

/// What happens when a limit cannot be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhenUnusable {
    /// Requests are refused (503).
    #[default]
    Refuse,
    /// Requests pass unlimited.
    Pass,
}

fn slots() -> u32 {
    65_536
}
