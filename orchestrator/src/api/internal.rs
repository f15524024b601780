//! `/internal/…`: what gateways' filters ask on their tick. Not for clients, and not for what comes through
//! a gateway.
//!
//! A filter asks from its own host, with the mesh's internal token and no assertion. Without a configured
//! token there is nothing at these paths, and neither is there for a request that shows that a gateway
//! passed it on: a route that strips its prefix would otherwise lead here.

use super::failure::Failure;
use super::submit::json;
use super::{Api, body};
use crate::quota::{self, QuotaError};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use mesh_protocol::assertion;
use mesh_protocol::load::Loads;
use mesh_protocol::problem::FieldError;
use mesh_protocol::quota::{MAX_ENTRIES, MAX_KEY, Usage};
use std::sync::Arc;

/// Longest body of an exchange: as many of the longest entries as are allowed, written closely.
const MAX_BODY: usize = 1_024 + MAX_ENTRIES * (MAX_KEY + 144);
/// Longest text of the parser that is repeated: it may quote what was sent.
const MAX_QUOTE: usize = 200;

/// What gateways add to the requests that they pass on. Not `x-forwarded-for`: a host that lets its filters
/// ask may add that as well.
const PASSED_ON: [&str; 7] = [
    assertion::HEADER,
    "via",
    "x-real-ip",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "origin",
];

/// Lets pass who has the token.
pub async fn admit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match admitted(&api, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn admitted(api: &Api, headers: &HeaderMap) -> Result<(), Failure> {
    let passed_on = headers
        .keys()
        .any(|name| PASSED_ON.contains(&name.as_str()) || name.as_str().starts_with("x-kong-"));
    let Some(token) = api.internal_token.as_ref().filter(|_| !passed_on) else {
        return Err(Failure::not_found("there is nothing at this path"));
    };
    let mut offered = headers.get_all(header::AUTHORIZATION).iter();
    let known = match (offered.next(), offered.next()) {
        (Some(value), None) => bearer(value.as_bytes()).is_some_and(|offered| token.is(offered)),
        _ => false,
    };
    if known {
        return Ok(());
    }
    api.metrics.internal_refused();
    Err(Failure::unauthenticated(
        "filters of this mesh bring its internal token: `Authorization: Bearer TOKEN`, once",
    ))
}

/// The token after `Bearer` (RFC 6750; the scheme's case does not matter).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Takes a gateway's usage, and answers where its buckets stand.
pub async fn quota(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Failure> {
    let (parts, request_body) = request.into_parts();
    match body::read(&parts.headers, request_body, MAX_BODY).await {
        Ok(bytes) => exchange(&api, &bytes).await,
        Err(failure) => {
            api.metrics.exchange("refused");
            Err(failure)
        }
    }
}

async fn exchange(api: &Api, bytes: &[u8]) -> Result<Response, Failure> {
    let usage = match read(bytes) {
        Ok(usage) => usage,
        Err(faults) => {
            api.metrics.exchange("refused");
            return Err(Failure::malformed(faults));
        }
    };
    match api.quota.exchange(&usage).await {
        Ok(standings) => {
            api.metrics.exchanged(usage.used.len(), standings.gateways);
            Ok(json(StatusCode::OK, &standings))
        }
        Err(QuotaError::Unavailable { detail } | QuotaError::Config { detail }) => {
            api.metrics.exchange("unavailable");
            tracing::warn!(detail, "a gateway's usage is not counted");
            Err(Failure::unavailable("quotas cannot be kept at the moment"))
        }
    }
}

fn read(bytes: &[u8]) -> Result<Usage, Vec<FieldError>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let usage: Usage = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let place = error.path().to_string();
        fault(&place, error.inner())
    })?;
    reader.end().map_err(|error| fault("", &error))?;
    let faults = quota::faults(&usage);
    if faults.is_empty() {
        Ok(usage)
    } else {
        Err(faults)
    }
}

fn fault(place: &str, error: &serde_json::Error) -> Vec<FieldError> {
    let at = format!(" at line {} column {}", error.line(), error.column());
    let said = error.to_string();
    let said = said.strip_suffix(&at).unwrap_or(&said);
    let said: String = said.chars().take(MAX_QUOTE).collect();
    let (place, code) = if error.is_data() && place != "." {
        (place, "wrong_shape")
    } else if error.is_data() {
        ("", "wrong_shape")
    } else {
        ("", "not_json")
    };
    vec![FieldError::new(place, code, format!("{said}{at}"))]
}

/// How busy the agents are, and which of them take which tasks.
pub async fn load(State(api): State<Arc<Api>>) -> Response {
    let agents = api.executor.context().load.look().await;
    let all = agents.len() == api.planning.catalog().agents().len();
    api.metrics
        .load_asked(if all { "whole" } else { "in_part" });
    let loads = Loads {
        task_types: api.planning.task_types(&agents),
        agents,
        general_agent: api.planning.general_agent().map(ToString::to_string),
    };
    json(StatusCode::OK, &loads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(text: &str) -> Vec<String> {
        let faults = read(text.as_bytes()).unwrap_err();
        faults.into_iter().map(|f| f.field).collect()
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let good = json!({
            "gateway": "g", "interval_ms": 1000,
            "used": [{"key": "a", "emission_ns": 1, "units": 0}],
        });
        assert!(read(good.to_string().as_bytes()).is_ok());
        let with = |pointer: &str, value: serde_json::Value| {
            let mut wrong = good.clone();
            *wrong.pointer_mut(pointer).unwrap() = value;
            places(&wrong.to_string())
        };
        assert_eq!(with("/used/0/units", json!(-1)), ["used[0].units"]);
        assert_eq!(with("/used/0/units", json!(1.5)), ["used[0].units"]);
        assert_eq!(with("/used/0/key", json!(null)), ["used[0].key"]);
        assert_eq!(with("/used/0", json!({"other": 1})), ["used[0].other"]);
        assert_eq!(with("/used", json!({})), ["used"]);
        assert_eq!(with("/used/0/key", json!("a b")), ["used[0].key"]);
        assert_eq!(with("/gateway", json!("")), ["gateway"]);
        for text in [
            "",
            "{",
            "[]",
            "null",
            &format!("{good}x"),
            "{\"gateway\": \"\\ud800\"}",
        ] {
            assert_eq!(places(text).len(), 1, "{text}");
        }
        let long = format!("{{\"{}\": 1}}", "x".repeat(10_000));
        assert!(read(long.as_bytes()).unwrap_err()[0].detail.len() < 300);
    }

    #[test]
    fn the_largest_exchange_fits() {
        let used = mesh_protocol::quota::Used {
            key: "k".repeat(MAX_KEY),
            emission_ns: u64::MAX,
            units: u64::MAX,
            first_ago_ns: u64::MAX,
        };
        let usage = Usage {
            gateway: "g".repeat(64),
            interval_ms: u64::MAX,
            used: vec![used; MAX_ENTRIES],
        };
        assert!(serde_json::to_vec(&usage).unwrap().len() < MAX_BODY);
    }

    #[test]
    fn only_a_bearer_has_a_token() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER abc"), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearerabc", b"", b"abc"] {
            assert_eq!(bearer(other), None);
        }
    }
}
