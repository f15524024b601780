//! Pools of targets and how their health is found out, with Kong's defaults.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool of targets that a service names as its host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Unique name.
    pub name: String,
    /// How a target is chosen; `round-robin` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Size of Kong's ring, which says nothing about the shares of the targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// What of a request chooses the target, such as `header`; nothing when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on: Option<String>,
    /// What chooses it where the first is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_fallback: Option<String>,
    /// Header of `hash_on: header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on_header: Option<String>,
    /// Header of `hash_fallback: header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_fallback_header: Option<String>,
    /// Cookie of `cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on_cookie: Option<String>,
    /// Path of that cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on_cookie_path: Option<String>,
    /// Argument of `hash_on: query_arg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on_query_arg: Option<String>,
    /// Argument of `hash_fallback: query_arg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_fallback_query_arg: Option<String>,
    /// Capture of `hash_on: uri_capture`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_on_uri_capture: Option<String>,
    /// Capture of `hash_fallback: uri_capture`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_fallback_uri_capture: Option<String>,
    /// Whether names are looked up as SRV alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_srv_name: Option<bool>,
    /// `Host` that the targets receive instead of their own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_header: Option<String>,
    /// The targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<UpstreamTarget>,
    /// How health is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthchecks: Option<Healthchecks>,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One target of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTarget {
    /// `host:port`; port 8000 when left out, as in Kong.
    pub target: String,
    /// Share of the load, 0 to 65535; none with 0.
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    pub weight: u16,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// How health is found out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthchecks {
    /// By requests of Kong's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Active>,
    /// By watching the clients' requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<Passive>,
    /// Part of the weight that must be healthy for the pool to be used at all, in per cent; 0 when
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// Checks by requests of Kong's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// What is asked; `http` when left out.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Path that is asked; `/` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// Headers of the question.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Longest wait for an answer, in seconds; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Questions at a time; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Whether certificates are verified in checks of type `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_verify_certificate: Option<bool>,
    /// Name that is asked for in checks of type `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_sni: Option<String>,
    /// When a target becomes healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<Healthy>,
    /// When a target becomes unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<Unhealthy>,
}

/// Checks by watching the clients' requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passive {
    /// What is watched; `http` when left out.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When a target becomes healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<Healthy>,
    /// When a target becomes unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<Unhealthy>,
}

/// When a target becomes healthy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthy {
    /// Time between two checks of a healthy target, in seconds; never when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<f64>,
    /// Statuses that are successes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_statuses: Option<Vec<u16>>,
    /// Successes in a row that it takes; they count for nothing when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successes: Option<u8>,
}

/// When a target becomes unhealthy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unhealthy {
    /// Time between two checks of an unhealthy target, in seconds; never when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<f64>,
    /// Statuses that are failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_statuses: Option<Vec<u16>>,
    /// Failed connections in a row that it takes; they count for nothing when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_failures: Option<u8>,
    /// Timeouts in a row that it takes; they count for nothing when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<u8>,
    /// Bad answers in a row that it takes; they count for nothing when left out or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_failures: Option<u8>,
}

fn weight() -> u16 {
    100
}

fn is_weight(value: &u16) -> bool {
    *value == 100
}
