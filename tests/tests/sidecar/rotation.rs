//! Roots and leaves rotate while 64 connections send: no request fails.

use crate::load::{self, Load};
use crate::{admin, services, usual_token};
use mesh_tests::mesh::{self, Mesh, Setup};
use mesh_tests::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const CONNECTIONS: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);

async fn start(mesh: &Mesh) -> Load {
    let (gateway, token) = (mesh.gateway(), usual_token(mesh).await);
    let load = Load::start(CONNECTIONS, PAUSE, load::ok, move |client| {
        mesh::direct(client, &gateway, &token, "general-agent")
    });
    more(&load).await;
    load
}

/// Waits until every client has been answered some times more.
async fn more(load: &Load) {
    let enough = load.count() + CONNECTIONS * 8;
    wait_for("more answers", async || load.count() > enough).await;
}

async fn none_failed(load: Load) {
    let answers = load.stop().await;
    let failures: Vec<_> = answers
        .iter()
        .filter_map(|a| a.failure.as_deref())
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {}: {:?}",
        failures.len(),
        answers.len(),
        failures.first()
    );
}

/// The certificates' serial numbers, by service.
async fn serials(mesh: &Mesh) -> BTreeMap<String, Value> {
    let mut serials = BTreeMap::new();
    for service in services(mesh) {
        let certificate = admin(mesh, &service, "/certificate").await;
        let serial = certificate["certificate"]["serial"].clone();
        assert!(serial.is_string(), "{certificate}");
        serials.insert(service, serial);
    }
    serials
}

/// Waits until every sidecar has another certificate than in `before`.
async fn renewed(mesh: &Mesh, before: &BTreeMap<String, Value>) {
    wait_for("every certificate to be renewed", async || {
        let now = serials(mesh).await;
        now.iter()
            .all(|(service, serial)| before[service] != *serial)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_rotates_its_root_and_every_leaf() {
    let mesh = Mesh::start(Setup::default()).await;
    let load = start(&mesh).await;
    let before = serials(&mesh).await;
    let roots = mesh.consul.get("/v1/connect/ca/roots").await;
    let old = roots["ActiveRootID"].clone();
    // Another key needs another root, which the old one signs as well.
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let config = json!({"Provider": "consul", "Config": {"PrivateKey": key, "RootCert": ""}});
    mesh.consul
        .put("/v1/connect/ca/configuration", config)
        .await;
    let roots = mesh.consul.get("/v1/connect/ca/roots").await;
    assert_ne!(roots["ActiveRootID"], old, "{roots}");
    // Consul's agent spreads the new leaves over half a minute.
    renewed(&mesh, &before).await;
    more(&load).await;
    none_failed(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_of_a_few_seconds_are_renewed_again_and_again() {
    let identity = json!({"source": "development", "lifetime": "4s"});
    let mesh = Mesh::start(Setup::default().with("identity", identity)).await;
    let load = start(&mesh).await;
    for _ in 0..3 {
        let before = serials(&mesh).await;
        renewed(&mesh, &before).await;
        more(&load).await;
    }
    none_failed(load).await;
}
