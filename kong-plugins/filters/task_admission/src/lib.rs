//! Which tasks may enter, as a Proxy-Wasm filter: `mesh_policy::admission` in the phases of the gateway.

mesh_filter_glue::filter!(mesh_policy::admission::Policy);
