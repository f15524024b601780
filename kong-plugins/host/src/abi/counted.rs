//! The host's functions with a counter before each, for benchmarks.

use crate::state::State;
use std::sync::Arc;
use wasmtime::{ExternType, Linker, Module};

/// A linker for `module` that counts what `linker` links.
pub(super) fn counted(linker: Linker<State>, module: &Module) -> wasmtime::Result<Linker<State>> {
    let mut counting: Linker<State> = Linker::new(module.engine());
    let linker = Arc::new(linker);
    for import in module.imports() {
        let ExternType::Func(signature) = import.ty() else {
            continue;
        };
        let (family, name) = (import.module().to_owned(), import.name().to_owned());
        let linker = Arc::clone(&linker);
        counting.func_new(
            import.module(),
            import.name(),
            signature,
            move |mut caller, params, results| {
                let counts = &mut caller.data_mut().counts;
                match counts.get_mut(name.as_str()) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(name.clone(), 1);
                    }
                }
                match linker.get(&mut caller, &family, &name) {
                    Ok(external) => match external.into_func() {
                        Some(function) => function.call(&mut caller, params, results),
                        None => crate::error::unsupported(name.as_str()),
                    },
                    Err(_) => crate::error::unsupported(name.as_str()),
                }
            },
        )?;
    }
    Ok(counting)
}
