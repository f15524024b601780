//! The whole mesh as processes, each part with its sidecar: real Consul with its certificate authority, RabbitMQ,
//! Redis and Prometheus, and the programs that users run, started from rendered files.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what stands here runs in tests only"
)]

mod crossing;
mod denied;
mod faults;
mod load;
mod rotation;
mod together;

use mesh_tests::mesh::Mesh;
use serde_json::Value;

/// A token that may submit tasks and look at them.
async fn usual_token(mesh: &Mesh) -> String {
    mesh.token("alice", "tasks:read tasks:write").await
}

/// What the admin listener of the sidecar `name` says at `path`.
async fn admin(mesh: &Mesh, name: &str, path: &str) -> Value {
    let url = format!("{}{path}", mesh.admin(name));
    let answer = mesh.client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{name}{path}");
    answer.json().await.unwrap()
}

/// The services beside which sidecars of this mesh stand, by the names of the sidecars' programs.
fn services(mesh: &Mesh) -> Vec<String> {
    let sidecars = mesh.sidecars();
    let names = sidecars.iter();
    names
        .map(|name| name.trim_start_matches("sidecar ").to_owned())
        .collect()
}
