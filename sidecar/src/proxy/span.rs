//! The spans of what passes: one for a request that comes in, from its head to the last byte of the answer; one for
//! each try of a request that goes out, so that every instance that was asked is seen.
//!
//! Whoever is behind is told of the span, and goes on from there. Without traces the headers pass as they came.

use super::answer::Fault;
use super::exchange::{Missed, Outgoing};
use super::h1::Answer;
use crate::config::ServiceName;
use http::HeaderMap;
use http::request::Parts;
use mesh_protocol::names::POLLED;
use mesh_trace::{Context, Kind, Span, Tracer, method_name};
use std::net::SocketAddr;

/// The place in its trace from which a request goes on; none where a trace begins with it.
pub(super) struct Origin(Option<Context>);

impl Origin {
    /// The origin of a request for `path`; `None` where it is not traced.
    pub(super) fn of(tracer: &Tracer, headers: &HeaderMap, path: &str) -> Option<Self> {
        if !tracer.is_on() {
            return None;
        }
        let parent = Context::from_headers(headers);
        (parent.is_some() || !POLLED.contains(&path)).then_some(Self(parent))
    }
}

/// The span of a request of `peer`, which the program continues.
pub(super) fn inbound(
    tracer: &Tracer,
    parts: &mut Parts,
    address: SocketAddr,
    peer: &ServiceName,
) -> Option<Span> {
    let Origin(parent) = Origin::of(tracer, &parts.headers, parts.uri.path())?;
    let mut span = tracer.start(Kind::Server, method_name(&parts.method), parent);
    if let Some(place) = span.context() {
        place.to_headers(&mut parts.headers);
    }
    span.http_request(&parts.method, "https", parts.uri.path());
    if span.is_recording() {
        span.set("client.address", address.ip().to_canonical().to_string());
        span.set("mesh.peer", peer.as_str());
    }
    Some(span)
}

/// The span of one try, after `before` others, at the instance of `service` at `address`, which continues it.
pub(super) fn attempt(
    tracer: &Tracer,
    origin: &Origin,
    request: &mut Outgoing,
    service: &ServiceName,
    address: SocketAddr,
    before: usize,
) -> Span {
    let name = method_name(&request.method);
    let mut span = tracer.start(Kind::Client, name, origin.0.clone());
    if let Some(place) = span.context() {
        place.to_headers(&mut request.headers);
    }
    span.http_request(&request.method, "https", request.uri.path());
    if span.is_recording() {
        span.set("server.address", service.as_str());
        let instance = address.ip().to_canonical().to_string();
        span.set("network.peer.address", instance);
        span.set_number("network.peer.port", address.port().into());
        if before > 0 {
            let before = i64::try_from(before).unwrap_or(i64::MAX);
            span.set_number("http.request.resend_count", before);
        }
    }
    span
}

/// What came of a try.
pub(super) fn tried(span: &mut Span, result: &Result<Answer, Missed>) {
    match result {
        Ok(answer) => span.http_answer(answer.status()),
        Err(missed) => {
            span.set("error.type", missed.reason());
            span.fail(missed.to_string());
        }
    }
}

/// The sidecar itself answers a request that came in. One that is the peer's mistake is no failure of this service.
pub(super) fn faulted(span: &mut Span, fault: &Fault) {
    let status = fault.status();
    span.set_number("http.response.status_code", status.as_u16().into());
    if status.is_server_error() {
        span.set("error.type", fault.reason());
        span.fail(fault.why());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_trace::Config;

    #[test]
    fn no_trace_begins_with_what_machines_ask() {
        // Nothing is ended here, so nothing is exported.
        let config = Config {
            endpoint: Some("http://127.0.0.1:9".into()),
            protocol: mesh_trace::Protocol::Http,
            ..Config::default()
        };
        let tracer = Tracer::new("sidecar", &config).unwrap();
        let mut headers = HeaderMap::new();
        let traced = |headers: &HeaderMap, path| Origin::of(&tracer, headers, path).is_some();
        assert!(traced(&headers, "/process"));
        assert!(traced(&headers, "/internal"));
        for path in POLLED {
            assert!(!traced(&headers, path), "{path}");
        }
        Context::fresh().to_headers(&mut headers);
        for path in POLLED {
            assert!(traced(&headers, path), "{path}");
            assert!(Origin::of(&Tracer::off(), &headers, path).is_none());
        }
    }
}
