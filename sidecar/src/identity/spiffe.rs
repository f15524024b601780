//! SPIFFE ids (SPIFFE-ID standard, <https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>), as strict
//! as its text: what two readers could read differently is refused, since the id decides who may call whom.

use crate::config::ServiceName;
use std::fmt;
use std::str::FromStr;

/// Longest id, in bytes (section 2.3).
const MAX_ID: usize = 2048;
/// The namespace of the mesh. Another one of the same Consul has services of the same names, which are not ours.
const NAMESPACE: &str = "default";
/// Longest trust domain, in bytes (section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// A SPIFFE id of a service: `spiffe://<trust domain>/ns/default/dc/<datacentre>/svc/<service>`, Consul's form,
/// or `spiffe://<trust domain>/svc/<service>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The trust domain, in lower case.
    pub trust_domain: String,
    /// The path, which begins with `/`.
    pub path: String,
    /// The service that the path names.
    pub service: ServiceName,
}

/// Why a text is no id of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It is no SPIFFE id at all.
    #[error("not a SPIFFE id: {0}")]
    Malformed(&'static str),
    /// It is one, of something else than a service of this mesh.
    #[error("names no service of this mesh")]
    NoService,
}

impl SpiffeId {
    /// The id that this mesh's own authorities give to `service`.
    pub(crate) fn of(trust_domain: &str, service: &ServiceName) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            path: format!("/ns/{NAMESPACE}/dc/local/svc/{service}"),
            service: service.clone(),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        use SpiffeError::Malformed;
        if text.len() > MAX_ID {
            return Err(Malformed("longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or(Malformed("does not begin with spiffe://"))?;
        let (trust_domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if trust_domain.is_empty() || trust_domain.len() > MAX_TRUST_DOMAIN {
            return Err(Malformed("trust domain must have 1 to 255 bytes"));
        }
        // User information, a port and percent-encoding have characters that are not among these.
        let in_domain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if !trust_domain.bytes().all(in_domain) {
            return Err(Malformed("trust domain has an illegal character"));
        }
        let segments = segments(path)?;
        let name = match segments.as_slice() {
            ["svc", name] | ["ns", NAMESPACE, "dc", _, "svc", name] => name,
            _ => return Err(SpiffeError::NoService),
        };
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            path: path.to_owned(),
            service: name.parse().map_err(|_| SpiffeError::NoService)?,
        })
    }
}

/// The segments of a path; a query, a fragment and percent-encoding have characters that no segment may hold.
fn segments(path: &str) -> Result<Vec<&str>, SpiffeError> {
    use SpiffeError::Malformed;
    let Some(inner) = path.strip_prefix('/') else {
        return Ok(Vec::new());
    };
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let mut segments = Vec::new();
    for segment in inner.split('/') {
        match segment {
            "" => return Err(Malformed("path has an empty segment")),
            "." | ".." => return Err(Malformed("path has a dot segment")),
            _ if !segment.bytes().all(in_segment) => {
                return Err(Malformed("path has an illegal character"));
            }
            _ => segments.push(segment),
        }
    }
    Ok(segments)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(text: &str) {
        let read = text.parse::<SpiffeId>();
        assert!(matches!(read, Err(SpiffeError::Malformed(_))), "{text}");
    }

    #[test]
    fn both_forms_are_read_and_written() {
        for text in [
            "spiffe://mesh.test/svc/a",
            "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/data-processor",
            "spiffe://a_b/ns/default/dc/D_c/svc/a9",
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert!(text.ends_with(id.service.as_str()));
        }
        let own = SpiffeId::of("mesh.test", &"a".parse().unwrap());
        assert_eq!(own.to_string().parse(), Ok(own));
    }

    #[test]
    fn what_is_no_spiffe_id_is_refused() {
        for text in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///svc/a",
            "https://mesh.test/svc/a",
            "SPIFFE://mesh.test/svc/a",
            "spiffe://Mesh.test/svc/a",
            "spiffe://mesh.test:443/svc/a",
            "spiffe://u@mesh.test/svc/a",
            "spiffe://mesh%2etest/svc/a",
            "spiffe://mesh.test?q/svc/a",
            "spiffe://mesh.test/svc/a?q",
            "spiffe://mesh.test/svc/a#f",
            "spiffe://mesh.test/svc/%61",
            "spiffe://mesh.test/svc/a/",
            "spiffe://mesh.test//svc/a",
            "spiffe://mesh.test/x/../svc/a",
            "spiffe://mesh.test/./svc/a",
            "spiffe://mesh.test/svc/a\0",
            "spiffe://mesh.test/svc/ä",
            "spiffe://[::1]/svc/a",
        ] {
            malformed(text);
        }
        malformed(&format!("spiffe://{}/svc/a", "a".repeat(256)));
        malformed(&format!("spiffe://a/{}", "a".repeat(2048)));
    }

    #[test]
    fn what_is_no_service_is_said_so() {
        for path in [
            "",
            "/a",
            "/svc",
            "/svc/svc/a",
            "/x/svc/a",
            "/ns/default/dc/dc1/svc/a/svc/b",
            "/ns/default/svc/a",
            "/ns/other/dc/dc1/svc/a",
            "/agent/client/dc/dc1/id/a",
            "/ap/default/ns/default/dc/dc1/svc/a",
            "/svc/A",
            "/svc/-a",
            "/svc/a.b",
        ] {
            let read = format!("spiffe://mesh.test{path}").parse::<SpiffeId>();
            assert_eq!(read, Err(SpiffeError::NoService), "{path}");
        }
    }
}
