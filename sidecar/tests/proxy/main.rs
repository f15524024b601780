//! Two sidecars and what passes between them: routing, protocols, headers, limits, faults, rotation, drain, traces.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod behind;
mod drain;
mod faults;
mod headers;
mod limits;
mod protocols;
mod raw;
mod rotation;
mod routing;
mod smuggling;
mod support;
mod traces;
