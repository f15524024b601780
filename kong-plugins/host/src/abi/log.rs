//! The filters' log, as events of `tracing`.

use super::ENV;
use crate::state::{State, Status, read, write_u32};
use wasmtime::{Caller, Linker};

/// Longest message that is kept, in bytes; the rest is cut off.
const MAX_MESSAGE: u32 = 4096;
const INFO: u32 = 2;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_log", log)?;
    linker.func_wrap(ENV, "proxy_get_log_level", get_level)?;
    Ok(())
}

fn log(mut caller: Caller<'_, State>, level: u32, text: u32, size: u32) -> wasmtime::Result<u32> {
    let text = read(&caller, text, size.min(MAX_MESSAGE))?;
    // Line breaks and control characters could forge entries.
    let text: String = String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let state = caller.data_mut();
    let module = std::sync::Arc::clone(&state.module);
    let root = state.root().map(|root| std::sync::Arc::clone(&root.name));
    let (filter, chain) = (&*module, root.as_deref().unwrap_or_default());
    match level {
        0 => tracing::trace!(filter, chain, text, "filter log"),
        1 => tracing::debug!(filter, chain, text, "filter log"),
        2 => tracing::info!(filter, chain, text, "filter log"),
        3 => tracing::warn!(filter, chain, text, "filter log"),
        _ => tracing::error!(filter, chain, text, "filter log"),
    }
    Ok(Status::Ok as u32)
}

fn get_level(mut caller: Caller<'_, State>, return_level: u32) -> wasmtime::Result<u32> {
    write_u32(&mut caller, return_level, INFO)?;
    Ok(Status::Ok as u32)
}
