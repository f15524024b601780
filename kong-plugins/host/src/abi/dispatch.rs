//! HTTP calls that a filter makes on its tick.
//!
//! They leave the VM as a list ([`crate::Vm::take_calls`]); whoever runs it makes them and brings back
//! what became of them. On a request's way there are none: a real Kong crashed on such a call, or let the
//! request pass unfiltered when its answer could not be read.

use super::{ENV, pairs};
use crate::calls::{Call, MAX_CALLS};
use crate::error::{forbidden, unsupported};
use crate::state::{Phase, State, Status, read, read_text, write_u32};
use bytes::Bytes;
use std::time::Duration;
use wasmtime::{Caller, Linker};

/// Largest body of a call, in bytes.
const MAX_BODY: u32 = 1 << 20;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_http_call", call)?;
    Ok(())
}

#[allow(clippy::too_many_arguments)] // as many as the ABI has
fn call(
    mut caller: Caller<'_, State>,
    authority: u32,
    authority_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    _trailers: u32,
    trailers_size: u32,
    timeout_ms: u32,
    return_id: u32,
) -> wasmtime::Result<u32> {
    if !matches!(caller.data().phase, Phase::Tick | Phase::CallResponse) {
        return unsupported("proxy_http_call outside of a tick");
    }
    if trailers_size > 4 {
        return unsupported("proxy_http_call with trailers");
    }
    if body_size > MAX_BODY {
        return forbidden("the body of a call is too large");
    }
    let authority = read_text(&caller, authority, authority_size)?;
    let Some(pairs) = pairs::decode(read(&caller, headers, headers_size)?) else {
        return forbidden("a header map is malformed");
    };
    let Some((method, path, headers)) = head(&pairs) else {
        return Ok(Status::BadArgument as u32);
    };
    let body = Bytes::copy_from_slice(read(&caller, body, body_size)?);
    let state = caller.data_mut();
    if state.calls_open >= MAX_CALLS {
        return Ok(Status::InternalFailure as u32);
    }
    // Wraps after four billion calls, of which a handful are open.
    state.last_call = state.last_call.wrapping_add(1);
    let id = state.last_call;
    state.calls_open += 1;
    let root = state.current;
    state.calls.push(Call {
        id,
        root,
        authority,
        method,
        path,
        headers,
        body,
        timeout: Duration::from_millis(timeout_ms.into()),
    });
    write_u32(&mut caller, return_id, id)?;
    Ok(Status::Ok as u32)
}

/// Method, path and headers; none where one of them cannot be sent.
fn head(pairs: &[(&[u8], &[u8])]) -> Option<(http::Method, String, http::HeaderMap)> {
    let (mut method, mut path) = (None, None);
    let mut headers = http::HeaderMap::new();
    for (name, value) in pairs {
        match *name {
            b":method" => method = http::Method::from_bytes(value).ok(),
            b":path" => path = String::from_utf8(value.to_vec()).ok(),
            b":authority" => {
                let value = http::HeaderValue::from_bytes(value).ok()?;
                headers.insert(http::header::HOST, value);
            }
            name if name.starts_with(b":") => {}
            name => {
                if !super::headers::append(&mut headers, name, value) {
                    return None;
                }
            }
        }
    }
    Some((method?, path?, headers))
}
