//! The gateway's own answers: Kong's words where clients know them, else RFC 9457 problem details.

use crate::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, UPGRADE};
use http::{Response, StatusCode};
use serde_json::json;

/// Prefix of the problem types, as everywhere in the mesh.
const TYPE_PREFIX: &str = "urn:agent-mesh:problem:";

/// No route takes the request: Kong's own words.
pub(crate) fn no_route() -> Response<Body> {
    let body = json!({"message": "no Route matched with those values"});
    with(
        StatusCode::NOT_FOUND,
        "application/json; charset=utf-8",
        body.to_string(),
    )
}

/// What the gateway itself answers instead of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    BadRequest(&'static str),
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    /// With the most bytes that are taken.
    BodyTooLarge(usize),
    FilterFailed,
    BadGateway,
    GatewayTimeout,
    /// All targets of the service are out.
    NoTarget,
}

impl Problem {
    /// Status and the parts of the problem.
    fn parts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::BadRequest(detail) => (
                StatusCode::BAD_REQUEST,
                "bad-request",
                "bad request",
                detail,
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "method not allowed",
                "the gateway takes neither CONNECT nor TRACE",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "request timeout",
                "the request body stopped arriving",
            ),
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "request head too large",
                "the request line and its headers are longer than the gateway takes",
            ),
            Self::BodyTooLarge(_) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "request body too large",
                "the request body is longer than the gateway takes",
            ),
            Self::FilterFailed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "filter-failed",
                "filter failed",
                "a filter could not judge the request, so it was not passed on",
            ),
            Self::BadGateway => (
                StatusCode::BAD_GATEWAY,
                "bad-gateway",
                "bad gateway",
                "the service cannot be reached or broke off",
            ),
            Self::GatewayTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "gateway-timeout",
                "gateway timeout",
                "the service did not answer in time",
            ),
            Self::NoTarget => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-healthy-target",
                "no healthy target",
                "no target of the service may be used now",
            ),
        }
    }

    /// A word for it.
    pub(crate) fn kind(self) -> &'static str {
        self.parts().1
    }

    /// The answer.
    pub(crate) fn response(self) -> Response<Body> {
        let (status, kind, title, detail) = self.parts();
        let mut body = json!({
            "type": format!("{TYPE_PREFIX}{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
        });
        if let (Self::BodyTooLarge(limit), Some(body)) = (self, body.as_object_mut()) {
            let detail = format!("the body may have {limit} bytes: send less payload");
            let error = json!({"field": "payload", "code": "too_large", "detail": detail});
            body.insert("errors".to_owned(), json!([error]));
        }
        with(status, "application/problem+json", body.to_string())
    }
}

/// The answer to a plain request for a route that takes https alone, as Kong gives it.
pub(crate) fn https_only(status: StatusCode, host: &str, target: &str) -> Response<Body> {
    let media = "application/json; charset=utf-8";
    if status == StatusCode::UPGRADE_REQUIRED {
        let body = json!({"message": "Please use HTTPS protocol"});
        let mut response = with(status, media, body.to_string());
        let upgrade = HeaderValue::from_static("TLS/1.2, HTTP/1.1");
        response.headers_mut().insert(UPGRADE, upgrade);
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        return response;
    }
    let mut response = Response::new(Body::full(""));
    *response.status_mut() = status;
    match HeaderValue::from_str(&format!("https://{host}{target}")) {
        Ok(location) => {
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => Problem::BadRequest("the path is malformed").response(),
    }
}

/// The answer to a request without gRPC for a route of gRPC, or over HTTP/1, as Kong gives it.
pub(crate) fn grpc_only(is_grpc: bool) -> Response<Body> {
    let (status, message) = if is_grpc {
        (StatusCode::UPGRADE_REQUIRED, "Please use HTTP2 protocol")
    } else {
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Non-gRPC request matched gRPC route",
        )
    };
    let body = json!({ "message": message });
    with(status, "application/json; charset=utf-8", body.to_string())
}

fn with(status: StatusCode, media: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
