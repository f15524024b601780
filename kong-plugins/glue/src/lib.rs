//! Proxy-Wasm phases around the decisions of mesh-policy: ask, decide, apply.
//!
//! The only crate that names `proxy_wasm`. Of its SDK the dispatcher of contexts and the allocator are
//! used; host calls go through [`host`], because the SDK panics on statuses that it does not expect,
//! and a panic here breaks every request that the worker has in flight.
//!
//! What a filter never does, each learned from a real Kong: fail in `on_configure` (Kong would serve
//! every route without filters), read a request's property there, ask for the whole header map, take
//! the time from anywhere but the host, dispatch on the request path.

mod abi;
mod around;
mod calls;
mod context;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod host;
mod metrics;

pub use context::{Root, new_root};

/// Names that [`filter!`] expands to.
#[doc(hidden)]
pub mod sdk {
    pub use proxy_wasm::set_root_context;
}

/// Makes the crate a Proxy-Wasm module that runs the [`mesh_policy::Filter`] given.
#[macro_export]
macro_rules! filter {
    ($filter:ty) => {
        /// Called by the host once per instance, before anything else.
        // The host finds the function by its name; no other module is linked to this one.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn _initialize() {
            $crate::sdk::set_root_context($crate::new_root::<$filter>);
        }
    };
}
