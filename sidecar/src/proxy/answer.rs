//! Answers that the sidecar itself gives, as problem details.

use super::body::Body;
use super::breaker::Refused;
use super::hygiene::Malformed;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use mesh_protocol::problem::{CONTENT_TYPE, Problem};
use std::borrow::Cow;
use std::time::Duration;

/// Why the sidecar answers itself.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The request cannot be understood, or must not be.
    BadRequest(Cow<'static, str>),
    /// A method that is for proxies of another kind.
    Connect,
    /// The client's body stopped arriving.
    RequestTimeout,
    /// Nobody knows the service.
    UnknownService(String),
    /// No instance of the service is healthy.
    NoInstance(String),
    /// Too much is under way, or too much failed: why, and when it may be over.
    Overloaded(Cow<'static, str>, Duration),
    /// No connection, or it ended too early.
    BadGateway(Cow<'static, str>),
    /// No answer in time.
    GatewayTimeout,
    /// There is no certificate yet.
    NoIdentity,
}

impl From<Malformed> for Fault {
    fn from(Malformed(why): Malformed) -> Self {
        Self::BadRequest(why.into())
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let left = match refused {
            Refused::Busy => Duration::ZERO,
            Refused::Open { left } => left,
        };
        Self::Overloaded(refused.to_string().into(), left)
    }
}

impl Fault {
    /// A word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Connect => "connect",
            Self::RequestTimeout => "request_timeout",
            Self::UnknownService(_) => "unknown_service",
            Self::NoInstance(_) => "no_instance",
            Self::Overloaded(..) => "overloaded",
            Self::BadGateway(_) => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
            Self::NoIdentity => "no_identity",
        }
    }

    /// Every word, in no order.
    pub(crate) const REASONS: [&'static str; 9] = [
        "bad_request",
        "connect",
        "request_timeout",
        "unknown_service",
        "no_instance",
        "overloaded",
        "bad_gateway",
        "gateway_timeout",
        "no_identity",
    ];

    /// What went wrong, in words.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::BadRequest(why) | Self::Overloaded(why, _) | Self::BadGateway(why) => why,
            _ => self.reason(),
        }
    }

    /// The answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownService(_) => StatusCode::NOT_FOUND,
            Self::NoInstance(_) | Self::Overloaded(..) | Self::NoIdentity => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The answer.
    pub(crate) fn response(self) -> Response<Body> {
        let soon = match &self {
            Self::Overloaded(_, left) => left.as_secs().max(1),
            _ => 1,
        };
        let status = self.status();
        let (name, title, detail): (_, _, Option<Cow<'static, str>>) = match self {
            Self::BadRequest(why) => (
                "bad-request",
                "the request is malformed",
                Some(why),
            ),
            Self::Connect => (
                "connect",
                "the sidecar opens no tunnels",
                Some("send the request itself: the sidecar is an HTTP proxy for plain requests".into()),
            ),
            Self::RequestTimeout => (
                "request-timeout",
                "the request's body stopped arriving",
                None,
            ),
            Self::UnknownService(name) => (
                "unknown-service",
                "no service of this mesh is named",
                Some(
                    format!(
                        "there is no service `{name}`: name one as the host (`Host: NAME`, or this sidecar as the HTTP \
                         proxy of http://NAME/), or as the first segment of the path (/NAME/…)"
                    )
                    .into(),
                ),
            ),
            Self::NoInstance(name) => (
                "no-instance",
                "no instance of the service is healthy",
                Some(format!("{name} has no healthy instance at the moment").into()),
            ),
            Self::Overloaded(why, _) => (
                "overloaded",
                "the service is asked no more for the moment",
                Some(why),
            ),
            Self::BadGateway(why) => (
                "bad-gateway",
                "the service could not be reached, or broke off",
                Some(why),
            ),
            Self::GatewayTimeout => (
                "gateway-timeout",
                "the service did not answer in time",
                None,
            ),
            Self::NoIdentity => (
                "no-identity",
                "the sidecar has no certificate yet",
                None,
            ),
        };
        let mut problem = Problem::new(status.as_u16(), name, title);
        if let Some(detail) = detail {
            problem = problem.with_detail(detail);
        }
        // A problem of texts and a number is always JSON.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = self::problem(status, body.into());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(soon));
        }
        if matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT | StatusCode::NOT_IMPLEMENTED
        ) {
            close(&mut response);
        }
        response
    }
}

/// A problem that is written already.
pub(crate) fn problem(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Ends a connection of HTTP/1.1 with this answer; hyper leaves the header out of HTTP/2.
pub(crate) fn close(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}
