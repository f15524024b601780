//! Kong's own plugins, as far as the plan uses them.
//!
//! They run in Kong's order, by its priorities, and before the filters: cors (2000), ip-restriction (990),
//! request-size-limiting (951), rate-limiting (910), request-transformer (801). Of plugins of one name the
//! most specific runs: the route's, else the service's, else the one of all. prometheus is accepted: the
//! gateway counts anyway. Any other plugin is refused by its name, and so is every field of a known one
//! that does not run here.

mod cors;
mod ip;
pub(crate) mod rate;
mod scope;
mod size;
mod transform;

pub(crate) use scope::Scopes;

use crate::body::Body;
use bytes::Bytes;
use cors::Cors;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use ip::IpRestriction;
use rate::RateLimiting;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use size::SizeLimiting;
use std::net::IpAddr;
use std::sync::Arc;
use transform::Transformer;

/// The plugins of one route.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plugins {
    cors: Option<Arc<Cors>>,
    ip: Option<Arc<IpRestriction>>,
    size: Option<Arc<SizeLimiting>>,
    rate: Option<Arc<RateLimiting>>,
    transform: Option<Arc<Transformer>>,
}

/// What plugins know of a request.
pub(crate) struct Asked<'a> {
    pub client: IpAddr,
    pub path: &'a str,
    pub service: &'a str,
    /// Whether the body's end came with the head.
    pub empty: bool,
    /// Whether the client waits for a word before it sends the body.
    pub expects: bool,
}

/// What plugins add to the answer, whoever it is from.
#[derive(Default)]
pub(crate) struct Additions {
    headers: HeaderMap,
    /// The answer is a preflight's own, or the service's to a preflight.
    no_cors: bool,
    origin: Option<HeaderValue>,
}

/// What the plugins decided.
pub(crate) enum Decision {
    Pass,
    /// The body must be known before it can be decided; at most so many bytes.
    Measure(usize),
    Answer(Box<Response<Body>>),
}

impl Plugins {
    fn is_empty(&self) -> bool {
        let none = self.cors.is_none() && self.ip.is_none() && self.size.is_none();
        none && self.rate.is_none() && self.transform.is_none()
    }

    /// Runs what comes before the body is known.
    pub(crate) fn access(
        &self,
        parts: &http::request::Parts,
        asked: &Asked<'_>,
        additions: &mut Additions,
    ) -> Decision {
        if let Some(cors) = &self.cors {
            additions.origin = parts.headers.get(http::header::ORIGIN).cloned();
            if let Some(answer) = cors.preflight(parts, additions) {
                return Decision::Answer(Box::new(answer));
            }
        }
        if let Some(ip) = &self.ip
            && let Some(answer) = ip.check(asked.client)
        {
            return Decision::Answer(Box::new(answer));
        }
        match &self.size {
            Some(size) => size.check(parts, asked),
            None => Decision::Pass,
        }
    }

    /// Answer to a body that is longer than what was to be measured.
    pub(crate) fn too_large(&self, expects: bool) -> Response<Body> {
        SizeLimiting::refusal(expects)
    }

    /// Runs what comes after the body is known to be short enough.
    pub(crate) fn proceed(
        &self,
        parts: &mut http::request::Parts,
        asked: &Asked<'_>,
        counters: &rate::Counters,
        additions: &mut Additions,
    ) -> Option<Response<Body>> {
        if let Some(rate) = &self.rate {
            let now = std::time::SystemTime::now();
            if let Some(answer) = rate.check(&parts.headers, asked, counters, now, additions) {
                return Some(answer);
            }
        }
        if let Some(transform) = &self.transform
            && transform.apply(parts).is_none()
        {
            return Some(error(
                StatusCode::BAD_REQUEST,
                "the request cannot be transformed",
            ));
        }
        None
    }

    /// Adds to an answer what the plugins have for it.
    pub(crate) fn respond(&self, headers: &mut HeaderMap, additions: Additions) {
        for (name, value) in &additions.headers {
            headers.insert(name, value.clone());
        }
        if let Some(cors) = &self.cors
            && !additions.no_cors
        {
            cors.respond(headers, additions.origin.as_ref());
        }
    }
}

/// Whether the client waits for `100 Continue`.
pub(crate) fn expects(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|v| {
        v.as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"100-continue")
    })
}

/// The length that a request states.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An answer as Kong's plugins write theirs.
fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({ "message": message }).to_string();
    let mut response = Response::new(Body::full(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// Reads a plugin's configuration. What is wrong is told without the values: they may be secrets.
fn read<T: DeserializeOwned>(config: &Value) -> Result<T, String> {
    let config = match config {
        Value::Null => json!({}),
        given => given.clone(),
    };
    serde_json::from_value(config).map_err(|e| {
        let text = e.to_string();
        match (text.find("string \""), text.rfind(", expected")) {
            (Some(from), Some(to)) if from < to => format!(
                "{}a string{}",
                text.get(..from).unwrap_or_default(),
                text.get(to..).unwrap_or_default()
            ),
            _ => text,
        }
    })
}
