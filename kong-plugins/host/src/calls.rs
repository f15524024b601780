//! What filters ask of other services, and what came back.

use crate::exchange::Head;
use bytes::Bytes;
use http::{HeaderMap, Method};
use std::time::Duration;

/// Calls of one VM that are on their way; a filter has one for each of its few sources.
pub(crate) const MAX_CALLS: usize = 64;

/// An HTTP call that a filter made on its tick.
#[derive(Debug, Clone)]
pub struct Call {
    /// Tells the calls of a VM apart.
    pub(crate) id: u32,
    /// The root context that made it.
    pub(crate) root: u32,
    /// `HOST:PORT` to connect to.
    pub authority: String,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Headers, `host` among them.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// How long it may take; zero means that the caller does not say.
    pub timeout: Duration,
}

/// What became of a [`Call`].
#[derive(Debug)]
pub struct CallAnswer {
    /// `:status` and headers; of a call that failed `:dispatch_status` alone, as Kong has it.
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    /// Headers that the filter is told of; 0 says that the call failed.
    pub(crate) headers: usize,
}

impl CallAnswer {
    /// The service answered.
    pub fn answered(status: http::StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        let mut head = Head {
            headers,
            ..Head::default()
        };
        head.set_pseudo(":status", status.as_str().to_owned());
        let headers = head.len();
        Self {
            head,
            body,
            headers,
        }
    }

    /// It did not: `why` is `broken connection`, `timeout` or `resolver failure`.
    pub fn failed(why: &'static str) -> Self {
        let mut head = Head::default();
        head.set_pseudo(":dispatch_status", why);
        Self {
            head,
            body: Bytes::new(),
            headers: 0,
        }
    }
}
