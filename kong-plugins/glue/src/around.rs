//! The request in hand and the gateway around it, asked of the host call by call.

use crate::headers::Headers;
use crate::host::{self, Gateway};
use mesh_policy::host::{self as shared, Swapped, Unshared, Version};
use mesh_policy::{Host, RequestHead, Unreadable};
use std::cell::{Cell, OnceCell};
use std::net::IpAddr;

const LENGTH: &str = "content-length";

/// The request that the host's current call is about, and the gateway that makes the call.
pub(crate) struct Around {
    /// None where it has not been found out, since no request has come.
    gateway: Option<Gateway>,
    /// One callback is one moment.
    now_ns: Cell<Option<u64>>,
    /// In Envoy, all headers; filters change them only once they have decided.
    headers: OnceCell<Option<Headers>>,
    /// Elsewhere this one, which policies ask for as well as the glue.
    length: OnceCell<Result<Option<Vec<u8>>, Unreadable>>,
}

impl Around {
    pub(crate) fn new(gateway: Option<Gateway>) -> Self {
        Self {
            gateway,
            now_ns: Cell::new(None),
            headers: OnceCell::new(),
            length: OnceCell::new(),
        }
    }

    /// All headers, where they may be asked for.
    fn headers(&self) -> Result<Option<&Headers>, Unreadable> {
        match self.gateway {
            Some(Gateway::Envoy) => {
                let headers = self.headers.get_or_init(|| host::request_headers().ok());
                headers.as_ref().map(Some).ok_or(Unreadable)
            }
            _ => Ok(None),
        }
    }

    /// Whether the request's body is to come in a callback of its own. Kong calls none for a request
    /// without a body, and never says so before.
    pub(crate) fn body_comes(&self, end_of_stream: bool) -> bool {
        if end_of_stream || self.must_wait_for_body() {
            return !end_of_stream;
        }
        match self.length() {
            Ok(Some(length)) => length != b"0",
            // Without either it may be a body of HTTP/2 that does not say its length: it counts as none,
            // so that nothing passes that nobody looked at.
            Ok(None) => matches!(host::request_header("transfer-encoding"), Ok(Some(_))),
            Err(Unreadable) => false,
        }
    }

    fn length(&self) -> &Result<Option<Vec<u8>>, Unreadable> {
        let length = &self.length;
        length.get_or_init(|| host::request_header(LENGTH))
    }

    /// Whether the gateway sends a request on unless it is held until its body is there.
    pub(crate) fn must_wait_for_body(&self) -> bool {
        self.gateway.is_some_and(Gateway::must_wait_for_body)
    }
}

impl RequestHead for Around {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        match self.headers()? {
            Some(headers) => Ok(headers.values(name)),
            None if name == LENGTH => Ok(self.length().clone()?.into_iter().collect()),
            None => Ok(host::request_header(name)?.into_iter().collect()),
        }
    }

    fn odd_names(&self) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(self.headers()?.map_or_else(Vec::new, Headers::odd_names))
    }

    fn method(&self) -> Result<Vec<u8>, Unreadable> {
        host::request_header(":method")?.ok_or(Unreadable)
    }

    fn path(&self) -> Result<Vec<u8>, Unreadable> {
        host::request_header(":path")?.ok_or(Unreadable)
    }

    fn peer(&self) -> Result<IpAddr, Unreadable> {
        host::peer().ok_or(Unreadable)
    }
}

impl Host for Around {
    fn now_ns(&self) -> Result<u64, Unreadable> {
        if let Some(now_ns) = self.now_ns.get() {
            return Ok(now_ns);
        }
        let now_ns = host::now_ns().ok_or(Unreadable)?;
        self.now_ns.set(Some(now_ns));
        Ok(now_ns)
    }

    fn cell(&self, key: &str) -> Result<Option<(shared::Cell, Version)>, Unshared> {
        host::cell(key)
    }

    fn swap(
        &self,
        key: &str,
        cell: shared::Cell,
        seen: Option<Version>,
    ) -> Result<Swapped, Unshared> {
        let gateway = match self.gateway {
            Some(gateway) => gateway,
            None => Gateway::of_shared_data().ok_or(Unshared)?,
        };
        host::swap(gateway, key, cell, seen)
    }

    fn random(&self) -> Result<[u8; 16], Unreadable> {
        host::random().ok_or(Unreadable)
    }

    fn found(&self, name: &str) -> Option<Vec<u8>> {
        host::found(self.gateway?, name)
    }
}
