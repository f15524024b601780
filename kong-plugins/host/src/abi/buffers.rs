//! Bodies and configurations.

use super::ENV;
use crate::exchange::Exchange;
use crate::state::{Phase, State, Status, hand_over, read};
use bytes::Bytes;
use wasmtime::{Caller, Linker};

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_get_buffer_bytes", get)?;
    linker.func_wrap(ENV, "proxy_set_buffer_bytes", set)?;
    Ok(())
}

fn get(
    mut caller: Caller<'_, State>,
    kind: u32,
    start: u32,
    max: u32,
    return_data: u32,
    return_size: u32,
) -> wasmtime::Result<u32> {
    let state = caller.data_mut();
    // A clone of `Bytes` shares the bytes.
    let buffer = match (kind, state.phase) {
        (REQUEST_BODY, Phase::RequestBody) => Some(state.exchange.request_body.clone()),
        (RESPONSE_BODY, Phase::ResponseBody) => Some(state.exchange.response_body.clone()),
        (CALL_RESPONSE_BODY, _) => state.call_answer.as_ref().map(|answer| answer.body.clone()),
        (VM_CONFIGURATION, _) => None,
        (PLUGIN_CONFIGURATION, _) => state.root().map(|root| root.config.clone()),
        _ => None,
    };
    let Some(buffer) = buffer.filter(|b| !b.is_empty()) else {
        return Ok(Status::NotFound as u32);
    };
    let start = (start as usize).min(buffer.len());
    let end = start.saturating_add(max as usize).min(buffer.len());
    let part = buffer.get(start..end).unwrap_or_default();
    hand_over(&mut caller, part, return_data, return_size)?;
    Ok(Status::Ok as u32)
}

fn set(
    mut caller: Caller<'_, State>,
    kind: u32,
    start: u32,
    size: u32,
    data: u32,
    data_size: u32,
) -> wasmtime::Result<u32> {
    let data = read(&caller, data, data_size)?.to_vec();
    let state = caller.data_mut();
    let Some(buffer) = writable(&mut state.exchange, kind, state.phase) else {
        return Ok(Status::BadArgument as u32);
    };
    let start = (start as usize).min(buffer.len());
    let end = start.saturating_add(size as usize).min(buffer.len());
    let before = buffer.get(..start).unwrap_or_default();
    let after = buffer.get(end..).unwrap_or_default();
    *buffer = Bytes::from([before, &data, after].concat());
    Ok(Status::Ok as u32)
}

fn writable(exchange: &mut Exchange, kind: u32, phase: Phase) -> Option<&mut Bytes> {
    match (kind, phase) {
        (REQUEST_BODY, Phase::RequestBody) => Some(&mut exchange.request_body),
        (RESPONSE_BODY, Phase::ResponseBody) => Some(&mut exchange.response_body),
        _ => None,
    }
}
