//! What a VM has used, for benchmarks: a VM of [`crate::Engine::measured`] counts, any other does not.

use std::collections::BTreeMap;

/// What a VM has used since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel as wasmtime counts it: about one per WebAssembly instruction. The host's own work is not in it.
    pub fuel: u64,
    /// Calls of the host's functions, by name. What the host calls in the guest on their behalf, as its
    /// allocator, is none of them.
    pub calls: BTreeMap<String, u64>,
}
