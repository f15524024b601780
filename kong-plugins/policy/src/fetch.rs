//! What a filter asks of another service: on its tick, never while a request waits.
//!
//! A filter that needs to know something from elsewhere (keys, usage of other gateways, queue depths)
//! asks for it beforehand and keeps the answer: on a real Kong a call made on a request's way ended in
//! a crash or let the request pass.

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
