//! Which headers of a request a program must not see as they came.
//!
//! Servers read names differently: CGI and its heirs take `_`, some also `.` and other signs, for `-`. A header
//! that any of them could read as a reserved one, or as one that this sidecar makes, is dropped, whatever its value.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_protocol::assertion;
use std::collections::BTreeMap;

/// The names that are guarded.
#[derive(Debug)]
pub(super) struct Guarded {
    /// In lower case, with odd characters as `-`.
    names: Box<[Box<[u8]>]>,
    /// Bit n is set when a name has n bytes, the last one also for all that are longer: most headers are passed over
    /// without being compared.
    lengths: u64,
}

/// The assertions that a request brought.
#[derive(Debug)]
pub(super) enum Brought {
    None,
    One(HeaderValue),
    Several,
}

impl Guarded {
    /// Guards the reserved headers and `made`.
    pub(super) fn new<'a>(made: impl Iterator<Item = &'a str>) -> Self {
        let names: Box<[Box<[u8]>]> = [assertion::HEADER, assertion::HEADER_AGENT]
            .into_iter()
            .chain(made)
            .map(|name| name.bytes().map(read).collect())
            .collect();
        let lengths = names
            .iter()
            .fold(0, |set, name| set | length_bit(name.len()));
        Self { names, lengths }
    }

    /// Whether some server may read `name` as a guarded one.
    pub(super) fn guards(&self, name: &str) -> bool {
        self.lengths & length_bit(name.len()) != 0
            && self.names.iter().any(|guarded| {
                guarded.len() == name.len() && name.bytes().map(read).eq(guarded.iter().copied())
            })
    }

    /// Drops every guarded header and alias; the assertion itself stays where `keep` says so.
    pub(super) fn take(&self, headers: &mut HeaderMap, keep: bool) -> Brought {
        let mut there = false;
        // Allocates only when there is something to drop.
        let mut dropped: Vec<HeaderName> = Vec::new();
        for name in headers.keys() {
            if name.as_str() == assertion::HEADER {
                there = true;
            } else if self.guards(name.as_str()) {
                dropped.push(name.clone());
            }
        }
        for name in dropped {
            headers.remove(name);
        }
        if !there {
            return Brought::None;
        }
        let mut values = headers.get_all(assertion::HEADER).iter();
        let brought = match (values.next(), values.next()) {
            (Some(value), None) => Brought::One(value.clone()),
            (None, _) => Brought::None,
            (Some(_), Some(_)) => Brought::Several,
        };
        if !keep || !matches!(brought, Brought::One(_)) {
            headers.remove(assertion::HEADER);
        }
        brought
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// A byte of a name as the most liberal server reads it.
fn read(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// What an identity header holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// The caller.
    Subject,
    /// Who names the caller.
    Origin,
    /// The caller's scopes.
    Scope,
    /// SPIFFE id of the peer.
    Peer,
    /// The service that the peer is.
    PeerService,
    /// A claim that the gateway hands on.
    Named(Box<str>),
}

impl Claim {
    fn new(name: &str) -> Self {
        match name {
            "sub" => Self::Subject,
            "origin" => Self::Origin,
            "scope" => Self::Scope,
            "peer" => Self::Peer,
            "peer_service" => Self::PeerService,
            name => Self::Named(name.into()),
        }
    }

    /// The text in the verified `claims`; `None` where it says nothing, or the certificate says it.
    pub(super) fn of<'a>(&self, claims: &'a assertion::Claims) -> Option<&'a str> {
        let text = match self {
            Self::Subject => &claims.sub,
            Self::Origin => &claims.origin,
            Self::Scope => &claims.scope,
            Self::Named(name) => claims.claims.get(&**name)?,
            Self::Peer | Self::PeerService => return None,
        };
        Some(text.as_str()).filter(|text| !text.is_empty())
    }
}

/// The identity headers that are made.
pub(super) fn made(map: &BTreeMap<String, String>) -> Result<Box<[(HeaderName, Claim)]>, String> {
    map.iter()
        .map(|(header, claim)| {
            let name = HeaderName::try_from(header.as_str())
                .map_err(|_| format!("inbound.identity_headers: `{header}` is no header"))?;
            Ok((name, Claim::new(claim)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded() -> Guarded {
        Guarded::new(["x-user-id", "x.tenant_name"].into_iter())
    }

    #[test]
    fn aliases_are_found_in_any_spelling() {
        let guarded = guarded();
        for name in [
            "x-mesh-assertion",
            "X_Mesh_Assertion",
            "x.mesh!assertion",
            "x-mesh-agent",
            "x_mesh.agent",
            "x-user-id",
            "X_USER_ID",
            "x~user'id",
            "x-tenant-name",
            "x.tenant.name",
        ] {
            assert!(guarded.guards(name), "{name}");
        }
        for name in [
            "x-user-ids",
            "xuserid",
            "x--user-id",
            "user-id",
            "host",
            "x-mesh",
            "",
        ] {
            assert!(!guarded.guards(name), "{name}");
        }
        let long = "x".repeat(80);
        assert!(Guarded::new([long.as_str()].into_iter()).guards(&long.to_uppercase()));
        assert!(!Guarded::new([long.as_str()].into_iter()).guards(&"x".repeat(79)));
    }

    #[test]
    fn the_assertion_is_taken_once_and_aliases_never() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x_mesh_assertion", "alias"),
            ("x-user-id", "root"),
            ("accept", "a"),
        ] {
            headers.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_static(value),
            );
        }
        assert!(matches!(guarded().take(&mut headers, true), Brought::None));
        assert_eq!(headers.len(), 1);
        headers.append("x-mesh-assertion", HeaderValue::from_static("one"));
        assert!(matches!(guarded().take(&mut headers, true), Brought::One(v) if v == "one"));
        assert_eq!(headers["x-mesh-assertion"], "one");
        assert!(matches!(
            guarded().take(&mut headers, false),
            Brought::One(_)
        ));
        assert!(!headers.contains_key("x-mesh-assertion"));
        headers.append("x-mesh-assertion", HeaderValue::from_static("one"));
        headers.append("x-mesh-assertion", HeaderValue::from_static("one"));
        assert!(matches!(
            guarded().take(&mut headers, true),
            Brought::Several
        ));
        assert!(!headers.contains_key("x-mesh-assertion"));
    }
}
