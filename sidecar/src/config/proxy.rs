//! The ways in and out.

use super::{AssertionRule, Faults, Registration, ServiceName};
use mesh_protocol::assertion::RESERVED_HEADERS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// mTLS in: peers ▸ policy ▸ the program on loopback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Where they are told to connect, where that differs; needed when `listen` is unspecified (`0.0.0.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<SocketAddr>,
    /// Whether a request must carry an assertion.
    #[serde(default)]
    pub assertion: AssertionRule,
    /// Header that the program gets, and what it holds: of the verified assertion `sub`, `origin`, `scope`, or a
    /// claim that the gateway hands on; of the peer's certificate `peer` (its SPIFFE id) or `peer_service`. Every
    /// alias of such a header is dropped first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identity_headers: BTreeMap<String, String>,
    /// Whether the program gets the assertion itself.
    #[serde(default)]
    pub forward_assertion: bool,
    /// Whether the program speaks HTTP/2 without TLS (gRPC); HTTP/1.1 when not.
    #[serde(default)]
    pub app_h2: bool,
    /// Time limits and breaker towards the program; never tried again.
    #[serde(default)]
    pub settings: Settings,
    /// Bounds on what peers may hold.
    #[serde(default)]
    pub limits: ConnectionLimits,
}

/// HTTP from the program on loopback, mTLS out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// Where the program sends its requests; loopback only.
    pub listen: SocketAddr,
    /// What is spoken between sidecars.
    #[serde(default)]
    pub between: Between,
    /// Whether the first path segment `x-mesh-agent` means the service that the header of this name names; beside
    /// a gateway, whose filter sets that header.
    #[serde(default)]
    pub by_agent_header: bool,
    /// Services of this mesh: a request to one that has no instance yet waits for one as long as for a connection, and
    /// is then told that there is none, not that nobody knows the service.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<ServiceName>,
    /// For services without an entry in `services`.
    #[serde(default)]
    pub defaults: Settings,
    /// By service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Settings>,
    /// Bounds on what the program may hold.
    #[serde(default)]
    pub limits: ConnectionLimits,
}

/// What is spoken between sidecars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// Few connections, many requests on each.
    #[default]
    Http2,
    /// A connection for each request under way.
    Http1,
}

/// How requests to one service are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// For a connection and its handshake, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Until the head of the answer is there, in milliseconds; all tries together.
    pub response_timeout_ms: u64,
    /// For the next piece of a body in either direction, in milliseconds; 0 is for ever (event streams).
    pub idle_timeout_ms: u64,
    /// What is tried again.
    pub retries: Retries,
    /// How instances are chosen.
    pub balance: Balance,
    /// When an instance is left alone.
    pub outlier: Outlier,
    /// When the service is.
    pub breaker: Breaker,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            response_timeout_ms: 60_000,
            idle_timeout_ms: 300_000,
            retries: Retries::default(),
            balance: Balance::default(),
            outlier: Outlier::default(),
            breaker: Breaker::default(),
        }
    }
}

/// What is tried again: what no instance has seen, and for methods that may be repeated (RFC 9110, section 9.2.2)
/// a connection that broke and the answers 502, 503 and 504; as long as the body is still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Most tries beyond the first.
    pub max: u32,
    /// Most tries beyond the first among all requests, in percent of them.
    pub budget_percent: u32,
    /// And as many each second beyond that, so that a quiet service may try again at all.
    pub min_per_s: u32,
    /// Longest body that is kept for another try, in bytes.
    pub max_body_bytes: usize,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: 2,
            budget_percent: 20,
            min_per_s: 10,
            max_body_bytes: 64 * 1024,
        }
    }
}

/// How instances are chosen: of two at random the one with the lower load, which is its requests under way times
/// the peak of its response times, fading (peak EWMA).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balance {
    /// Time in which what was measured fades to a third, in milliseconds.
    pub decay_ms: u64,
    /// A new instance gets its full share only after this time, in milliseconds.
    pub slow_start_ms: u64,
    /// Whether instances of this one's own zone are preferred while enough of them are there.
    pub prefer_local: bool,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            decay_ms: 10_000,
            slow_start_ms: 10_000,
            prefer_local: true,
        }
    }
}

/// When an instance is left alone for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outlier {
    /// Failures in a row: no connection, no answer, 502, 503, 504.
    pub consecutive_failures: u32,
    /// How long, in milliseconds; as often again as it was left alone lately.
    pub ejection_ms: u64,
    /// The longest, in milliseconds.
    pub max_ejection_ms: u64,
    /// Most instances that are left alone at the same time, in percent; one always may.
    pub max_ejected_percent: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            ejection_ms: 5_000,
            max_ejection_ms: 60_000,
            max_ejected_percent: 50,
        }
    }
}

/// When a service is asked no more for a while, and how much it is asked at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Most requests under way; more are refused (503).
    pub max_requests: u32,
    /// Share of failures among requests that opens it, in percent; 0 never opens it.
    pub failure_percent: u32,
    /// Least requests within the window before the share counts.
    pub min_requests: u32,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// How long it stays open before one request may try, in milliseconds.
    pub open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            max_requests: 1_024,
            failure_percent: 80,
            min_requests: 20,
            window_ms: 10_000,
            open_ms: 2_000,
        }
    }
}

