//! mesh.yaml: checked, and rendered for every part.
//!
//! `schema` reads the file with every value's place, [`compile`] turns it into a [`mesh::Mesh`] or
//! says everything that is wrong with it at once, and [`render`] writes what each part reads. Only the
//! checked mesh travels; only [`secret::Secrets`] holds secret values, and only renderers see it.

pub mod broker;
pub mod broker_url;
mod checks;
mod compile;
pub mod container;
pub mod deploy;
pub mod derive;
pub mod explain;
pub mod filters;
mod finding;
pub mod fronted;
mod guard;
pub mod import;
mod load;
mod masks;
pub mod mesh;
mod migrate;
pub mod render;
mod schema;
pub mod secret;
mod secret_names;
mod snippet;
mod sources;
pub mod telemetry;
pub mod trust;

pub use compile::{Compiled, compile, compile_bytes, compile_file, compile_read};
pub use finding::{Finding, Place, Report, Severity, nearest};
pub use guard::token_refusal;
pub use load::Options;
pub use masks::Masks;
pub use mesh::Mesh;
pub use migrate::{Migrated, migrate};
pub use schema::VERSION;
pub use schema::describe::{SCHEMA_ID, schema, undescribed};
pub use schema::reference::reference;
pub use schema::tree::MAX_BYTES;

/// Reads a duration as mesh.yaml writes it, such as `500ms`, `30s`, `5m` or `1h`.
pub fn duration(text: &str) -> Option<std::time::Duration> {
    schema::values::parse_duration(text.trim())
}
