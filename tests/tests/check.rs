//! `mesh check`: nothing is wrong with a mesh that is well, and what breaks is named, with its code.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::{rabbitmq, redis, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};

/// What `mesh check` says: whether all is well, and the codes of what is not, group by group.
async fn check(mesh: &Mesh, more: &[&str]) -> (bool, Vec<String>) {
    let file = mesh.file().display().to_string();
    let mut arguments = vec!["check", &file, "-o", "json"];
    arguments.extend(more);
    let said = mesh.command(&arguments).await;
    let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let codes = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| {
            let findings = group["findings"].as_array().unwrap();
            let codes = findings
                .iter()
                .filter_map(|finding| finding["code"].as_str());
            codes.map(|code| format!("{}: {code}", group["name"].as_str().unwrap()))
        });
    assert_eq!(report["ok"] == true, said.status.success(), "{report}");
    // What mesh.yaml of the tests warns of is another matter.
    let codes = codes.filter(|code| code != "config: config_unwise");
    (said.status.success(), codes.collect())
}

/// Waits until `mesh check` names `code`, and fails.
async fn named(mesh: &Mesh, code: &str) {
    wait_for(code, || async {
        let (well, codes) = check(mesh, &[]).await;
        !well && codes.iter().any(|c| c == code)
    })
    .await;
}

async fn well(mesh: &Mesh) {
    let (well, codes) = check(mesh, &["--wait", "60s"]).await;
    assert!(well && codes.is_empty(), "{codes:?}");
}

/// One inline command for Redis.
fn tell(port: u16, command: &str) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    writeln!(stream, "{command}\r").unwrap();
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "+OK", "{command}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_mesh_is_well_and_what_breaks_is_named() {
    let (mut broker, mut store) = tokio::join!(rabbitmq::start(), redis::start());
    let mut mesh = Mesh::start(Setup {
        agents: vec![("general-agent", 1)],
        broker: Some(broker.vhost().await),
        store: Some(store.url()),
        ..Setup::default()
    })
    .await;
    well(&mesh).await;

    // Ways to lose tasks that nobody would notice before.
    for (change, back, code) in [
        (
            "CONFIG SET appendonly no",
            "CONFIG SET appendonly yes",
            "store: store_not_persistent",
        ),
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
            "store: store_evicts",
        ),
    ] {
        tell(store.port(), change);
        let (is_well, codes) = check(&mesh, &["--pre"]).await;
        assert!(!is_well && codes == [code], "{codes:?}");
        tell(store.port(), back);
    }

    for (part, code) in [
        ("gateway", "gateway: gateway_down"),
        ("sidecar gateway", "gateway: sidecar_not_ready"),
        ("orchestrator", "orchestrator: orchestrator_not_ready"),
        ("sidecar general-agent", "broker: no_consumer"),
        ("agent general-agent", "agents: agent_down"),
    ] {
        mesh.kill(part).await;
        named(&mesh, code).await;
        mesh.launch(part);
        mesh.all_ready().await;
    }

    store.stop().await;
    named(&mesh, "store: store_unreachable").await;
    store.start_again().await;
    broker.stop().await;
    named(&mesh, "broker: broker_unreachable").await;
    broker.start_again().await;
    well(&mesh).await;
    mesh.stop().await;
}
