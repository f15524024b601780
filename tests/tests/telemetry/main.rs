//! What `mesh render` writes for Prometheus and Grafana, before the real tools: promtool, a Prometheus, a Consul, a mesh.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod expression;
mod mesh;
mod promtool;

use mesh_tests::binary::binary;
use mesh_tests::server::directory;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The mesh.yaml of a golden case.
fn case(name: &str) -> PathBuf {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-config/tests/cases");
    Path::new(cases).join(name).join("mesh.yaml")
}

/// What is rendered of a mesh.yaml: `prometheus/` and `grafana/`.
fn rendered(mesh_yaml: &Path) -> TempDir {
    let out = directory("rendered");
    for target in ["prometheus", "grafana"] {
        let mut command = Command::new(binary("mesh"));
        command.args(["render", target]).arg(mesh_yaml);
        let done = command.arg("--out").arg(out.path().join(target)).output();
        let done = done.expect("run mesh");
        assert!(done.status.success(), "{done:?}");
    }
    out
}
