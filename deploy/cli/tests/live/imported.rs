//! Rendered files in the hands of their readers: definitions imported by RabbitMQ 3 and 4, after which the parts
//! themselves declare without a refusal; Consul's files validated, and taken by an agent.

use crate::scene::{Scene, both, broker, command, run};
use mesh_tests::rabbitmq::Release;
use mesh_tests::server::{Server, directory, free_port, installed};
use mesh_tests::{wait_for, within};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command};

/// A mesh with every kind of queue that there is, which `mesh up` can run.
fn yaml(management: &str, vhost: &str) -> String {
    format!(
        "version: 1\nmesh: imported\n\
         gateway: {{listen: \"127.0.0.1:0\", auth: {{development: true}}}}\n\
         orchestrator: {{listen: \"127.0.0.1:0\", planner: {{general_agent: general-agent}}}}\n\
         messaging:\n  backend: rabbitmq\n  url: {{env: RABBITMQ_URL}}\n  vhost: {vhost}\n  management: {{url: \"{management}\"}}\n  max_length: 5000\n  \
         exchanges: [{{name: audit, type: headers}}]\n  \
         queues: [{{name: audit.all, arguments: {{x-queue-type: quorum}}, bindings: [{{exchange: audit, arguments: {{x-match: any, a: b}}}}, {{exchange: ai.events}}]}}]\n  \
         policies: [{{name: p, pattern: '^audit', definition: {{message-ttl: 60000}}}}]\n\
         store: {{backend: memory}}\n\
         agents:\n  - {{id: general-agent, run: {{builtin: general-agent}}}}\n  \
         - {{id: data-processor, capabilities: [data_processing], run: {{builtin: data-processor}}, queue_kind: classic, delivery: {{delayed_retries: 0}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_imported_by_rabbitmq_3_and_the_parts_declare_the_same() {
    imported(Release::Three).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_imported_by_rabbitmq_4_and_the_parts_declare_the_same() {
    imported(Release::Four).await;
}

async fn imported(release: Release) {
    let scene = Scene::new(release).await;
    let dir = scene.dir.path();
    let mesh = yaml(&scene.management, &scene.vhost);
    std::fs::write(dir.join("mesh.yaml"), &mesh).unwrap();
    let out = scene.mesh(&["render", "rabbitmq", "--out", "out"]).await;
    assert!(out.status.success(), "{}", both(&out));
    let definitions = std::fs::read_to_string(dir.join("out/rabbitmq.json")).unwrap();
    let definitions: Value = serde_json::from_str(&definitions).unwrap();
    assert_eq!(definitions.get("users"), None, "no user without secrets");
    scene
        .by_hand(Method::POST, "definitions", definitions.clone())
        .await;
    let held = scene
        .by_hand(Method::GET, &format!("queues/{}", scene.vhost), Value::Null)
        .await;
    assert_eq!(
        held.as_array().unwrap().len(),
        definitions["queues"].as_array().unwrap().len()
    );
    // Imported is applied.
    assert_eq!(scene.differences().await, [""; 0]);

    // Orchestrator and sidecars declare the same: a task crosses the broker, and nothing is different afterwards.
    let up = Up(scene.command(&["up"]).spawn().unwrap());
    task_completes(&scene).await;
    // A refusal to declare would not stop the task, and is told by the orchestrator.
    assert_eq!(ready(&scene).await, 200);
    assert_eq!(scene.differences().await, [""; 0]);
    drop(up);

    // And the other way: what the parts declared by themselves is what mesh.yaml renders.
    let other = Scene::new(release).await;
    let mesh = yaml(&other.management, &other.vhost)
        .replace("  exchanges: [{name: audit, type: headers}]\n", "");
    let mesh: String = mesh
        .lines()
        .filter(|line| {
            !line.trim_start().starts_with("queues:") && !line.trim_start().starts_with("policies:")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(other.dir.path().join("mesh.yaml"), mesh).unwrap();
    let _up = Up(other.command(&["up"]).spawn().unwrap());
    task_completes(&other).await;
    assert_eq!(ready(&other).await, 200);
    assert_eq!(other.differences().await, [""; 0]);
}

/// A running mesh; ends with the test.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the running orchestrator's `/ready` answers: 503 where a queue is not as it wants it.
async fn ready(scene: &Scene) -> u16 {
    let file = scene.dir.path().join(".mesh/up-imported.json");
    let running: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let url = format!("http://{}/ready", running["orchestrator"].as_str().unwrap());
    let answer = within("the orchestrator", reqwest::get(url)).await.unwrap();
    answer.status().as_u16()
}

async fn task_completes(scene: &Scene) {
    let payload = r#"{"csv": "city,visits\nOslo,3\nRome,5\n"}"#;
    wait_for("a task over the broker", || async {
        let out = scene
            .mesh(&["submit", "data_processing", "--payload", payload])
            .await;
        out.status.code() == Some(0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_form_makes_the_meshs_user_who_may_apply() {
    let scene = Scene::new(Release::Three).await;
    let port = broker(Release::Three).await.port();
    let url = format!(
        "amqp://shop:s%40fe-hunter2@127.0.0.1:{port}/{}",
        scene.vhost
    );
    let dir = scene.dir.path();
    std::fs::write(dir.join("mesh.yaml"), yaml(&scene.management, &scene.vhost)).unwrap();
    let mesh = |arguments: &[&str]| run(command(dir, &url, arguments));
    let out = mesh(&["diff"]).await;
    assert!(both(&out).contains("answers 401"), "{}", both(&out));
    let out = mesh(&["render", "rabbitmq", "--out", "out", "--secrets"]).await;
    assert!(out.status.success(), "{}", both(&out));
    let text = std::fs::read_to_string(dir.join("out/rabbitmq.secret.json")).unwrap();
    assert!(!text.contains("hunter2"), "a hash, not a password");
    let mut definitions: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(definitions["users"][0]["name"], "shop");
    // The rest is for its user to make.
    for field in ["exchanges", "queues", "bindings", "policies"] {
        definitions[field] = json!([]);
    }
    scene
        .by_hand(Method::POST, "definitions", definitions)
        .await;
    let out = mesh(&["apply", "--yes"]).await;
    assert_eq!(out.status.code(), Some(0), "{}", both(&out));
    let out = mesh(&["diff"]).await;
    assert_eq!(out.status.code(), Some(0), "{}", both(&out));
}

const CONSUL: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}, sidecar: {outbound: \"127.0.0.1:15101\", admin_listen: \"127.0.0.1:15102\"}}\n\
    orchestrator: {planner: {general_agent: worker}, sidecar: {listen: \"127.0.0.1:15201\", admin_listen: \"127.0.0.1:15202\"}}\n\
    registry: {backend: consul, url: \"http://127.0.0.1:PORT\"}\n\
    services:\n  - {name: backend-api, url: \"http://backend:8000\", tags: [api], check: {http: \"http://127.0.0.1:1/health\", interval: 10s, timeout: 5s}}\n  \
    - {name: postgres, url: \"tcp://postgres:5432\", check: {tcp: \"127.0.0.1:1\", interval: 10s, timeout: 5s}}\n\
    agents: [{id: worker, endpoint: 'http://127.0.0.1:9', sidecar: {listen: \"127.0.0.1:15301\", admin_listen: \"127.0.0.1:15302\"}}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consuls_files_are_valid_and_an_agent_takes_them() {
    let home = directory("consul-files");
    let dir = home.path();
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    let mesh = CONSUL.replace("PORT", &ports[0].to_string());
    std::fs::write(dir.join("mesh.yaml"), mesh).unwrap();
    let out = run(command(
        dir,
        "amqp://127.0.0.1",
        &["render", "consul", "--out", "out"],
    ))
    .await;
    assert!(out.status.success(), "{}", both(&out));
    assert!(
        dir.join("out/consul.d-intentions/orchestrator.json")
            .is_file()
    );

    let config = json!({
        "data_dir": dir.join("data"),
        "bind_addr": "127.0.0.1",
        "enable_central_service_config": true,
        "connect": {"enabled": true},
        "ports": {"http": ports[0], "dns": -1, "grpc": -1, "serf_lan": ports[1], "serf_wan": ports[2], "server": ports[3]},
    });
    std::fs::write(dir.join("base.json"), config.to_string()).unwrap();
    let valid = validate(dir);
    assert!(valid.contains("Configuration is valid!"), "{valid}");

    let arguments = [
        "agent",
        "-dev",
        "-config-file",
        "base.json",
        "-config-dir",
        "out/consul.d",
    ];
    let server = Server::start("consul", &arguments, &[], dir);
    server.listens_on(ports[0]).await;
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", ports[0]);
        async move {
            let answer = reqwest::get(url).await.ok()?;
            answer.json::<Value>().await.ok()
        }
    };
    wait_for("the config entries", || async {
        get("/v1/config/service-defaults")
            .await
            .is_some_and(|entries| entries.as_array().is_some_and(|all| all.len() == 3))
    })
    .await;
    let services = within("services", get("/v1/agent/services")).await.unwrap();
    for id in [
        "backend-api-1",
        "postgres-1",
        "gateway-127-0-0-1-15102",
        "orchestrator-127-0-0-1-15201",
        "worker-127-0-0-1-15301",
    ] {
        assert!(services.get(id).is_some(), "{id} in {services:#}");
    }
    // What is left is what no file of an agent can hold.
    let out = run(command(dir, "amqp://127.0.0.1", &["diff", "-o", "json"])).await;
    let report: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", both(&out)));
    let kinds = report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["kind"].as_str().unwrap());
    let kinds: Vec<&str> = kinds.collect();
    assert!(
        !kinds.is_empty() && kinds.iter().all(|kind| *kind == "intention"),
        "{report:#}"
    );
}

fn validate(dir: &Path) -> String {
    let mut consul = Command::new(installed("consul"));
    let out = consul
        .args(["validate", "base.json", "out/consul.d"])
        .current_dir(dir)
        .output()
        .unwrap();
    both(&out)
}
