//! The request in hand and the gateway around it, asked of the host call by call.

use crate::host::{self, Gateway};
use mesh_policy::host::{Cell, Swapped, Unshared, Version};
use mesh_policy::{Host, RequestHead, Unreadable};
use std::net::IpAddr;

/// The request that the host's current call is about, and the gateway that makes the call.
pub(crate) struct Around {
    pub(crate) gateway: Gateway,
}

impl RequestHead for Around {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(host::request_header(name)?.into_iter().collect())
    }

    fn odd_names(&self) -> Result<Vec<Vec<u8>>, Unreadable> {
        match self.gateway {
            Gateway::Kong => Ok(Vec::new()),
            Gateway::Envoy => host::odd_request_headers(),
        }
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
        host::now_ns().ok_or(Unreadable)
    }

    fn cell(&self, key: &str) -> Result<Option<(Cell, Version)>, Unshared> {
        host::cell(key)
    }

    fn swap(&self, key: &str, cell: Cell, seen: Option<Version>) -> Result<Swapped, Unshared> {
        host::swap(self.gateway, key, cell, seen)
    }

    fn found(&self, name: &str) -> Option<Vec<u8>> {
        host::found(self.gateway, name)
    }
}
