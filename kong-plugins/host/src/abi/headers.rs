//! Header maps.
//!
//! Values are bytes and stay as they are. Of a header that came several times, a filter reads all
//! values, joined as RFC 9110, section 5.3, joins them: who looks for one token and finds two notices.
//! What is set replaces every occurrence, what is removed is gone.

use super::{ENV, pairs};
use crate::error::forbidden;
use crate::exchange::Head;
use crate::state::{Phase, State, Status, hand_over, read, write_u32};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use wasmtime::{Caller, Linker};

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const CALL_RESPONSE_HEADERS: u32 = 6;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_get_header_map_size", get_size)?;
    linker.func_wrap(ENV, "proxy_get_header_map_pairs", get_pairs)?;
    linker.func_wrap(ENV, "proxy_set_header_map_pairs", set_pairs)?;
    linker.func_wrap(ENV, "proxy_get_header_map_value", get)?;
    linker.func_wrap(ENV, "proxy_replace_header_map_value", replace)?;
    linker.func_wrap(ENV, "proxy_add_header_map_value", add)?;
    linker.func_wrap(ENV, "proxy_remove_header_map_value", remove)?;
    Ok(())
}

/// The map, if this phase has it.
fn readable(state: &State, map: u32) -> Option<&Head> {
    match (map, state.phase) {
        (CALL_RESPONSE_HEADERS, _) => state.call_answer.as_ref().map(|answer| &answer.head),
        (_, phase) if phase.is_apart() => None,
        (REQUEST_HEADERS, _) => Some(&state.exchange.request),
        (RESPONSE_HEADERS, phase) if !phase.is_request() => Some(&state.exchange.response),
        _ => None,
    }
}

/// The map, if a change in this phase still has an effect.
fn writable(state: &mut State, map: u32) -> Option<&mut Head> {
    match map {
        REQUEST_HEADERS if state.phase.is_request() => Some(&mut state.exchange.request),
        RESPONSE_HEADERS if state.phase == Phase::ResponseHeaders => {
            Some(&mut state.exchange.response)
        }
        _ => None,
    }
}

fn all(head: &Head) -> Vec<(&[u8], &[u8])> {
    let pseudo = head.pseudo.iter().map(|(n, v)| (n.as_bytes(), v.as_ref()));
    let headers = &head.headers;
    let headers = headers
        .iter()
        .map(|(n, v)| (n.as_str().as_bytes(), v.as_bytes()));
    pseudo.chain(headers).collect()
}

fn get_size(mut caller: Caller<'_, State>, map: u32, return_size: u32) -> wasmtime::Result<u32> {
    let Some(head) = readable(caller.data(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let size: usize = all(head).iter().map(|(n, v)| n.len() + v.len()).sum();
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    write_u32(&mut caller, return_size, size)?;
    Ok(Status::Ok as u32)
}

fn get_pairs(
    mut caller: Caller<'_, State>,
    map: u32,
    return_data: u32,
    return_size: u32,
) -> wasmtime::Result<u32> {
    let Some(head) = readable(caller.data(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let encoded = pairs::encode(&all(head));
    hand_over(&mut caller, &encoded, return_data, return_size)?;
    Ok(Status::Ok as u32)
}

fn set_pairs(
    mut caller: Caller<'_, State>,
    map: u32,
    data: u32,
    size: u32,
) -> wasmtime::Result<u32> {
    let bytes = read(&caller, data, size)?.to_vec();
    let Some(pairs) = pairs::decode(&bytes) else {
        return forbidden("a header map is malformed");
    };
    let Some(head) = writable(caller.data_mut(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        if name.starts_with(b":") {
            if !set_pseudo(head, name, value) {
                return Ok(Status::BadArgument as u32);
            }
        } else if !append(&mut headers, name, value) {
            return Ok(Status::BadArgument as u32);
        }
    }
    head.headers = headers;
    Ok(Status::Ok as u32)
}

fn get(
    mut caller: Caller<'_, State>,
    map: u32,
    name: u32,
    name_size: u32,
    return_data: u32,
    return_size: u32,
) -> wasmtime::Result<u32> {
    let name = read(&caller, name, name_size)?;
    let Some(head) = readable(caller.data(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let Some(value) = value_of(head, name) else {
        return Ok(Status::NotFound as u32);
    };
    hand_over(&mut caller, &value, return_data, return_size)?;
    Ok(Status::Ok as u32)
}

fn value_of(head: &Head, name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b":") {
        let name = std::str::from_utf8(name).ok()?;
        return head.pseudo(name).map(|v| v.to_vec());
    }
    let name = HeaderName::from_bytes(name).ok()?;
    let mut values = head.headers.get_all(&name).iter();
    let mut joined = values.next()?.as_bytes().to_vec();
    let separator: &[u8] = if name == http::header::COOKIE {
        b"; "
    } else {
        b", "
    };
    for value in values {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

fn replace(
    mut caller: Caller<'_, State>,
    map: u32,
    name: u32,
    name_size: u32,
    value: u32,
    value_size: u32,
) -> wasmtime::Result<u32> {
    let name = read(&caller, name, name_size)?.to_vec();
    let value = read(&caller, value, value_size)?.to_vec();
    let Some(head) = writable(caller.data_mut(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let done = if name.starts_with(b":") {
        set_pseudo(head, &name, &value)
    } else {
        insert(&mut head.headers, &name, &value)
    };
    Ok(status(done))
}

fn add(
    mut caller: Caller<'_, State>,
    map: u32,
    name: u32,
    name_size: u32,
    value: u32,
    value_size: u32,
) -> wasmtime::Result<u32> {
    let name = read(&caller, name, name_size)?.to_vec();
    let value = read(&caller, value, value_size)?.to_vec();
    let Some(head) = writable(caller.data_mut(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    Ok(status(append(&mut head.headers, &name, &value)))
}

fn remove(
    mut caller: Caller<'_, State>,
    map: u32,
    name: u32,
    name_size: u32,
) -> wasmtime::Result<u32> {
    let name = HeaderName::from_bytes(read(&caller, name, name_size)?);
    let Some(head) = writable(caller.data_mut(), map) else {
        return Ok(Status::BadArgument as u32);
    };
    let Ok(name) = name else {
        return Ok(Status::BadArgument as u32);
    };
    head.headers.remove(name);
    Ok(Status::Ok as u32)
}

fn status(done: bool) -> u32 {
    let status = if done {
        Status::Ok
    } else {
        Status::BadArgument
    };
    status as u32
}

fn set_pseudo(head: &mut Head, name: &[u8], value: &[u8]) -> bool {
    match head.pseudo.iter_mut().find(|(n, _)| n.as_bytes() == name) {
        Some(entry) => {
            entry.1 = Bytes::copy_from_slice(value);
            true
        }
        None => false,
    }
}

fn insert(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> bool {
    match parse(name, value) {
        Some((name, value)) => headers.try_insert(name, value).is_ok(),
        None => false,
    }
}

pub(super) fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> bool {
    match parse(name, value) {
        Some((name, value)) => headers.try_append(name, value).is_ok(),
        None => false,
    }
}

fn parse(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name).ok()?;
    let value = HeaderValue::from_bytes(value).ok()?;
    Some((name, value))
}
