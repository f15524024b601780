//! Which service a program's request is for, and what of its path is left.
//!
//! In this order: the header that the first path segment `x-mesh-agent` stands for, beside a gateway; the host, of an
//! absolute-form target (the sidecar as an HTTP proxy) or of `Host`; the first path segment, which is taken off. A
//! host names a service as `NAME` or `NAME.mesh`, with or without a port: the second for programs that look a host
//! without a dot up by themselves. `localhost` and addresses name none.

use super::answer::Fault;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName};
use mesh_protocol::assertion::HEADER_AGENT;

/// What may follow a service's name in a host.
const DOMAIN: &str = ".mesh";
/// The header in which a gateway's filter names the agent.
const AGENT: HeaderName = HeaderName::from_static(HEADER_AGENT);

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    /// The service, as it was named; legal as a name.
    pub(crate) service: &'a str,
    /// How much of the path is taken off.
    pub(crate) prefix: usize,
    /// Whether the agent's header names it.
    pub(crate) by_agent_header: bool,
}

/// Finds the service of a request to `target` at `host`.
///
/// # Errors
/// 400 for an agent's header that is missing, there twice or no name; 404 where nothing names a service.
pub(crate) fn route<'a>(
    host: Option<&'a str>,
    target: &'a PathAndQuery,
    headers: &'a HeaderMap,
    by_agent_header: bool,
) -> Result<Route<'a>, Fault> {
    let first = first_segment(target.path());
    if by_agent_header && first == Some(HEADER_AGENT) {
        return Ok(Route {
            service: agent(headers)?,
            prefix: 1 + HEADER_AGENT.len(),
            by_agent_header: true,
        });
    }
    if let Some(service) = host.and_then(of_host) {
        return Ok(Route {
            service,
            prefix: 0,
            by_agent_header: false,
        });
    }
    match first {
        Some(service) if is_name(service) => Ok(Route {
            service,
            prefix: 1 + service.len(),
            by_agent_header: false,
        }),
        other => Err(Fault::UnknownService(shown(other.unwrap_or_default()))),
    }
}

fn agent(headers: &HeaderMap) -> Result<&str, Fault> {
    let mut named = headers.get_all(AGENT).iter();
    let why = match (named.next(), named.next()) {
        (None, _) => "x-mesh-agent is missing",
        (Some(_), Some(_)) => "x-mesh-agent is there twice",
        (Some(name), None) => match name.to_str() {
            Ok(name) if is_name(name) => return Ok(name),
            _ => "x-mesh-agent names no service",
        },
    };
    Err(Fault::BadRequest(why.into()))
}

/// The service that a host names.
fn of_host(host: &str) -> Option<&str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix(DOMAIN).unwrap_or(name);
    (name != "localhost" && is_name(name)).then_some(name)
}

/// Whether it is legal as a name of a service (`config::ServiceName`), without making one.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn first_segment(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    Some(rest.split_once('/').map_or(rest, |(first, _)| first))
}

/// A stranger's text on its way into an answer: not all of it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// The target without the first `prefix` bytes of its path.
pub(crate) fn without(target: &PathAndQuery, prefix: usize) -> Option<PathAndQuery> {
    let rest = target.as_str().get(prefix..)?;
    if rest.starts_with('/') {
        rest.try_into().ok()
    } else {
        format!("/{rest}").try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        host: Option<&str>,
        target: &str,
        by_agent: bool,
        agents: &[&str],
    ) -> Result<(String, String), &'static str> {
        let target: PathAndQuery = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        for agent in agents {
            headers.append(AGENT, agent.parse().unwrap());
        }
        match route(host, &target, &headers, by_agent) {
            Ok(route) => {
                let rest = without(&target, route.prefix).unwrap();
                Ok((route.service.to_owned(), rest.to_string()))
            }
            Err(fault) => Err(fault.reason()),
        }
    }

    #[test]
    fn a_service_is_named_in_one_of_four_ways() {
        for (host, target, service, rest) in [
            (Some("billing"), "/a/b?c=d", "billing", "/a/b?c=d"),
            (Some("billing:80"), "/", "billing", "/"),
            (Some("billing.mesh"), "/x", "billing", "/x"),
            (Some("billing.mesh:8080"), "/x", "billing", "/x"),
            (Some("127.0.0.1:15001"), "/billing/a", "billing", "/a"),
            (Some("localhost:15001"), "/billing/a?b", "billing", "/a?b"),
            (Some("[::1]:15001"), "/billing", "billing", "/"),
            (Some("[::1]"), "/billing?a=/b", "billing", "/?a=/b"),
            (None, "/billing//a", "billing", "//a"),
            (Some("x.example"), "/data-1/", "data-1", "/"),
        ] {
            let expected = Ok((service.to_owned(), rest.to_owned()));
            assert_eq!(
                found(host, target, false, &[]),
                expected,
                "{host:?} {target}"
            );
        }
    }

    #[test]
    fn beside_a_gateway_a_header_names_the_agent() {
        let host = Some("billing");
        let ok = |service: &str, rest: &str| Ok((service.to_owned(), rest.to_owned()));
        assert_eq!(
            found(host, "/x-mesh-agent/process?a", true, &["coder"]),
            ok("coder", "/process?a")
        );
        assert_eq!(
            found(host, "/x-mesh-agent", true, &["coder"]),
            ok("coder", "/")
        );
        assert_eq!(
            found(host, "/x-mesh-agents", true, &["coder"]),
            ok("billing", "/x-mesh-agents")
        );
        assert_eq!(
            found(host, "/x-mesh-agent/a", false, &["coder"]),
            ok("billing", "/x-mesh-agent/a")
        );
        for agents in [&[][..], &["a", "b"], &["A"], &["a.b"], &[""]] {
            assert_eq!(
                found(host, "/x-mesh-agent/a", true, agents),
                Err("bad_request"),
                "{agents:?}"
            );
        }
    }

    #[test]
    fn a_name_as_long_as_the_headers_is_no_agent_of_the_header() {
        let mut headers = HeaderMap::new();
        headers.append(AGENT, "coder".parse().unwrap());
        for (target, by_agent_header) in [("/x-mesh-agent/a", true), ("/orchestrator/a", false)] {
            let target: PathAndQuery = target.parse().unwrap();
            let route = route(None, &target, &headers, true).unwrap();
            assert_eq!(route.prefix, 13);
            assert_eq!(route.by_agent_header, by_agent_header);
        }
    }

    #[test]
    fn what_names_none_is_said_so() {
        for (host, target) in [
            (Some("127.0.0.1:1"), "/"),
            (Some("localhost"), "//billing"),
            (Some("localhost"), "/Billing/a"),
            (Some("-a"), "/.mesh/a"),
            (None, "*"),
        ] {
            assert_eq!(
                found(host, target, false, &[]),
                Err("unknown_service"),
                "{host:?} {target}"
            );
        }
    }
}
