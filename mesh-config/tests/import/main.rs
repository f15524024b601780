//! An existing deployment becomes a mesh.yaml that renders back to the same, and what cannot be carried
//! over is named.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bad_files;
mod compose;
mod generated;
mod kong;
mod rabbitmq;
mod same;

use mesh_config::import::{self, Imported};
use mesh_config::secret::Secrets;
use mesh_config::{Mesh, render};
use mesh_declarative::Config;

/// Imports what can be imported; the mesh.yaml passes the check without an error.
fn import(text: &str) -> (Imported, Mesh) {
    let imported = import::import(text, None, "imported").unwrap();
    let mesh = mesh_config::compile("mesh.yaml", &imported.text)
        .unwrap_or_else(|report| panic!("{report}\n{}", imported.text))
        .mesh;
    (imported, mesh)
}

/// The same, and what Kong is rendered from it.
fn kong_of(text: &str) -> (Imported, Config) {
    let (imported, mesh) = import(text);
    let config = render::kong(&mesh, &Secrets::none()).unwrap();
    let yaml = config.to_yaml().unwrap();
    (imported, Config::from_yaml(&yaml).unwrap())
}

/// Paths of what was lost.
fn lost(imported: &Imported) -> Vec<&str> {
    imported
        .lost
        .iter()
        .map(|lost| lost.path.as_str())
        .collect()
}
