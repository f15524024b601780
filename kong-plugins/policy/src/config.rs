//! The filters' configurations: `mesh-config` writes them, the filters read them, and each filter's
//! `.meta.json` schema for Kong is generated from them.

mod admission;
mod issuer;
mod jwt_auth;
mod load;
mod rate_limit;
mod routing;

pub use admission::{AboveCeiling, Ceiling, Ceilings, TaskAdmission, TaskTypes, TimeoutBounds};
pub use issuer::{Algorithm, Issuer, Jwk, Jwks, JwksUrl, Key};
pub use jwt_auth::{Anonymous, AssertionSigner, ClaimValue, JwtAuth, Sources};
pub use load::{Load, WhenStale};
pub use rate_limit::*;
pub use routing::{
    AgentRouter, By, DeclaredAgent, HeaderMatch, Matchers, Otherwise, Path, Rule, Sticky, Target,
    Weighted,
};
