//! Applied, no difference; changed by hand, exactly that difference; applied, none again.

use crate::scene::{Scene, both};
use mesh_tests::consul;
use mesh_tests::rabbitmq::Release;
use reqwest::Method;
use serde_json::{Value, json};

const MESSAGING: &str = "  queues: [{name: audit.all, arguments: {x-max-length: 10}, bindings: [{exchange: ai.events}]}]\n  \
    exchanges: [{name: audit, type: topic}]\n  \
    policies: [{name: short, pattern: '^audit', definition: {message-ttl: 60000}}]";

fn more(consul: &str) -> String {
    format!(
        "registry: {{backend: consul, url: \"{consul}\"}}\n\
         services:\n  - {{name: backend-api, url: \"http://backend:8000\", tags: [api, primary], check: {{tcp: \"127.0.0.1:1\", interval: 10s, timeout: 1s}}}}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_by_hand_is_seen_and_mended_with_rabbitmq_3() {
    changed_by_hand(Release::Three).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_by_hand_is_seen_and_mended_with_rabbitmq_4() {
    changed_by_hand(Release::Four).await;
}

async fn changed_by_hand(release: Release) {
    let scene = Scene::new(release).await;
    let consul = consul::start().await;
    scene.write(&scene.management, MESSAGING, &more(&consul.url()));
    let v = scene.vhost.clone();

    let first = scene.differences().await;
    assert!(
        first.iter().all(|said| said.starts_with("Created ")),
        "{first:?}"
    );
    assert!(first.len() > 20, "{first:?}");
    let dry = scene.mesh(&["apply", "--dry-run"]).await;
    assert_eq!(dry.status.code(), Some(2), "{}", both(&dry));
    let unasked = scene.mesh(&["apply"]).await;
    assert_eq!(unasked.status.code(), Some(2), "{}", both(&unasked));
    assert_eq!(scene.queues().await, [""; 0], "nothing was done");

    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
    let again = scene.mesh(&["apply", "--yes"]).await;
    assert!(both(&again).contains("no difference"), "{}", both(&again));

    // Others' own: none of it is the mesh's.
    let queue = json!({"durable": true});
    scene
        .by_hand(Method::PUT, &format!("queues/{v}/billing"), queue)
        .await;
    let binding = json!({"routing_key": "#"});
    scene
        .by_hand(
            Method::POST,
            &format!("bindings/{v}/e/ai.events/q/billing"),
            binding,
        )
        .await;
    let policy = json!({"pattern": "^billing", "definition": {"max-length": 5}});
    scene
        .by_hand(Method::PUT, &format!("policies/{v}/billing"), policy)
        .await;
    consul
        .put(
            "/v1/agent/service/register",
            json!({"Name": "billing", "Port": 1}),
        )
        .await;
    let intention =
        json!({"SourceName": "billing", "DestinationName": "ledger", "Action": "allow"});
    consul.post("/v1/connect/intentions", intention).await;
    assert_eq!(scene.differences().await, [""; 0]);

    // A queue deleted, a binding removed, one added, a policy changed, an intention deleted, one added, a tag changed.
    scene
        .by_hand(
            Method::DELETE,
            &format!("queues/{v}/agent.worker.tasks.delay.500"),
            Value::Null,
        )
        .await;
    let path = format!("bindings/{v}/e/ai.tasks/q/agent.worker.tasks/task.worker.%252A");
    scene.by_hand(Method::DELETE, &path, Value::Null).await;
    let binding = json!({"routing_key": "x.#"});
    scene
        .by_hand(
            Method::POST,
            &format!("bindings/{v}/e/audit/q/audit.all"),
            binding,
        )
        .await;
    let policy = json!({"pattern": "^audit", "apply-to": "queues", "priority": 0, "definition": {"message-ttl": 1}});
    scene
        .by_hand(Method::PUT, &format!("policies/{v}/short"), policy)
        .await;
    let ways = consul.get("/v1/connect/intentions").await;
    let way = ways.as_array().unwrap().iter();
    let mut way =
        way.filter(|w| w["SourceName"] == "gateway" && w["DestinationName"] == "orchestrator");
    let id = way.next().unwrap()["ID"].as_str().unwrap();
    consul.delete(&format!("/v1/connect/intentions/{id}")).await;
    let intention =
        json!({"SourceName": "billing", "DestinationName": "worker", "Action": "allow"});
    consul.post("/v1/connect/intentions", intention).await;
    let mut service = registration(&consul.get("/v1/agent/service/backend-api-1").await);
    service["Tags"] = json!(["api", "secondary"]);
    consul.put("/v1/agent/service/register", service).await;

    let wanted = [
        "Updated rabbitmq policy short",
        "Created rabbitmq queue agent.worker.tasks.delay.500",
        "Created rabbitmq binding ai.tasks -> agent.worker.tasks (task.worker.*)",
        "Deleted rabbitmq binding audit -> audit.all (x.#)",
        "Updated consul service backend-api-1",
        "Created consul intention gateway -> orchestrator",
        "Deleted consul intention billing -> worker",
    ];
    assert_eq!(scene.differences().await, wanted);
    let shown = scene.mesh(&["diff"]).await;
    let shown = both(&shown);
    for line in [
        "-    \"message-ttl\": 1",
        "+    \"message-ttl\": 60000",
        "-    \"secondary\"",
        "+    \"primary\"",
    ] {
        assert!(shown.contains(line), "{line} in:\n{shown}");
    }
    assert!(shown.contains("3 created, 2 updated, 2 deleted"), "{shown}");

    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
    assert!(scene.queues().await.contains(&"billing".to_owned()));
    assert!(
        consul
            .get("/v1/agent/services")
            .await
            .get("billing")
            .is_some()
    );

    // What mesh.yaml has no more goes, since an apply has noted that it is the mesh's.
    scene.write(&scene.management, "", &more(&consul.url()));
    let wanted = [
        "Deleted rabbitmq queue audit.all",
        "Deleted rabbitmq binding ai.events -> audit.all ()",
        "Deleted rabbitmq exchange audit",
        "Deleted rabbitmq policy short",
    ];
    assert_eq!(scene.differences().await, wanted);
    scene.apply().await;
    assert_eq!(scene.differences().await, [""; 0]);
    assert!(!scene.queues().await.contains(&"audit.all".to_owned()));
}

/// What Consul answers of a service, as a registration.
fn registration(service: &Value) -> Value {
    let mut body = json!({"Name": service["Service"]});
    for field in ["ID", "Address", "Port", "Meta"] {
        body[field] = service[field].clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_trouble_and_no_difference() {
    let scene = Scene::new(Release::Three).await;
    scene.write("http://127.0.0.1:9", "", "");
    let out = scene.mesh(&["diff"]).await;
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(
        both(&out).contains("RabbitMQ's management API at http://127.0.0.1:9/: nobody listens"),
        "{}",
        both(&out)
    );
    let out = scene.mesh(&["diff", "--only", "kong"]).await;
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(both(&out).contains("gateway: {admin"), "{}", both(&out));
    scene.write(&scene.management, "  vhost: elsewhere", "");
    let out = scene.mesh(&["diff"]).await;
    assert!(
        both(&out).contains("messaging.url names another virtual host"),
        "{}",
        both(&out)
    );
}
