//! What a request is about, read from its head.

use crate::answer::Problem;
use crate::path;
use http::header::HOST;
use http::uri::Authority;
use http::{Method, Request, Version};
use hyper::body::Incoming;

/// What a request is about.
pub(crate) struct Subject {
    /// The client's host as it was sent.
    pub authority: String,
    /// The same in lower case and without port.
    pub host: String,
    /// The path in its normal form.
    pub path: String,
}

/// The length of a request's head, near enough: the target, and each header with `: ` and its line's end.
pub(super) fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(1, |t| t.as_str().len());
    let headers = request.headers().iter();
    headers.fold(target, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}

impl Subject {
    pub(crate) fn read<B>(request: &Request<B>) -> Result<Self, Problem> {
        if [Method::CONNECT, Method::TRACE].contains(request.method()) {
            return Err(Problem::MethodNotAllowed);
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (host, None) => host,
            _ => return Err(Problem::BadRequest("there is more than one host")),
        };
        let authority = match (request.uri().authority(), host) {
            // RFC 9112, section 3.2.2: the target of the request goes before `Host`.
            (Some(authority), _) => authority.as_str().to_owned(),
            (None, Some(host)) => {
                let host = host.to_str().unwrap_or_default();
                let valid: Result<Authority, _> = host.parse();
                match valid {
                    Ok(authority) if !authority.as_str().contains('@') => host.to_owned(),
                    _ => return Err(Problem::BadRequest("the host is malformed")),
                }
            }
            (None, None) if request.version() == Version::HTTP_10 => String::new(),
            (None, None) => return Err(Problem::BadRequest("there is no host")),
        };
        let host = authority
            .parse::<Authority>()
            .map(|a| a.host().to_ascii_lowercase())
            .unwrap_or_default();
        let path = path::normalise(request.uri().path())
            .ok_or(Problem::BadRequest("the path is malformed"))?;
        Ok(Self {
            authority,
            host,
            path,
        })
    }
}
