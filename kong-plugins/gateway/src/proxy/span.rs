//! The span of a client's request, from its head to the last byte of the answer.
//!
//! Filters see the trace's headers as they came. The service is told of the span of the exchange with it,
//! which [`crate::upstream`] begins: one for each try.

use http::{Request, StatusCode, Version};
use mesh_trace::{Context, Kind, Span, Tracer, method_name};
use std::net::SocketAddr;

/// The span of `request`, whose parent its headers name.
pub(super) fn begin<B>(tracer: &Tracer, request: &Request<B>, client: SocketAddr) -> Span {
    if !tracer.is_on() {
        return Span::default();
    }
    let parent = Context::from_headers(request.headers());
    let mut span = tracer.start(Kind::Server, method_name(request.method()), parent);
    span.http_request(request.method(), "http", request.uri().path());
    if span.is_recording() {
        span.set("client.address", client.ip().to_canonical().to_string());
        let version = match request.version() {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        span.set("network.protocol.version", version);
    }
    span
}

/// Notes what became of the request. The name of a route is that of the kong.yml: no path's template, which
/// `http.route` would be.
pub(super) fn answered(span: &mut Span, route: Option<&str>, status: StatusCode) {
    if let Some(route) = route {
        span.set("kong.route", route);
    }
    span.http_answer(status);
}
