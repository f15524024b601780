//! Who this service is, and whom it believes: certificates that renew themselves, and mTLS made of them.

use crate::config::ServiceName;
use std::fmt;

/// A SPIFFE id of a service (<https://spiffe.io>, SPIFFE-ID standard): `spiffe://<trust domain>/…/svc/<service>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The trust domain, in lower case.
    pub trust_domain: String,
    /// The path, which begins with `/`.
    pub path: String,
    /// The service that the path names.
    pub service: ServiceName,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}
