//! Names of services.

use mesh_protocol::AgentId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Name of a service of the mesh: an agent's id, `gateway` or `orchestrator`. A DNS label, since it stands in
/// certificates, hosts and paths: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// Why a text is no name of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no service: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
)]
pub struct NameError(String);

impl ServiceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as an agent's id; every name is one.
    pub(crate) fn agent(&self) -> Option<AgentId> {
        self.0.parse().ok()
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let end =
            |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let legal = bytes.len() <= 63
            && end(bytes.first().copied())
            && end(bytes.last().copied())
            && bytes.iter().copied().all(inner);
        if legal {
            return Ok(Self(text.to_owned()));
        }
        // A stranger's text goes into a log: not all of it.
        Err(NameError(
            text.chars().filter(|c| !c.is_control()).take(64).collect(),
        ))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl std::convert::From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}

impl std::convert::From<&AgentId> for ServiceName {
    fn from(agent: &AgentId) -> Self {
        Self(agent.as_str().to_owned())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
