//! A request and its response as filters see them, and back.

use super::Way;
use crate::answer::Problem;
use crate::body::{Body, BodyError};
use crate::filters::{Passage, Verdict};
use crate::hygiene;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use mesh_wasm_host::{Exchange, Head, LocalResponse};

/// Statuses of answers whose length is not stated.
const BODILESS: [StatusCode; 3] = [
    StatusCode::SWITCHING_PROTOCOLS,
    StatusCode::NO_CONTENT,
    StatusCode::NOT_MODIFIED,
];

/// The request as filters see it. Its headers move over and come back with [`with_changes`].
pub(super) fn exchange(parts: &mut http::request::Parts, way: &Way<'_>, port: u16) -> Exchange {
    let subject = way.subject;
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
        .to_owned();
    let mut exchange = Exchange::default();
    let request = &mut exchange.request;
    request.set_pseudo(":method", parts.method.as_str().to_owned());
    request.set_pseudo(":path", target.clone());
    request.set_pseudo(":authority", subject.authority.clone());
    request.set_pseudo(":scheme", "http");
    let properties = &mut exchange.properties;
    properties.set("request.method", parts.method.as_str().to_owned());
    // With the query, as Kong gives it.
    properties.set("request.path", target);
    properties.set("request.url_path", parts.uri.path().to_owned());
    properties.set(
        "request.query",
        parts.uri.query().unwrap_or_default().to_owned(),
    );
    properties.set("request.host", subject.authority.clone());
    properties.set("request.scheme", "http");
    properties.set("source.address", hygiene::canonical(way.client.ip()));
    properties.set("source.port", way.client.port().to_string());
    properties.set("destination.port", port.to_string());
    properties.set("kong.route_name", way.destination.route.to_string());
    request.headers = std::mem::take(&mut parts.headers);
    exchange
}

/// Takes the headers back from the filters, with the method, the one pseudo header whose change
/// counts. None for a method that is none.
pub(super) fn with_changes(
    mut parts: http::request::Parts,
    head: &mut Head,
) -> Option<http::request::Parts> {
    parts.headers = head.headers.clone();
    parts.method = Method::from_bytes(head.pseudo(":method")?).ok()?;
    Some(parts)
}

/// A service's response as the client gets it, before filters see it.
pub(super) fn cleaned(response: Response<Incoming>, way: &Way<'_>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    hygiene::strip_hop_by_hop(&mut parts.headers);
    hygiene::add_via(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Response::from_parts(parts, Body::full(""));
    }
    let plan = &way.upstream.plan;
    let body = Body::stream(body, plan.read_timeout, plan.h2);
    Response::from_parts(parts, body)
}

pub(super) fn local_response(local: LocalResponse) -> Response<Body> {
    let mut headers = local.headers;
    hygiene::strip_hop_by_hop(&mut headers);
    hygiene::strip_framing(&mut headers);
    let mut response = Response::new(Body::full(local.body));
    *response.status_mut() = local.status;
    *response.headers_mut() = headers;
    response
}

/// Lets all filters see a response, whoever it is from.
pub(super) fn respond(response: Response<Body>, mut passage: Box<Passage>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let end = body.is_end_stream();
    let head = &mut passage.exchange.response;
    head.set_pseudo(":status", parts.status.as_str().to_owned());
    head.headers = parts.headers;
    if let Some(length) = body.own_length()
        && !BODILESS.contains(&parts.status)
    {
        // hyper cannot know the length of what goes through filters; one that changes it says so.
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    match passage.response_headers(end) {
        Verdict::Pass => {}
        Verdict::Answer(local) => return local_response(local),
        Verdict::Failed => return Problem::FilterFailed.response(),
    }
    let head = &mut passage.exchange.response;
    let status = head
        .pseudo(":status")
        .and_then(|s| StatusCode::from_bytes(s).ok())
        .filter(|s| s.as_u16() >= 200 || *s == parts.status);
    let Some(status) = status else {
        return Problem::FilterFailed.response();
    };
    parts.status = status;
    parts.headers = head.headers.clone();
    // Filters may have added what belongs to one hop.
    hygiene::strip_hop_by_hop(&mut parts.headers);
    Response::from_parts(parts, body.through(passage))
}

pub(super) fn of_body(error: &BodyError) -> Problem {
    match error {
        BodyError::TooLarge(limit) => Problem::BodyTooLarge(*limit),
        BodyError::Timeout => Problem::RequestTimeout,
        BodyError::Filter | BodyError::Broken(_) => {
            Problem::BadRequest("the request body broke off")
        }
    }
}
