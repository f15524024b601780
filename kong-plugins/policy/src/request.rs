//! What a decision may read of a request.
//!
//! Values are bytes because clients send what they like, and headers are asked for by name because
//! the whole map cannot be had in every gateway (Kong stops at a hundred).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The gateway could not say what a request holds, so nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway could not read the request")]
pub struct Unreadable;

/// The head of a request: method, path, headers.
pub trait RequestHead {
    /// The values of the header `name` (in lower case), as many of them as the gateway tells.
    ///
    /// Kong tells the first and has refused a second `Authorization` itself; the local gateway tells
    /// them all in one value, joined by `, `; Envoy tells each, and joins those that it knows itself.
    ///
    /// # Errors
    /// [`Unreadable`], which is a reason to refuse.
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable>;

    /// Names of headers with characters beyond letters, digits, `-` and `_`, where the gateway passes them
    /// on. Kong and the local gateway drop them before any filter; Envoy does not.
    ///
    /// # Errors
    /// [`Unreadable`], which is a reason to refuse.
    fn odd_names(&self) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(Vec::new())
    }

    /// The method, as sent.
    ///
    /// # Errors
    /// [`Unreadable`], which is a reason to refuse.
    fn method(&self) -> Result<Vec<u8>, Unreadable>;

    /// The path with its query, as sent.
    ///
    /// # Errors
    /// [`Unreadable`], which is a reason to refuse.
    fn path(&self) -> Result<Vec<u8>, Unreadable>;

    /// The address of the peer that the gateway is connected to.
    ///
    /// # Errors
    /// [`Unreadable`], which is a reason to refuse.
    fn peer(&self) -> Result<IpAddr, Unreadable>;
}

/// A request head in memory, for tests, benchmarks and dry runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryHead {
    method: Vec<u8>,
    path: Vec<u8>,
    headers: BTreeMap<String, Vec<Vec<u8>>>,
    peer: IpAddr,
}

impl MemoryHead {
    /// A request without headers.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            headers: BTreeMap::new(),
            peer: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The same from another peer.
    #[must_use]
    pub fn from(mut self, peer: IpAddr) -> Self {
        self.peer = peer;
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(value.into());
        self
    }
}

impl RequestHead for MemoryHead {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(self.headers.get(name).cloned().unwrap_or_default())
    }

    fn method(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.method.clone())
    }

    fn path(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(self.path.clone())
    }

    fn peer(&self) -> Result<IpAddr, Unreadable> {
        Ok(self.peer)
    }
}
