//! The filters' configurations: `mesh-config` writes them, the filters read them, and each filter's
//! `.meta.json` schema for Kong is generated from them.

mod issuer;
mod jwt_auth;
mod rate_limit;

pub use issuer::{Algorithm, Issuer, Jwk, Jwks, JwksUrl, Key};
pub use jwt_auth::{Anonymous, AssertionSigner, ClaimValue, JwtAuth, Sources};
pub use rate_limit::*;
