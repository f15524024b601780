//! The answer of a filter.

use super::{ENV, headers, pairs};
use crate::error::forbidden;
use crate::exchange::LocalResponse;
use crate::state::{State, Status, read};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use wasmtime::{Caller, Linker};

/// What the SDK sends when it means no gRPC status.
const NO_GRPC_STATUS: i32 = -1;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_send_local_response", send)?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn send(
    mut caller: Caller<'_, State>,
    status: u32,
    _details: u32,
    _details_size: u32,
    body: u32,
    body_size: u32,
    map: u32,
    map_size: u32,
    grpc_status: i32,
) -> wasmtime::Result<u32> {
    let phase = caller.data().phase;
    if !phase.is_request() && !phase.is_response() {
        return Ok(Status::BadArgument as u32);
    }
    if grpc_status != NO_GRPC_STATUS {
        return forbidden("a grpc answer is not supported");
    }
    // Informational statuses end no exchange.
    let status = u16::try_from(status)
        .ok()
        .filter(|s| (200..=599).contains(s))
        .and_then(|s| StatusCode::from_u16(s).ok());
    let Some(status) = status else {
        return forbidden("an answer has no final status");
    };
    let body = Bytes::copy_from_slice(read(&caller, body, body_size)?);
    let Some(pairs) = pairs::decode(read(&caller, map, map_size)?) else {
        return forbidden("a header map is malformed");
    };
    let mut all = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        if !headers::append(&mut all, name, value) {
            return forbidden("an answer has a header that cannot be sent");
        }
    }
    caller.data_mut().local_response = Some(LocalResponse {
        status,
        headers: all,
        body,
    });
    Ok(Status::Ok as u32)
}
