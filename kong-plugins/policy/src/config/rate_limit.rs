//! Configuration of the `rate_limit` filter.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Where the gateways tell one another what they let pass; needed by limits that are `shared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
}

/// The quota endpoint of the orchestrator, see `mesh_protocol::quota`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// `ADDRESS:PORT` of the sidecar beside the gateway, or of the orchestrator itself.
    pub authority: String,
    /// `Host` by which the sidecar finds the orchestrator; the authority when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Bearer token that the endpoint asks for. A secret.
    pub token: String,
    /// How often usage is exchanged, in milliseconds.
    #[serde(default = "interval_ms")]
    pub interval_ms: u32,
    /// What happens when nothing could be exchanged for three intervals.
    #[serde(default)]
    pub when_unreachable: WhenUnreachable,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("authority", &self.authority)
            .field("host", &self.host)
            .field("interval_ms", &self.interval_ms)
            .field("when_unreachable", &self.when_unreachable)
            .finish_non_exhaustive()
    }
}

/// What happens to shared limits when the quota endpoint cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhenUnreachable {
    /// Each gateway holds them for itself.
    #[default]
    HoldLocally,
    /// Requests are refused (503).
    Refuse,
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
    /// Whether all gateways together keep it, by `exchange`; else each of them does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
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
    /// A claim that `jwt_auth` hands on (`hand_on_claims`); requests without it share.
    Claim(String),
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
    /// As many units as the task's type is listed with. What is no task (no POST) costs 1; a body of
    /// which the type cannot be read costs as much as the dearest.
    TaskType {
        /// Units by task type.
        units: BTreeMap<String, u64>,
        /// Units of any other task type.
        #[serde(default = "one")]
        other: u64,
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

fn interval_ms() -> u32 {
    1_000
}

fn one() -> u64 {
    1
}
