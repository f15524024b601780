//! Rate limiting as a Proxy-Wasm filter: `mesh_policy::rate_limit` in the phases of the gateway.

mesh_filter_glue::filter!(mesh_policy::rate_limit::Policy);
