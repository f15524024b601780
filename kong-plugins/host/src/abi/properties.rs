//! Properties: what a filter may ask for by path.

use super::ENV;
use crate::error::forbidden;
use crate::state::{State, Status, hand_over, read, read_text};
use bytes::Bytes;
use wasmtime::{Caller, Linker};

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_get_property", get)?;
    linker.func_wrap(ENV, "proxy_set_property", set)?;
    Ok(())
}

/// A path's parts are separated by zeros; Kong takes dots as well, and so the dots are the form here.
fn path(caller: &Caller<'_, State>, at: u32, size: u32) -> wasmtime::Result<String> {
    Ok(read_text(caller, at, size)?.replace('\0', "."))
}

fn get(
    mut caller: Caller<'_, State>,
    at: u32,
    size: u32,
    return_data: u32,
    return_size: u32,
) -> wasmtime::Result<u32> {
    let path = path(&caller, at, size)?;
    let state = caller.data_mut();
    let value = match path.as_str() {
        "plugin_name" => state
            .root()
            .map(|r| Bytes::copy_from_slice(r.name.as_bytes())),
        _ => state.exchange.properties.get(&path).cloned(),
    };
    let Some(value) = value else {
        return Ok(Status::NotFound as u32);
    };
    hand_over(&mut caller, &value, return_data, return_size)?;
    Ok(Status::Ok as u32)
}

fn set(
    mut caller: Caller<'_, State>,
    at: u32,
    size: u32,
    value: u32,
    value_size: u32,
) -> wasmtime::Result<u32> {
    let path = path(&caller, at, size)?;
    let value = match value {
        0 => None,
        _ => Some(Bytes::copy_from_slice(read(&caller, value, value_size)?)),
    };
    let state = caller.data_mut();
    if state.phase.is_apart() {
        return forbidden("a property was set outside of a request");
    }
    // Kong ends the call likewise.
    if !state.exchange.properties.set_by_filter(path, value) {
        return forbidden("a property was set that filters may not set");
    }
    Ok(Status::Ok as u32)
}
