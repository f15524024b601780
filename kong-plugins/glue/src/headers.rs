//! The head of the request in hand, asked of the host name by name.

use crate::host;
use mesh_policy::{RequestHead, Unreadable};

/// The request that the host's current call is about.
pub(crate) struct Head;

impl RequestHead for Head {
    fn header(&self, name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        Ok(host::request_header(name)?.into_iter().collect())
    }

    fn method(&self) -> Result<Vec<u8>, Unreadable> {
        host::request_header(":method")?.ok_or(Unreadable)
    }

    fn path(&self) -> Result<Vec<u8>, Unreadable> {
        host::request_header(":path")?.ok_or(Unreadable)
    }
}
