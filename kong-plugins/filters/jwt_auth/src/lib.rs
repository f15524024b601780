//! JWT authentication as a Proxy-Wasm filter: `mesh_policy::jwt` in the phases of the gateway.

mesh_filter_glue::filter!(mesh_policy::jwt::Policy);
