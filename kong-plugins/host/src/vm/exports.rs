//! The callbacks that a module exports, each with the signature that the ABI gives it.

use super::wrong;
use crate::error::HostError;
use crate::state::State;
use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

/// `proxy_on_http_call_response`: context, token, headers, body size, trailers.
pub(super) type CallResponse = TypedFunc<(u32, u32, u32, u32, u32), ()>;
/// The callbacks of a request: context, amount, whether it is the end.
pub(super) type StreamCallback = TypedFunc<(u32, u32, u32), u32>;

/// The callbacks that the module exports.
pub(super) struct Exports {
    /// `_initialize` or `_start`.
    pub(super) initialise: Option<TypedFunc<(), ()>>,
    pub(super) context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(super) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(super) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(super) tick: Option<TypedFunc<u32, ()>>,
    pub(super) call_response: Option<CallResponse>,
    pub(super) request_headers: Option<StreamCallback>,
    pub(super) request_body: Option<StreamCallback>,
    pub(super) response_headers: Option<StreamCallback>,
    pub(super) response_body: Option<StreamCallback>,
    pub(super) done: Option<TypedFunc<u32, u32>>,
    pub(super) log: Option<TypedFunc<u32, ()>>,
    pub(super) delete: Option<TypedFunc<u32, ()>>,
}

impl Exports {
    pub(super) fn of(
        module: &str,
        instance: &Instance,
        store: &mut Store<State>,
    ) -> Result<Self, HostError> {
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| wrong(module, "it exports no memory".to_owned()))?;
        store.data_mut().memory = Some(memory);
        store.data_mut().allocate =
            match typed(module, instance, store, "proxy_on_memory_allocate")? {
                Some(allocate) => Some(allocate),
                None => typed(module, instance, store, "malloc")?,
            };
        let initialise = ["_initialize", "_start"]
            .iter()
            .find_map(|name| instance.get_typed_func(&mut *store, name).ok());
        Ok(Self {
            initialise,
            context_create: typed(module, instance, store, "proxy_on_context_create")?,
            vm_start: typed(module, instance, store, "proxy_on_vm_start")?,
            configure: typed(module, instance, store, "proxy_on_configure")?,
            tick: typed(module, instance, store, "proxy_on_tick")?,
            call_response: typed(module, instance, store, "proxy_on_http_call_response")?,
            request_headers: typed(module, instance, store, "proxy_on_request_headers")?,
            request_body: typed(module, instance, store, "proxy_on_request_body")?,
            response_headers: typed(module, instance, store, "proxy_on_response_headers")?,
            response_body: typed(module, instance, store, "proxy_on_response_body")?,
            done: typed(module, instance, store, "proxy_on_done")?,
            log: typed(module, instance, store, "proxy_on_log")?,
            delete: typed(module, instance, store, "proxy_on_delete")?,
        })
    }
}

fn typed<P: WasmParams, R: WasmResults>(
    module: &str,
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
) -> Result<Option<TypedFunc<P, R>>, HostError> {
    match instance.get_func(&mut *store, name) {
        None => Ok(None),
        Some(function) => function
            .typed(&*store)
            .map(Some)
            .map_err(|_| wrong(module, format!("{name} has another signature"))),
    }
}
