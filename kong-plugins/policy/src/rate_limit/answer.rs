//! What the client is told: `RateLimit-Policy` and `RateLimit` as structured fields
//! (draft-ietf-httpapi-ratelimit-headers-10), the older `X-RateLimit-*`, and the refusal.

use crate::Refusal;
use crate::config::LimitHeaders;
use mesh_protocol::problem::{self, Problem};
use serde::Serialize;

/// Where a limit stands for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) quota: u64,
    /// None where requests at the same time are counted.
    pub(super) window_s: Option<u64>,
    pub(super) left: u64,
    /// Seconds until all of it is there again.
    pub(super) full_in_s: u64,
}

/// The headers for `standings`.
pub(super) fn headers(shown: LimitHeaders, standings: &[Standing]) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if shown == LimitHeaders::None || standings.is_empty() {
        return headers;
    }
    let list = |item: &dyn Fn(&Standing) -> String| {
        let items: Vec<String> = standings.iter().map(item).collect();
        items.join(", ")
    };
    headers.push((
        "ratelimit-policy",
        list(&|s| match s.window_s {
            Some(window_s) => format!("\"{}\";q={};w={window_s}", s.name, s.quota),
            None => format!("\"{}\";q={};qu=\"concurrent-requests\"", s.name, s.quota),
        }),
    ));
    headers.push((
        "ratelimit",
        list(&|s| match s.window_s {
            Some(_) => format!("\"{}\";r={};t={}", s.name, s.left, s.full_in_s),
            None => format!("\"{}\";r={}", s.name, s.left),
        }),
    ));
    // The older headers have room for one limit: the one that is nearest to its end.
    if shown == LimitHeaders::DraftAndOlder
        && let Some(tightest) = standings.iter().min_by_key(|s| s.left)
    {
        headers.push(("x-ratelimit-limit", tightest.quota.to_string()));
        headers.push(("x-ratelimit-remaining", tightest.left.to_string()));
        headers.push(("x-ratelimit-reset", tightest.full_in_s.to_string()));
    }
    headers
}

/// The problem of the draft, with the member that it names.
#[derive(Serialize)]
struct QuotaExceeded<'a> {
    #[serde(flatten)]
    problem: Problem,
    #[serde(rename = "violated-policies")]
    violated_policies: [&'a str; 1],
}

/// The answer to a request for which `limit` has nothing left.
pub(super) fn exceeded(
    shown: LimitHeaders,
    standings: &[Standing],
    limit: &str,
    wait_ns: u64,
) -> Refusal {
    let wait_s = wait_ns.div_ceil(1_000_000_000).max(1);
    let problem = Problem {
        kind: "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned(),
        ..Problem::new(429, "quota-exceeded", "the quota is used up")
    }
    .with_detail(format!("limit {limit}: try again in {wait_s} s"));
    let body = QuotaExceeded {
        problem,
        violated_policies: [limit],
    };
    let mut refusal = Refusal {
        status: 429,
        headers: vec![
            ("content-type", problem::CONTENT_TYPE.to_owned()),
            ("retry-after", wait_s.to_string()),
        ],
        // Strings and numbers always serialise.
        body: serde_json::to_vec(&body).unwrap_or_default(),
        reason: "quota_exceeded",
    };
    refusal.headers.extend(headers(shown, standings));
    refusal
}
