//! Which way a request takes: the gateway's routes and the `agent_router` filter.
//!
//! An input is a request's head as in HTTP/1.1, without the version: `GET /path`, then a header a line.

use crate::refusal::passed;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use mesh_declarative::{Config, normalise};
use mesh_gateway::fuzzing::{Found, Routes};
use mesh_policy::config::AgentRouter;
use mesh_policy::host::MemoryHost;
use mesh_policy::{Filter, Pass, RequestHead, Timestamp, Unreadable, routing};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

const KONG: &str = include_str!("route/kong.yml");
const AGENTS: &str = include_str!("route/agent_router.json");

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let config = Config::from_yaml(KONG).expect("kong.yml is good");
    Routes::read(&config).expect("kong.yml can be run")
});

/// Paths have one form, in the gateway and in the filter; nobody gets another route or another agent by
/// another spelling of a path; what the service receives is a path.
pub fn route(data: &[u8]) -> bool {
    let mut lines = data.split(|b| *b == b'\n');
    let mut first = lines.next().unwrap_or_default().splitn(2, |b| *b == b' ');
    let (method, target) = (
        first.next().unwrap_or_default(),
        first.next().unwrap_or_default(),
    );
    let plain = mesh_policy::path::plain(target);
    assert_eq!(mesh_policy::path::plain(&plain), plain, "there is one form");
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else {
        return false;
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for line in lines {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            // A map that is full takes no more.
            let _ = request.headers_mut().try_append(name, value);
        }
    }
    let Ok((path, found)) = ROUTES.find(&request) else {
        return false;
    };
    assert_eq!(normalise(&path).as_ref(), Some(&path), "there is one form");
    let sent = request.uri().path();
    let filter = mesh_policy::path::plain(sent.as_bytes());
    assert_eq!(String::from_utf8_lossy(&filter), path, "of {sent}");
    if let Some(found) = &found {
        check(found, &path);
    }
    let agent = agent(&request, sent);
    let spelled = spelled(&path);
    for other in [path.as_str(), spelled.as_str()] {
        assert_eq!(self::agent(&request, other), agent, "{sent} as {other}");
        if let Some(uri) = with_path(request.uri(), other) {
            let mut request = request.clone();
            *request.uri_mut() = uri;
            let again = ROUTES.find(&request).expect("the same request");
            assert_eq!(again, (path.clone(), found.clone()), "{sent} as {other}");
        }
    }
    found.is_some()
}

fn check(found: &Found, path: &str) {
    assert!(path.starts_with(&found.prefix), "{found:?} of {path}");
    for base in ["", "/base", "/base/"] {
        for strip in [true, false] {
            let service = found.service_path(base, path, strip);
            let begins =
                service.starts_with('/') && service.starts_with(base.trim_end_matches('/'));
            assert!(begins, "{service}");
            let end = if strip {
                path.get(found.prefix.len()..).unwrap_or_default()
            } else {
                path
            };
            assert!(service.ends_with(end) || end == "/", "{service} of {path}");
        }
    }
}

/// Another spelling of a path in its one form.
fn spelled(path: &str) -> String {
    let mut out = String::from("/./");
    let mut rest = path.strip_prefix('/').unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        match c {
            // What is escaped in the one form stays escaped.
            '%' => out.extend(std::iter::once('%').chain(rest.by_ref().take(2))),
            c if c.is_ascii_alphanumeric() => out.push_str(&format!("%{:02x}", u32::from(c))),
            '/' => out.push_str("//x/../"),
            c => out.push(c),
        }
    }
    out
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// What the filter decides on the request with another path.
fn agent(request: &Request<()>, path: &str) -> Option<Pass> {
    let config: AgentRouter = serde_json::from_str(AGENTS).expect("the configuration is good");
    let policy = routing::compile(&config).expect("the configuration is good");
    let host = MemoryHost::at(Timestamp::from_millis(1));
    let mut kept = routing::Request::default();
    let head = Sent { request, path };
    let pass = passed(policy.decide(&mut kept, &head, &host))?;
    if policy.wants_body(&kept) {
        return passed(policy.decide_body(&mut kept, Some(br#"{"task":"qa"}"#), &host));
    }
    Some(pass)
}

/// A request as a gateway shows it.
struct Sent<'a> {
    request: &'a Request<()>,
    path: &'a str,
}

impl RequestHead for Sent<'_> {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        let values = self.request.headers().get_all(name).iter();
        Ok(values.map(|value| value.as_bytes().to_vec()).collect())
    }

    fn method(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.request.method().as_str().into())
    }

    fn path(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.path.into())
    }

    fn peer(&self) -> Result<IpAddr, Unreadable> {
        Ok(Ipv4Addr::LOCALHOST.into())
    }
}
