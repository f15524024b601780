//! The few functions of WASI preview 1 that language runtimes call before they do anything: a clock,
//! random bytes, an empty environment, output into the log.

use super::time::since_1970;
use crate::error::forbidden;
use crate::state::{State, read, write, write_u32};
use wasmtime::{Caller, Linker};

/// Module name of the functions.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Names of the supported functions.
pub(super) const SUPPORTED: &[&str] = &[
    "clock_time_get",
    "random_get",
    "fd_write",
    "environ_sizes_get",
    "environ_get",
    "args_sizes_get",
    "args_get",
    "proc_exit",
];

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const INVALID: u32 = 28;
/// Most random bytes at a time; seeds and keys have fewer than a hundred.
const MAX_RANDOM: u32 = 65_536;
/// Most parts and bytes of one output.
const MAX_PARTS: u32 = 64;
const MAX_OUTPUT: usize = 4096;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(PREVIEW1, "clock_time_get", clock_time_get)?;
    linker.func_wrap(PREVIEW1, "random_get", random_get)?;
    linker.func_wrap(PREVIEW1, "fd_write", fd_write)?;
    linker.func_wrap(PREVIEW1, "environ_sizes_get", empty_sizes)?;
    linker.func_wrap(PREVIEW1, "environ_get", empty)?;
    linker.func_wrap(PREVIEW1, "args_sizes_get", empty_sizes)?;
    linker.func_wrap(PREVIEW1, "args_get", empty)?;
    linker.func_wrap(PREVIEW1, "proc_exit", proc_exit)?;
    Ok(())
}

fn clock_time_get(
    mut caller: Caller<'_, State>,
    clock: u32,
    _precision: u64,
    return_time: u32,
) -> wasmtime::Result<u32> {
    // Realtime and monotonic; the latter is only compared with itself.
    if clock > 1 {
        return Ok(INVALID);
    }
    write(&mut caller, return_time, &since_1970().to_le_bytes())?;
    Ok(SUCCESS)
}

fn random_get(mut caller: Caller<'_, State>, at: u32, size: u32) -> wasmtime::Result<u32> {
    if size > MAX_RANDOM {
        return Ok(INVALID);
    }
    let mut bytes = vec![0; size as usize];
    if getrandom::fill(&mut bytes).is_err() {
        return forbidden("the machine gives no random bytes");
    }
    write(&mut caller, at, &bytes)?;
    Ok(SUCCESS)
}

fn fd_write(
    mut caller: Caller<'_, State>,
    descriptor: u32,
    parts: u32,
    count: u32,
    return_written: u32,
) -> wasmtime::Result<u32> {
    if !(1..=2).contains(&descriptor) {
        return Ok(BAD_DESCRIPTOR);
    }
    if count > MAX_PARTS {
        return Ok(INVALID);
    }
    let mut text = Vec::new();
    let mut written = 0u32;
    for part in read(&caller, parts, count * 8)?.chunks_exact(8) {
        let (at, size) = part.split_at(4);
        let number = |b: &[u8]| b.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (at, size) = (number(at), number(size));
        let bytes = read(&caller, at, size)?;
        let room = MAX_OUTPUT.saturating_sub(text.len());
        text.extend(bytes.iter().take(room));
        written = written.saturating_add(size);
    }
    let filter = &*caller.data().module;
    let text: String = String::from_utf8_lossy(&text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    tracing::info!(filter, text, "filter output");
    write_u32(&mut caller, return_written, written)?;
    Ok(SUCCESS)
}

fn empty_sizes(
    mut caller: Caller<'_, State>,
    return_count: u32,
    return_size: u32,
) -> wasmtime::Result<u32> {
    write_u32(&mut caller, return_count, 0)?;
    write_u32(&mut caller, return_size, 0)?;
    Ok(SUCCESS)
}

fn empty(_caller: Caller<'_, State>, _list: u32, _data: u32) -> u32 {
    SUCCESS
}

fn proc_exit(_caller: Caller<'_, State>, _code: u32) -> wasmtime::Result<()> {
    forbidden("the module asked to exit")
}
