//! Which headers pass.
//!
//! First of all the headers of one hop go (RFC 9110, section 7.6.1), those that `Connection` names
//! included, in both directions. Only then filters and gateway add theirs: so a client cannot have one
//! removed that was added for the service.

use http::header::{
    self, CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, VIA,
};
use std::net::{IpAddr, SocketAddr};

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const PSEUDONYM: &str = "1.1 agent-mesh";

/// Takes the headers of one hop away.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(TRANSFER_ENCODING);
}

/// Takes away what a client's request must not carry further: headers of one hop, `Expect` (the
/// gateway answers it), and names with characters beyond letters, digits, `-` and `_`, which Kong
/// drops too: some servers read them as aliases of other names.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove("http2-settings");
    let odd: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !name.as_str().bytes().all(plain)
        })
        .cloned()
        .collect();
    for name in odd {
        headers.remove(name);
    }
}

/// The way of a request, as the service hears of it.
pub(crate) struct Forwarded<'a> {
    pub client: SocketAddr,
    pub local_port: u16,
    /// The client's host, without port.
    pub host: &'a str,
    /// The client's path, as it was sent.
    pub path: &'a str,
    /// The prefix that was stripped.
    pub prefix: Option<&'a str>,
}

/// Adds where a request came from. Only the list in `X-Forwarded-For` keeps what the client said; the
/// last entry is the one that is true.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, way: &Forwarded<'_>) {
    let client = canonical(way.client.ip());
    let mut chain = Vec::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.as_bytes());
    set(headers, FORWARDED_FOR, &chain);
    set(
        headers,
        HeaderName::from_static("x-real-ip"),
        client.as_bytes(),
    );
    set(
        headers,
        HeaderName::from_static("x-forwarded-proto"),
        b"http",
    );
    set(
        headers,
        HeaderName::from_static("x-forwarded-host"),
        way.host.as_bytes(),
    );
    set(
        headers,
        HeaderName::from_static("x-forwarded-port"),
        way.local_port.to_string().as_bytes(),
    );
    set(
        headers,
        HeaderName::from_static("x-forwarded-path"),
        way.path.as_bytes(),
    );
    match way.prefix {
        Some(prefix) => set(headers, FORWARDED_PREFIX, prefix.as_bytes()),
        None => {
            headers.remove(FORWARDED_PREFIX);
        }
    }
    add_via(headers);
}

/// Adds this gateway to `Via`.
pub(crate) fn add_via(headers: &mut HeaderMap) {
    // A full map has no room for it, and is bounded far below that.
    let _ = headers.try_append(VIA, HeaderValue::from_static(PSEUDONYM));
}

/// Takes away what frames a body: hyper writes that from the body itself.
pub(crate) fn strip_framing(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
}

/// An address in the one form that access lists are written in.
pub(crate) fn canonical(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    match HeaderValue::from_bytes(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        // Never the client's own claim in its place.
        Err(_) => {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn headers_of_one_hop_go() {
        let mut map = headers(&[
            ("connection", "close, X-One ,,\"x\", x-two"),
            ("connection", "x-three"),
            ("x-one", "1"),
            ("X-TWO", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "a"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "a"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "a"),
            ("expect", "100-continue"),
            ("x.mesh.assertion", "a"),
            ("x~a", "a"),
            ("x_kept", "a"),
            ("accept", "a"),
        ]);
        clean_request(&mut map);
        assert_eq!(names(&map), ["x_kept", "accept"]);
    }

    #[test]
    fn the_client_does_not_say_where_it_came_from() {
        let mut map = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "3.3.3.3"),
            ("x-real-ip", "4.4.4.4"),
        ]);
        add_forwarded(
            &mut map,
            &Forwarded {
                client: "[::ffff:127.0.0.9]:1".parse().unwrap(),
                local_port: 10005,
                host: "mesh",
                path: "/a/b",
                prefix: None,
            },
        );
        assert_eq!(map["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 127.0.0.9");
        assert_eq!(map["x-forwarded-host"], "mesh");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-port"], "10005");
        assert_eq!(map["x-forwarded-path"], "/a/b");
        assert_eq!(map["x-real-ip"], "127.0.0.9");
        assert_eq!(map.get_all("x-real-ip").iter().count(), 1);
        assert!(!map.contains_key("x-forwarded-prefix"));
    }
}
