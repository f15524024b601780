//! Time and ticks.

use super::ENV;
use crate::state::{State, Status, write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wasmtime::{Caller, Linker};

/// Shortest time between two ticks, in milliseconds: a tick runs on the worker's own thread.
const MIN_TICK_MS: u32 = 10;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_get_current_time_nanoseconds", now)?;
    linker.func_wrap(ENV, "proxy_set_tick_period_milliseconds", set_tick)?;
    Ok(())
}

/// Time since 1970, in nanoseconds.
pub(super) fn since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or_default()
}

fn now(mut caller: Caller<'_, State>, return_time: u32) -> wasmtime::Result<u32> {
    write(&mut caller, return_time, &since_1970().to_le_bytes())?;
    Ok(Status::Ok as u32)
}

fn set_tick(mut caller: Caller<'_, State>, period: u32) -> u32 {
    let tick = (period > 0).then(|| Duration::from_millis(period.max(MIN_TICK_MS).into()));
    let status = match caller.data_mut().root() {
        Some(root) => {
            root.tick = tick;
            Status::Ok
        }
        None => Status::BadArgument,
    };
    status as u32
}
