//! Contexts.

use super::ENV;
use crate::state::{State, Status};
use wasmtime::{Caller, Linker};

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_set_effective_context", set_effective)?;
    Ok(())
}

/// Only the context that runs can be made the effective one: the exchange of another is not here.
fn set_effective(caller: Caller<'_, State>, id: u32) -> u32 {
    let status = if caller.data().current == id {
        Status::Ok
    } else {
        Status::BadArgument
    };
    status as u32
}
