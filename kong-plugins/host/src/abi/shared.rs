//! Values that all VMs of a process share.

use super::ENV;
use crate::error::forbidden;
use crate::shared::{MAX_KEY, Value};
use crate::state::{State, Status, hand_over, read, write_u32};
use wasmtime::{Caller, Linker};

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_get_shared_data", get)?;
    linker.func_wrap(ENV, "proxy_set_shared_data", set)?;
    Ok(())
}

fn get(
    mut caller: Caller<'_, State>,
    key: u32,
    key_size: u32,
    return_data: u32,
    return_size: u32,
    return_version: u32,
) -> wasmtime::Result<u32> {
    let key = read(&caller, key, key_size)?;
    let Some((value, version)) = caller.data().shared.values.get(key) else {
        return Ok(Status::NotFound as u32);
    };
    hand_over(&mut caller, value.as_bytes(), return_data, return_size)?;
    write_u32(&mut caller, return_version, version)?;
    Ok(Status::Ok as u32)
}

/// A null value removes. Version 0 is "not there yet", as in Kong, and never "whatever is there".
fn set(
    caller: Caller<'_, State>,
    key: u32,
    key_size: u32,
    value: u32,
    value_size: u32,
    version: u32,
) -> wasmtime::Result<u32> {
    let value = match value {
        0 => None,
        _ => match Value::new(read(&caller, value, value_size)?) {
            Some(value) => Some(value),
            None => {
                return forbidden(
                    "a shared value has more than 16 bytes, which Kong does not keep whole",
                );
            }
        },
    };
    let key = read(&caller, key, key_size)?;
    if key.len() > MAX_KEY {
        return forbidden("a shared value's key is too long");
    }
    let status = if caller.data().shared.values.set(key, value, version) {
        Status::Ok
    } else {
        Status::CasMismatch
    };
    Ok(status as u32)
}
