//! `mesh check`: nothing is wrong with a mesh that is well, and what breaks is named, with its code.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mesh_tests::binary::binary;
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::rabbitmq::Release;
use mesh_tests::{prometheus, rabbitmq, redis, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Output;

/// What `mesh check` says: whether all is well, and the codes of what is not, group by group.
async fn check(mesh: &Mesh, more: &[&str]) -> (bool, Vec<String>) {
    let file = mesh.file().display().to_string();
    let mut arguments = vec!["check", &file, "-o", "json"];
    arguments.extend(more);
    judged(&mesh.command(&arguments).await)
}

/// Whether all is well, and the codes of what is not, as `mesh check` says it.
fn judged(said: &Output) -> (bool, Vec<String>) {
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
    let managed = rabbitmq::start_with_management(Release::Three);
    let (mut broker, mut store) = tokio::join!(managed, redis::start());
    let messaging = json!({
        "backend": "rabbitmq",
        "url": {"file": "secrets/broker"},
        "management": {"url": broker.management_url()},
    });
    let mut mesh = Mesh::start(
        Setup {
            agents: vec![("general-agent", 1)],
            broker: Some(broker.vhost().await),
            store: Some(store.url()),
            ..Setup::default()
        }
        .with("messaging", messaging),
    )
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

    // An alarm: the broker answers, and takes nothing.
    broker.disk_alarm(true).await;
    named(&mesh, "broker: broker_blocked").await;
    broker.disk_alarm(false).await;
    well(&mesh).await;

    // What Consul says otherwise is named, and no failure: sidecars go by mesh.yaml.
    let intentions = format!("{}/v1/connect/intentions", mesh.consul.url());
    let denied = json!({"SourceName": "gateway", "DestinationName": "orchestrator", "SourceType": "consul", "Action": "deny"});
    let made = mesh.client().post(&intentions).json(&denied).send().await;
    let made: Value = made.unwrap().json().await.unwrap();
    let (is_well, codes) = check(&mesh, &[]).await;
    assert!(
        is_well && codes == ["registry: intention_differs"],
        "{codes:?}"
    );
    let one = format!("{intentions}/{}", made["ID"].as_str().unwrap());
    assert!(
        mesh.client()
            .delete(one)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    well(&mesh).await;

    store.stop().await;
    named(&mesh, "store: store_unreachable").await;
    store.start_again().await;
    broker.stop().await;
    named(&mesh, "broker: broker_unreachable").await;
    broker.start_again().await;
    well(&mesh).await;
    mesh.stop().await;
}

/// What `mesh check` says with the Prometheus at `url`.
async fn watched(mesh: &Mesh, url: &str, more: &[&str]) -> (bool, Vec<String>) {
    let mut command = std::process::Command::new(binary("mesh"));
    command.arg("check").arg(mesh.file()).args(["-o", "json"]);
    command.args(more).env("PROMETHEUS_URL", url);
    let run = tokio::task::spawn_blocking(move || command.output());
    judged(&run.await.unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prometheus_is_alarmed_about_is_named() {
    let mut mesh = Mesh::start(Setup {
        agents: vec![("general-agent", 1)],
        ..Setup::default()
    })
    .await;
    let (is_well, codes) = watched(&mesh, "http://127.0.0.1:1", &[]).await;
    assert!(
        is_well && codes == ["telemetry: metrics_unreachable"],
        "{codes:?}"
    );
    let (is_well, codes) = watched(&mesh, "ftp://x", &["--pre"]).await;
    assert!(!is_well && codes == ["telemetry: metrics_url"], "{codes:?}");

    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("rules.yml");
    let text = "groups:\n  - name: mesh\n    interval: 1s\n    rules:\n      \
        - {alert: SidecarDown, expr: up == 0, labels: {severity: critical}, annotations: {summary: it is gone}}\n";
    std::fs::write(&file, text).unwrap();
    let sidecar = mesh.admin("general-agent");
    let targets = [mesh.orchestrator(), sidecar.replace("http://", "")];
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nrule_files: ['{}']\n\
         scrape_configs:\n  - job_name: mesh\n    static_configs: [{{targets: ['{}', '{}']}}]\n",
        file.display(),
        targets[0],
        targets[1]
    );
    let prometheus = prometheus::start(&config).await;
    wait_for("all is well", || async {
        let (is_well, codes) = watched(&mesh, &prometheus.url(), &[]).await;
        is_well && codes.is_empty()
    })
    .await;
    mesh.kill("sidecar general-agent").await;
    let of_telemetry = |codes: &[String]| -> Vec<String> {
        let of = codes.iter().filter(|code| code.starts_with("telemetry"));
        of.cloned().collect()
    };
    wait_for("the target and its alert", || async {
        let (is_well, codes) = watched(&mesh, &prometheus.url(), &[]).await;
        let named = ["telemetry: target_down", "telemetry: alert_firing"];
        !is_well && of_telemetry(&codes) == named
    })
    .await;
    mesh.launch("sidecar general-agent");
    mesh.all_ready().await;
    wait_for("all is well again", || async {
        let (is_well, codes) = watched(&mesh, &prometheus.url(), &[]).await;
        is_well && codes.is_empty()
    })
    .await;
    // Scraped are others alone.
    let others = prometheus::start("scrape_configs: []\n").await;
    let (is_well, codes) = watched(&mesh, &others.url(), &[]).await;
    assert!(
        is_well && codes == ["telemetry: targets_missing"],
        "{codes:?}"
    );
    mesh.stop().await;
}
