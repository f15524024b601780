//! Who is calling: someone on this machine, or someone a gateway vouches for.
//!
//! A request is local when it comes from loopback and shows no trace of having come from elsewhere:
//! no forwarding header (a gateway on this machine adds them), no `Origin` (a page in a browser on
//! this machine is somebody else's code), and a `Host` that is this machine by name (a page that
//! made its own name point here does not have that). Local requests need nothing, as in the plan.
//! All others need exactly one assertion, and so does a local one that brings any.

use super::Api;
use super::failure::Failure;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Uri, header};
use mesh_protocol::AgentId;
use mesh_protocol::assertion::{self, AssertionError, Claims};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::planner::Originator;
use crate::store::Owner;

/// Header in which the sidecar beside this orchestrator says which service is calling, by its certificate. It drops
/// whatever a request brings under this name.
pub const HEADER_PEER: &str = "x-mesh-peer-service";
/// Who names the services that call by themselves, as the origin of what they submit.
const ORIGIN_PEERS: &str = "mesh";

/// Scope that lets a caller look at everybody's tasks.
const SCOPE_READ_ALL: &str = "tasks:read-all";

/// Who is calling.
#[derive(Debug, Clone, PartialEq)]
pub enum Caller {
    /// Someone on this machine.
    Local,
    /// Someone a gateway vouches for, and the assertion as it came.
    Asserted {
        /// What the gateway says.
        claims: Box<Claims>,
        /// What it wrote.
        assertion: String,
    },
    /// A service of this mesh, by its certificate.
    Peer(AgentId),
}

impl Caller {
    /// Whose tasks this caller submits; nobody's when local.
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Self::Local => None,
            Self::Asserted { claims, .. } => Some(Owner {
                origin: claims.origin.clone(),
                sub: claims.sub.clone(),
            }),
            Self::Peer(service) => Some(Owner {
                origin: ORIGIN_PEERS.to_owned(),
                sub: service.to_string(),
            }),
        }
    }

    /// On whose behalf plans for this caller's tasks are made.
    pub fn originator(&self) -> Originator {
        Originator {
            owner: self.owner(),
            claims: match self {
                Self::Asserted { claims, .. } => Some((**claims).clone()),
                Self::Local | Self::Peer(_) => None,
            },
        }
    }

    /// Whether the caller may speak for `agent`: it is the agent, or someone on this machine.
    pub fn may_be(&self, agent: &AgentId) -> bool {
        match self {
            Self::Local => true,
            Self::Asserted { claims, .. } => claims.sub == agent.as_str(),
            Self::Peer(service) => service == agent,
        }
    }

    /// Whether the caller may change a task of `owner`.
    pub fn may_change(&self, owner: Option<&Owner>) -> bool {
        match self {
            Self::Local => true,
            Self::Asserted { claims, .. } => {
                owner.is_some_and(|o| o.origin == claims.origin && o.sub == claims.sub)
            }
            Self::Peer(_) => owner.is_some() && self.owner().as_ref() == owner,
        }
    }

    /// Whether the caller may look at a task of `owner`.
    pub fn may_read(&self, owner: Option<&Owner>) -> bool {
        self.reads_all() || self.may_change(owner)
    }

    /// Whether the caller may look at everybody's tasks.
    pub fn reads_all(&self) -> bool {
        self.has_scope(SCOPE_READ_ALL)
    }

    /// Whether the caller may do what `wanted` allows; on this machine all of it.
    pub fn has_scope(&self, wanted: &str) -> bool {
        match self {
            Self::Local => true,
            Self::Asserted { claims, .. } => claims.scope.split(' ').any(|s| s == wanted),
            Self::Peer(_) => false,
        }
    }
}

/// Whether a request from `peer` comes from this machine and from nowhere before it.
pub fn is_local(peer: SocketAddr, headers: &HeaderMap, uri: &Uri) -> bool {
    let forwarded = headers.keys().any(|name| {
        let name = name.as_str();
        matches!(name, "forwarded" | "x-real-ip" | "via" | "origin")
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-kong-")
    });
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => uri.authority().map(http::uri::Authority::as_str),
        (Some(host), None) => host.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    peer.ip().to_canonical().is_loopback()
        && !forwarded
        && host.is_some_and(is_local_host)
        && uri.authority().is_none_or(|a| is_local_host(a.as_str()))
}

