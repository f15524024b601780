//! What a filter may decide, as a value that someone else performs.

use mesh_protocol::problem::{self, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Pass or refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The request goes on.
    Pass(Pass),
    /// The request ends here.
    Refuse(Refusal),
}

/// A request that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Request headers to set before it does.
    pub set_headers: Vec<(&'static str, String)>,
    /// What later filters of this request need to know, by name; clients cannot write there.
    pub leave: Vec<(&'static str, Vec<u8>)>,
    /// The body to send in place of the one that [`crate::Filter::decide_body`] was given; none for that
    /// one. Its length may differ: then a `Content-Length` that the gateway keeps must follow it.
    pub set_body: Option<Vec<u8>>,
    /// Why, in one word for metrics (`a-z` and `_`).
    pub reason: &'static str,
}

impl Pass {
    /// A request that goes on as it came.
    pub fn because(reason: &'static str) -> Self {
        Self {
            set_headers: Vec::new(),
            leave: Vec::new(),
            set_body: None,
            reason,
        }
    }
}

/// Name under which the caller is left for later filters, as JSON of [`Caller`].
pub const FOUND_CALLER: &str = "mesh_caller";

/// Name under which the router leaves the agent that it chose, as its id.
pub const FOUND_AGENT: &str = "mesh_agent";

/// Who is calling, as their own issuer says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The caller; unique only together with `origin`.
    pub sub: String,
    /// The issuer of the caller's token.
    pub origin: String,
    /// Scopes, separated by single spaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Further claims of the caller's token that the configuration hands on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl Caller {
    /// The caller that an earlier filter of this request verified, if one did.
    pub fn found(host: &dyn crate::Host) -> Option<Self> {
        Self::read(&host.found(FOUND_CALLER)?)
    }

    /// What tells this caller from all others.
    pub(crate) fn identity(&self) -> Vec<u8> {
        // An issuer's name has no zero.
        [self.origin.as_bytes(), b"\0", self.sub.as_bytes()].concat()
    }

    /// Reads what was left under [`FOUND_CALLER`].
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// A request that ends here, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Response headers, `content-type` included.
    pub headers: Vec<(&'static str, String)>,
    /// Problem details (RFC 9457) in JSON.
    pub body: Vec<u8>,
    /// Why, in one word for metrics (`a-z` and `_`).
    pub reason: &'static str,
}

impl Refusal {
    /// The answer `problem`, counted as `reason`.
    pub fn new(reason: &'static str, problem: &Problem) -> Self {
        Self {
            status: problem.status,
            headers: vec![("content-type", problem::CONTENT_TYPE.to_owned())],
            // Strings and numbers always serialise.
            body: serde_json::to_vec(problem).unwrap_or_default(),
            reason,
        }
    }

    /// The same with one more response header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer of a filter whose configuration cannot be used: it refuses everything, because a
    /// filter that fails to configure is left out of the chain and lets everything pass.
    pub fn misconfigured() -> Self {
        Self::new(
            "misconfigured",
            &Problem::new(
                503,
                "filter-misconfigured",
                "the gateway is not configured correctly",
            ),
        )
    }

    /// A client sent the header `name`, which only the gateway may set.
    pub fn reserved(name: &str) -> Self {
        let problem = Problem::new(
            400,
            "reserved-header",
            "a header of the request is reserved",
        )
        .with_detail(format!("remove the header {name} from the request"));
        Self::new("reserved_header", &problem)
    }

    /// The body is larger than the gateway shows to its filters; what nobody looked at does not pass.
    pub fn body_too_large() -> Self {
        Self::new(
            "body_too_large",
            &Problem::new(413, "body-too-large", "the request's body is too large")
                .with_detail("send less than the gateway's client body buffer"),
        )
    }

    /// The answer when the gateway does not tell what a decision needs.
    pub fn host_failure() -> Self {
        Self::new(
            "host_failure",
            &Problem::new(
                503,
                "gateway-failure",
                "the gateway could not examine the request",
            ),
        )
    }
}

impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<crate::Unreadable> for Refusal {
    fn from(_: crate::Unreadable) -> Self {
        Self::host_failure()
    }
}
