//! A compiled module, linked once, from which every worker makes its own VM.

use crate::abi;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::HostError;
use crate::state::State;
use std::sync::Arc;
use wasmtime::InstancePre;

/// Largest module that is compiled, in bytes; a filter has half a megabyte.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One .wasm, compiled. Clones share the code.
#[derive(Clone)]
pub struct Module {
    pub(crate) name: Arc<str>,
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<State>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Module {
    /// Compiles `bytes` as the module `name`. Takes as long as the module is large: once per start.
    ///
    /// # Errors
    /// [`HostError::Module`] for what is no module, speaks another ABI or lacks what the ABI asks for.
    pub fn compile(engine: &Engine, name: &str, bytes: &[u8]) -> Result<Self, HostError> {
        Self::cached(engine, name, bytes, None)
    }

    /// The same, but for what was compiled at an earlier start and lies in `cache`.
    ///
    /// # Errors
    /// As for [`Module::compile`]; a cache that is of no use is passed over.
    pub fn cached(
        engine: &Engine,
        name: &str,
        bytes: &[u8],
        cache: Option<&Cache>,
    ) -> Result<Self, HostError> {
        let wrong = |problem: String| HostError::Module {
            module: name.to_owned(),
            problem,
        };
        if bytes.len() > MAX_BYTES {
            return Err(wrong(format!(
                "{} bytes, more than {MAX_BYTES}",
                bytes.len()
            )));
        }
        let module = match cache.and_then(|cache| cache.find(engine, name, bytes)) {
            Some(module) => module,
            None => {
                let module = wasmtime::Module::new(&engine.inner, bytes)
                    .map_err(|e| wrong(format!("{e:#}")))?;
                if let Some(Err(error)) =
                    cache.map(|cache| cache.keep(engine, name, bytes, &module))
                {
                    tracing::warn!(%error, "compiled filter is not kept");
                }
                module
            }
        };
        let speaks = |version: &str| module.get_export(version).is_some();
        if !speaks("proxy_abi_version_0_2_1") && !speaks("proxy_abi_version_0_2_0") {
            let text = "it exports neither proxy_abi_version_0_2_1 nor proxy_abi_version_0_2_0";
            return Err(wrong(text.to_owned()));
        }
        let linker = abi::linker(engine, &module).map_err(|e| wrong(format!("{e:#}")))?;
        let pre = linker
            .instantiate_pre(&module)
            .map_err(|e| wrong(format!("{e:#}")))?;
        Ok(Self {
            name: name.into(),
            engine: engine.clone(),
            pre,
        })
    }

    /// Name of the module.
    pub fn name(&self) -> &str {
        &self.name
    }
}