/// Whether `host` (with or without a port) names this machine without a look-up.
fn is_local_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Finds out who is calling and hands it on as an extension; refuses who is nobody.
pub async fn identify(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0);
    match who(&api, peer, request.headers(), request.uri()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

fn who(
    api: &Api,
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Caller, Failure> {
    let mut assertions = headers.get_all(assertion::HEADER).iter();
    match (assertions.next(), assertions.next()) {
        (None, _) if headers.contains_key(HEADER_PEER) => {
            let by_certificate = peer.filter(|_| api.peers_by_certificate);
            let service = by_certificate.and_then(|peer| service(peer, headers, uri));
            service.map(Caller::Peer).ok_or_else(|| {
                Failure::unauthenticated(
                    "only the sidecar beside the orchestrator says which service is calling",
                )
            })
        }
        (None, _) if peer.is_some_and(|p| is_local(p, headers, uri)) => Ok(Caller::Local),
        (None, _) => Err(Failure::unauthenticated(
            "requests from elsewhere come through a gateway of this mesh",
        )),
        (Some(_), Some(_)) => Err(Failure::unauthenticated("there are two assertions")),
        (Some(value), None) => {
            let text = value
                .to_str()
                .map_err(|_| Failure::unauthenticated("assertion is malformed"))?;
            api.submissions.asserted(text).map_err(refusal)
        }
    }
}

fn refusal(error: AssertionError) -> Failure {
    match error {
        // Everything else about it is right. It lives a minute, so mostly the clocks differ, which is nothing that
        // the client could mend with another token: it may pass when they are set.
        AssertionError::Expired => Failure::unavailable(
            "the gateway's assertion is outside its time here: the clocks of gateway and orchestrator differ",
        ),
        error => Failure::unauthenticated(error.to_string()),
    }
}

/// The service that the sidecar beside this orchestrator names. It comes from this machine, adds where the request
/// came from, and puts the orchestrator's own address as the host; what else a gateway or a browser adds is not there.
pub(super) fn service(peer: SocketAddr, headers: &HeaderMap, uri: &Uri) -> Option<AgentId> {
    let mut plain = headers.clone();
    for added in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"] {
        plain.remove(added);
    }
    if !is_local(peer, &plain, uri) {
        return None;
    }
    let mut named = headers.get_all(HEADER_PEER).iter();
    match (named.next(), named.next()) {
        (Some(name), None) => name.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn local(peer: &str, headers: &[(&str, &str)]) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
            .collect();
        is_local(peer.parse().unwrap(), &headers, &"/tasks".parse().unwrap())
    }

    #[test]
    fn a_plain_call_on_this_machine_is_local() {
        for (peer, host) in [
            ("127.0.0.1:5", "127.0.0.1:8589"),
            ("127.0.0.9:5", "localhost"),
            ("[::1]:5", "[::1]:8589"),
            ("[::ffff:127.0.0.1]:5", "LOCALHOST:8589"),
        ] {
            assert!(local(peer, &[("host", host)]), "{peer} {host}");
        }
    }

    #[test]
    fn whatever_came_from_elsewhere_is_not() {
        let host = ("host", "127.0.0.1:8589");
        assert!(!local("10.0.0.1:5", &[host]));
        assert!(!local("127.0.0.1:5", &[]));
        for header in [
            ("x-forwarded-for", "127.0.0.1"),
            ("X-Forwarded-Anything", ""),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("via", "1.1 kong"),
            ("x-kong-request-id", "1"),
            ("origin", "http://127.0.0.1:8589"),
        ] {
            assert!(!local("127.0.0.1:5", &[host, header]), "{header:?}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "user@localhost",
            "",
            "0.0.0.0",
        ] {
            assert!(!local("127.0.0.1:5", &[("host", name)]), "{name:?}");
        }
    }

    #[test]
    fn a_service_is_named_by_the_sidecar_alone() {
        let named = |peer: &str, more: &[(&str, &str)]| {
            let own = [("host", "127.0.0.1:8589"), ("x-forwarded-for", "10.0.0.1")];
            let mut headers = HeaderMap::new();
            for (name, value) in own.iter().chain(more) {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            service(peer.parse().unwrap(), &headers, &"/ws/a".parse().unwrap())
        };
        let a = ("x-mesh-peer-service", "a");
        assert_eq!(named("127.0.0.1:5", &[a]), Some("a".parse().unwrap()));
        assert_eq!(named("10.0.0.1:5", &[a]), None);
        assert_eq!(named("127.0.0.1:5", &[]), None);
        for more in [
            a,
            ("via", "1.1 kong"),
            ("origin", "http://127.0.0.1:8589"),
            ("x-kong-request-id", "1"),
            ("host", "evil.example"),
        ] {
            assert_eq!(named("127.0.0.1:5", &[a, more]), None, "{more:?}");
        }
        assert_eq!(
            named("127.0.0.1:5", &[("x-mesh-peer-service", "../a")]),
            None
        );
    }

    #[test]
    fn two_hosts_are_nobodys() {
        let mut headers = HeaderMap::new();
        headers.append("host", "localhost".parse().unwrap());
        headers.append("host", "evil.example".parse().unwrap());
        let peer = "127.0.0.1:5".parse().unwrap();
        assert!(!is_local(peer, &headers, &"/".parse().unwrap()));
        headers.clear();
        let uri = "http://evil.example/".parse().unwrap();
        headers.append("host", "localhost".parse().unwrap());
        assert!(!is_local(peer, &headers, &uri));
    }
}