/// Bounds on what clients of a listener may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// Most connections; more wait to be accepted.
    pub max_connections: usize,
    /// For the TLS handshake, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// For the head of a request, in milliseconds; also ends idle connections.
    pub head_timeout_ms: u64,
    /// Longest head of a request, in bytes.
    pub max_head_bytes: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            handshake_timeout_ms: 5_000,
            head_timeout_ms: 30_000,
            max_head_bytes: 32 * 1024,
            max_streams: 1_024,
        }
    }
}

impl Inbound {
    pub(super) fn check(&self, registration: &Registration, faults: &mut Faults) {
        if self.listen.ip().is_unspecified()
            && self.advertise.is_none()
            && registration.address.is_none()
        {
            faults.push(
                "inbound.advertise is needed: peers cannot connect to an unspecified address \
                 (or registry.registration.address: auto)",
            );
        }
        if self.advertise.is_some_and(|a| a.ip().is_unspecified()) {
            faults.push("inbound.advertise must be an address that peers can connect to");
        }
        for (header, claim) in &self.identity_headers {
            let at = format!("inbound.identity_headers: `{header}`");
            let name = http::HeaderName::try_from(header.as_str());
            if name.is_err() || *header != header.to_ascii_lowercase() {
                faults.push(format!("{at} is no header in lower case"));
            } else if RESERVED_HEADERS.contains(&header.as_str()) || !identifying(header) {
                faults.push(format!(
                    "{at} has a meaning of its own; choose another name"
                ));
            }
            if claim.is_empty() {
                faults.push(format!("{at} names no claim"));
            }
            let read = header.replace('_', "-");
            let mut others = self.identity_headers.keys();
            if others.any(|other| other < header && other.replace('_', "-") == read) {
                faults.push(format!(
                    "{at} is what some programs read as another of them, with `_` for `-`"
                ));
            }
        }
        self.settings.check("inbound.settings", faults);
        self.limits.check("inbound.limits", faults);
    }
}

/// Whether a header may say who is calling: not where it frames messages or steers connections.
fn identifying(header: &str) -> bool {
    const FRAMING: [&str; 14] = [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    !FRAMING.contains(&header)
}

impl Outbound {
    pub(super) fn check(&self, faults: &mut Faults) {
        if !self.listen.ip().to_canonical().is_loopback() {
            faults.push("outbound.listen must be loopback: whoever reaches it is this service");
        }
        self.defaults.check("outbound.defaults", faults);
        for (service, settings) in &self.services {
            settings.check(&format!("outbound.services.{service}"), faults);
        }
        self.limits.check("outbound.limits", faults);
    }
}

impl Settings {
    fn check(&self, at: &str, faults: &mut Faults) {
        for (field, millis, may_be_zero) in [
            ("connect_timeout_ms", self.connect_timeout_ms, false),
            ("response_timeout_ms", self.response_timeout_ms, false),
            ("idle_timeout_ms", self.idle_timeout_ms, true),
            ("balance.decay_ms", self.balance.decay_ms, false),
            ("balance.slow_start_ms", self.balance.slow_start_ms, true),
            ("outlier.ejection_ms", self.outlier.ejection_ms, false),
            (
                "outlier.max_ejection_ms",
                self.outlier.max_ejection_ms,
                false,
            ),
            ("breaker.window_ms", self.breaker.window_ms, false),
            ("breaker.open_ms", self.breaker.open_ms, false),
        ] {
            faults.millis(&format!("{at}.{field}"), millis, may_be_zero);
        }
        for (field, number) in [
            (
                "outlier.consecutive_failures",
                self.outlier.consecutive_failures,
            ),
            ("breaker.max_requests", self.breaker.max_requests),
            ("breaker.min_requests", self.breaker.min_requests),
        ] {
            faults.some(&format!("{at}.{field}"), number.into());
        }
        if self.retries.max > 10 {
            faults.push(format!("{at}.retries.max must be at most 10"));
        }
        if self.retries.max_body_bytes > 16 * 1024 * 1024 {
            faults.push(format!(
                "{at}.retries.max_body_bytes must be at most 16777216"
            ));
        }
        for (field, percent) in [
            ("retries.budget_percent", self.retries.budget_percent),
            (
                "outlier.max_ejected_percent",
                self.outlier.max_ejected_percent,
            ),
            ("breaker.failure_percent", self.breaker.failure_percent),
        ] {
            if percent > 100 {
                faults.push(format!("{at}.{field} must be at most 100"));
            }
        }
    }
}

impl ConnectionLimits {
    fn check(&self, at: &str, faults: &mut Faults) {
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        faults.some(
            &format!("{at}.max_connections"),
            number(self.max_connections),
        );
        faults.some(&format!("{at}.max_streams"), self.max_streams.into());
        // Below that hyper takes no limit.
        if self.max_head_bytes < 8_192 || self.max_head_bytes > 1024 * 1024 {
            faults.push(format!("{at}.max_head_bytes must be 8192 to 1048576"));
        }
        faults.millis(
            &format!("{at}.handshake_timeout_ms"),
            self.handshake_timeout_ms,
            false,
        );
        faults.millis(
            &format!("{at}.head_timeout_ms"),
            self.head_timeout_ms,
            false,
        );
    }
}
