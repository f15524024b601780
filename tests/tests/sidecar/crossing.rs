//! A task crosses the mesh, Prometheus finds every sidecar, and `mesh status` shows the same ones.

use crate::{services, usual_token};
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::{prometheus, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The configuration that is rendered for this mesh; only where its gateway serves metrics is not known to mesh.yaml.
async fn scrape_configuration(mesh: &Mesh) -> PathBuf {
    let mut described: Value =
        serde_json::from_str(&std::fs::read_to_string(mesh.file()).unwrap()).unwrap();
    let gateway = json!({"name": "kong", "targets": [mesh.gateway_status()]});
    described["telemetry"] = json!({"scrape_interval": "5s", "jobs": [gateway]});
    let file = mesh.file().with_file_name("scraped.yaml");
    std::fs::write(&file, described.to_string()).unwrap();
    let (file, out) = (
        file.display().to_string(),
        mesh.file().with_file_name("scraped"),
    );
    let arguments = [
        "render",
        "prometheus",
        &file,
        "--out",
        &out.display().to_string(),
    ];
    let done = mesh.command(&arguments).await;
    assert!(done.status.success(), "{done:?}");
    out.join("prometheus.yml")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_crosses_and_every_sidecar_is_seen() {
    let mut mesh = Mesh::start(Setup::default()).await;
    let token = usual_token(&mesh).await;

    let answer = mesh.task(&token, "everyone").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let task: Value = answer.json().await.unwrap();
    assert_eq!(task["status"], "completed", "{task}");
    let steps = task["execution"]["steps"].as_array().unwrap();
    let agents: BTreeSet<_> = steps.iter().map(|s| s["agent"].as_str().unwrap()).collect();
    let all = ["general-agent", "data-processor", "hardware-optimizer"];
    assert_eq!(agents, BTreeSet::from(all), "{task}");
    let direct = mesh.direct(&token, "general-agent").send().await.unwrap();
    assert_eq!(direct.status(), 200);
    let direct: Value = direct.json().await.unwrap();
    assert_eq!(direct["agent"], "general-agent", "{direct}");

    let expected: BTreeSet<String> = services(&mesh).into_iter().collect();
    let prometheus = prometheus::start_with(&scrape_configuration(&mesh).await).await;
    wait_for("prometheus to find and reach every sidecar", async || {
        let up = prometheus.query("up").await;
        let of = |jobs: &'static [&str]| up.iter().filter(|s| jobs.contains(&&*s.labels["job"]));
        let sidecars = || of(&["ai-agents", "sidecar"]);
        let found: BTreeSet<String> = sidecars().map(|s| s.labels["service"].clone()).collect();
        found == expected
            && sidecars().count() == expected.len()
            && of(&["kong"]).count() == 1
            && of(&["consul"]).count() == 1
            && of(&["orchestrator"]).count() == 1
            && up.iter().all(|sample| sample.value == 1.0)
    })
    .await;

    let (up, down) = status(&mesh).await;
    assert!(down.is_empty(), "{down:?}");
    let of = |kind: &'static str| -> BTreeSet<String> {
        let of = up.iter().filter(|(k, _)| k == kind);
        of.map(|(_, name)| name.clone()).collect()
    };
    assert_eq!(of("sidecar"), expected);
    assert_eq!(of("agent").len(), all.len());
    assert_eq!(of("gateway").len() + of("orchestrator").len(), 2);

    // One that is gone is missed by both, and no other.
    mesh.kill("sidecar hardware-optimizer").await;
    let gone = || ("sidecar".to_owned(), "hardware-optimizer".to_owned());
    assert_eq!(status(&mesh).await.1, BTreeSet::from([gone()]));
    wait_for("prometheus to miss the sidecar", async || {
        let down = prometheus.query("up == 0").await;
        down.len() == 1 && down[0].labels["service"] == gone().1
    })
    .await;
}

type Parts = BTreeSet<(String, String)>;

/// The parts that `mesh status` calls up and down, by kind and name.
async fn status(mesh: &Mesh) -> (Parts, Parts) {
    let file = mesh.file().display().to_string();
    let said = mesh.command(&["status", &file, "-o", "json"]).await;
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    let text = |part: &Value, field: &str| part[field].as_str().unwrap().to_owned();
    let (up, down): (Vec<_>, Vec<_>) = report["parts"]
        .as_array()
        .unwrap()
        .iter()
        .partition(|part| part["up"] == true);
    assert_eq!(report["up"], down.is_empty(), "{report}");
    assert_eq!(said.status.success(), down.is_empty(), "{said:?}");
    let named = |parts: Vec<&Value>| {
        let parts = parts.into_iter();
        parts
            .map(|part| (text(part, "kind"), text(part, "name")))
            .collect()
    };
    (named(up), named(down))
}
