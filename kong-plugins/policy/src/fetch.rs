//! What a filter asks of another service: on its tick, never while a request waits.
//!
//! A filter that needs to know something from elsewhere (keys, usage of other gateways, queue depths)
//! asks for it beforehand and keeps the answer: on a real Kong a call made on a request's way ended in
//! a crash or let the request pass.

use crate::ConfigError;

/// Longest host or token, in bytes.
const MAX_TEXT: usize = 1024;

/// One HTTP call to a service on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Tells the filter's calls apart; while one is on its way, another of its id is not made.
    pub id: u32,
    /// `HOST:PORT` to connect to, an address and no name: gateways resolve names in ways of their own.
    pub authority: String,
    /// Method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Headers; `host` becomes the authority that the service sees.
    pub headers: Vec<(&'static str, String)>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u32,
}

impl Fetch {
    /// `GET path` of the service at `authority`, answered within 5 seconds.
    pub fn get(id: u32, authority: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            id,
            authority: authority.into(),
            method: "GET",
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 5_000,
        }
    }
}

/// A service that is asked again and again: where it is, and what it wants to see.
pub(crate) struct Service {
    authority: String,
    host: String,
    token: String,
}

// Written by hand: the token is a secret.
impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("authority", &self.authority)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Checks what the configuration at `path` says of it. Without a `host` it is the authority; without a
    /// `token` none is sent.
    pub(crate) fn compile(
        authority: &str,
        host: &str,
        token: &str,
        path: &str,
        faults: &mut Vec<ConfigError>,
    ) -> Self {
        if !is_authority(authority) {
            faults.push(ConfigError::new(
                format!("{path}.authority"),
                "must be an address and a port, such as 127.0.0.1:8589; names are not resolved",
            ));
        }
        for (field, text) in [("host", host), ("token", token)] {
            if text.len() > MAX_TEXT || !text.bytes().all(|b| b.is_ascii_graphic()) {
                faults.push(ConfigError::new(
                    format!("{path}.{field}"),
                    format!("at most {MAX_TEXT} printable ASCII characters without spaces"),
                ));
            }
        }
        let host = if host.is_empty() { authority } else { host };
        Self {
            authority: authority.to_owned(),
            host: host.to_owned(),
            token: token.to_owned(),
        }
    }

    /// `GET path` of it; callers change what is otherwise.
    pub(crate) fn get(&self, id: u32, path: &str) -> Fetch {
        let mut fetch = Fetch::get(id, &self.authority, path);
        fetch.headers.push(("host", self.host.clone()));
        if !self.token.is_empty() {
            let bearer = format!("Bearer {}", self.token);
            fetch.headers.push(("authorization", bearer));
        }
        fetch
    }
}

/// What became of a [`Fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The service answered.
    Answer {
        /// HTTP status.
        status: u16,
        /// The whole body.
        body: Vec<u8>,
    },
    /// It did not, or not in time.
    Failed,
}

/// Longest answer that is taken, in bytes; a longer one counts as [`Fetched::Failed`].
pub const MAX_ANSWER: usize = 1 << 20;

/// Whether `text` is an address with a port, as [`Fetch::authority`] must be.
pub fn is_authority(text: &str) -> bool {
    text.parse::<std::net::SocketAddr>()
        .is_ok_and(|address| address.port() != 0)
}
