//! The whole mesh as users run it (`mesh up`), on a real RabbitMQ and a real Redis: a client with a
//! token, the gateway and its filter, orchestrator, broker, sidecars, agents, and back.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mesh_tests::binary::binary;
use mesh_tests::server::{Server, directory, free_port};
use mesh_tests::{rabbitmq, redis, wait_for};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const BODY: &str = r#"{"task_type": "system_optimization", "payload": {}, "priority": 7}"#;

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_task_crosses_the_mesh_and_leaves_its_record() {
    let broker = rabbitmq::shared().await.vhost().await;
    let store = redis::shared().await.database();
    let home = directory("mesh");
    let (gateway, orchestrator) = (free_port(), free_port());
    let mesh = format!(
        "version: 1
mesh: crossing
gateway: {{listen: 127.0.0.1:{gateway}, auth: {{development: true}}}}
orchestrator: {{listen: 127.0.0.1:{orchestrator}}}
messaging: {{backend: memory}}
store: {{backend: memory}}
agents:
  - {{id: hardware-optimizer, capabilities: [hardware], run: {{builtin: hardware-optimizer}}}}
  - {{id: resource-arbitrator, capabilities: [leases], run: {{builtin: resource-arbitrator}}}}
"
    );
    std::fs::write(home.path().join("mesh.yaml"), mesh).unwrap();
    let file = home.path().join("mesh.yaml").display().to_string();
    let environment = [("RABBITMQ_URL", broker), ("REDIS_URL", store.clone())];
    let up = Server::start(&binary("mesh"), &["up", &file], &environment, home.path());
    up.listens_on(gateway).await;
    let token = run(&binary("mesh"), &["token"], home.path());

    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{gateway}");
    wait_for("the mesh to be ready", || async {
        let ready = format!("http://127.0.0.1:{orchestrator}/ready");
        client
            .get(ready)
            .send()
            .await
            .is_ok_and(|r| r.status() == 200)
    })
    .await;
    let post = || client.post(format!("{url}/ai/orchestrate")).body(BODY);
    let refused = post().send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().contains_key("www-authenticate"));

    let accepted = post().bearer_auth(&token).send().await.unwrap();
    assert_eq!(accepted.status(), 200);
    let accepted: Value = accepted.json().await.unwrap();
    let id = accepted["task_id"].as_str().unwrap().to_owned();
    assert_eq!(accepted["plan"]["source"], "rules");
    assert_eq!(accepted["execution"]["steps"].as_array().unwrap().len(), 2);
    let task = || async {
        let asked = client.get(format!("{url}/task/{id}")).bearer_auth(&token);
        asked.send().await.unwrap().json::<Value>().await.unwrap()
    };
    wait_for("the task to end", || async {
        task().await["status"] == "completed"
    })
    .await;
    let ended = task().await;
    let cores = &ended["steps"]["hardware-optimizer"]["result"]["figures"]["cores"];
    let here = std::thread::available_parallelism().unwrap().get();
    assert!(cores.as_u64().is_some_and(|n| n >= here as u64), "{ended}");

    // The record in Redis, by the plan's names.
    let get = |field: &str| {
        run(
            "redis-cli",
            &["-u", &store, "hget", &format!("task:{id}"), field],
            home.path(),
        )
    };
    assert_eq!(get("status"), "completed");
    let plan: Value = serde_json::from_str(&get("plan")).unwrap();
    assert_eq!(plan["agents_required"][0], "hardware-optimizer");
    let step: Value = serde_json::from_str(&get("step:resource-arbitrator")).unwrap();
    assert_eq!(step["status"], "completed");
    up.stop().await;
}
