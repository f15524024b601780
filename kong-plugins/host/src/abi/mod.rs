//! The functions that a module may import, one file per family.
//!
//! A function that no family knows is linked too: calling it ends the call with its name. So a module
//! that merely could call it still runs, as modules of the SDKs import the whole ABI.

mod buffers;
mod context;
mod counted;
mod dispatch;
mod headers;
mod log;
mod metrics;
pub(crate) mod pairs;
mod properties;
mod response;
mod shared;
mod time;
mod wasi;

use crate::engine::Engine;
use crate::error::unsupported;
use crate::state::State;
use wasmtime::{ExternType, Linker, Module};

/// Module name of the ABI's functions.
const ENV: &str = "env";

/// A linker for `module` with all families, and a named refusal for every other function it imports.
pub(crate) fn linker(engine: &Engine, module: &Module) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(&engine.inner);
    buffers::link(&mut linker)?;
    context::link(&mut linker)?;
    dispatch::link(&mut linker)?;
    headers::link(&mut linker)?;
    log::link(&mut linker)?;
    metrics::link(&mut linker)?;
    properties::link(&mut linker)?;
    response::link(&mut linker)?;
    shared::link(&mut linker)?;
    time::link(&mut linker)?;
    wasi::link(&mut linker)?;
    for import in module.imports() {
        let supported = match import.module() {
            ENV => SUPPORTED,
            wasi::PREVIEW1 => wasi::SUPPORTED,
            // An import from elsewhere stays unresolved, and linking says which.
            _ => continue,
        };
        if supported.contains(&import.name()) {
            continue;
        }
        if let ExternType::Func(signature) = import.ty() {
            let name = import.name().to_owned();
            linker.func_new(import.module(), import.name(), signature, move |_, _, _| {
                unsupported(&name)
            })?;
        }
    }
    if engine.measured {
        return counted::counted(linker, module);
    }
    Ok(linker)
}

/// Names of the functions that the families link.
const SUPPORTED: &[&str] = &[
    "proxy_log",
    "proxy_get_log_level",
    "proxy_get_current_time_nanoseconds",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_buffer_bytes",
    "proxy_set_buffer_bytes",
    "proxy_get_header_map_size",
    "proxy_get_header_map_pairs",
    "proxy_set_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_add_header_map_value",
    "proxy_remove_header_map_value",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_send_local_response",
    "proxy_http_call",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_set_effective_context",
    "proxy_define_metric",
    "proxy_get_metric",
    "proxy_record_metric",
    "proxy_increment_metric",
];
