//! Which headers pass.
//!
//! First the headers of one hop go (RFC 9110, section 7.6.1), those that `Connection` names included, in both
//! directions. Only then the sidecar adds its own: so nobody can have one removed that was added. There is no `Via`:
//! the two sidecars of a request stand for a wire, and a program that tells its neighbours from the rest of the world
//! by forwarding headers (the orchestrator does) is to see those of gateways alone.

use super::tunnel;
use http::Version;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};
use http::request::Parts;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What proxies that end TLS say of the client's certificate. Here the certificate says it, to the policy.
const CLIENT_CERTIFICATE: [&str; 4] = [
    "x-forwarded-client-cert",
    "x-client-cert",
    "client-cert",
    "client-cert-chain",
];
/// Longest chain of addresses that is carried on, in bytes: a hop more than any mesh has.
const MAX_FORWARDED_FOR: usize = 1024;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Whether a header is of one hop, or meant for a proxy, whoever sends it.
fn of_one_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "upgrade"
            | "expect"
            | "keep-alive"
            | "transfer-encoding"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings"
    )
}

/// Takes the headers of one hop away; `also` names others that go. One look at each name: mostly nothing goes.
fn strip(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .collect();
        for name in &nominated {
            // Trailers are announced from end to end, and bodies are framed anew all the same.
            if !matches!(name.as_str(), "content-length" | "host") {
                headers.remove(name);
            }
        }
    }
    loop {
        let goes = headers
            .keys()
            .find(|name| of_one_hop(name) || also(name))
            .cloned();
        match goes {
            Some(name) => headers.remove(&name),
            None => return,
        };
    }
}

/// What of one hop a request asks for, which the next hop is to be asked for anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Trailers: gRPC does.
    pub(crate) trailers: bool,
    /// A WebSocket.
    pub(crate) websocket: bool,
}

/// Takes away what a request must not carry further, and says what it asked for.
pub(crate) fn clean_request(parts: &mut Parts, websocket: bool) -> Asked {
    let asked = Asked {
        trailers: parts.headers.get_all(TE).iter().any(|te| {
            let mut codings = te.as_bytes().split(|b| *b == b',');
            codings.any(|c| c.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        }),
        websocket,
    };
    strip(&mut parts.headers, |name| {
        CLIENT_CERTIFICATE.contains(&name.as_str())
    });
    asked
}

/// Takes away what an answer must not carry further.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    strip(headers, |_| false);
}

/// Asks the next hop for what the client asked for.
pub(crate) fn ask(headers: &mut HeaderMap, asked: Asked, version: Version) {
    if asked.websocket {
        tunnel::set(headers);
    } else if asked.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if version == Version::HTTP_11 {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if version == Version::HTTP_11 {
        join_cookies(headers);
    }
    debug_assert!(asked.websocket || !headers.contains_key(UPGRADE));
}

/// HTTP/2 may have each cookie in a field of its own, HTTP/1.1 has one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    // Of values of headers a value is made.
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// The host that a request names, once it is clear which one (RFC 9112, section 3.2).
///
/// # Errors
/// [`Malformed`] for none and for two.
pub(crate) fn host(parts: &Parts) -> Result<Option<&str>, Malformed> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .map(Some)
            .map_err(|_| Malformed("host is no text")),
        (None, _) if parts.version == Version::HTTP_10 => Ok(None),
        (None, _) => Err(Malformed("there is no host")),
        (Some(_), Some(_)) => Err(Malformed("there are two hosts")),
    }
}

/// Says where a request came from. What earlier hops said stays: the peer's certificate vouches for it.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, client: &HeaderValue, host: Option<&str>) {
    if headers.contains_key(&FORWARDED_FOR) {
        let mut chain = Vec::new();
        for value in headers.get_all(&FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(client.as_bytes());
        let chain = HeaderValue::from_bytes(&chain);
        let chain = chain.ok().filter(|c| c.len() <= MAX_FORWARDED_FOR);
        headers.insert(FORWARDED_FOR, chain.unwrap_or_else(|| client.clone()));
    } else {
        headers.insert(FORWARDED_FOR, client.clone());
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("https"));
    if let Some(host) = host.and_then(|h| HeaderValue::from_str(h).ok()) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}
