//! Which agent a request is for, as a Proxy-Wasm filter: `mesh_policy::routing` in the phases of the gateway.

mesh_filter_glue::filter!(mesh_policy::routing::Policy);
