//! What is not allowed is refused where it arrives, and written down: calls between agents, tasks whose originator
//! may not reach an agent, requests that no filter has seen.

use crate::usual_token;
use mesh_bus::{BrokerUrl, BusConfig};
use mesh_protocol::AgentId;
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::{wait_for, within};
use reqwest::Response;
use serde_json::{Value, json};

/// Agents may not call one another, and the data processor works for holders of a scope alone.
fn setup() -> Setup {
    let intentions = json!([
        {"from": "gateway", "to": "orchestrator"},
        {"from": "gateway", "to": "general-agent"},
        {"from": "orchestrator", "to": ["general-agent", "hardware-optimizer"]},
        {"from": "orchestrator", "to": "data-processor", "callers": {"scopes": ["data:process"]}},
        {"from": "general-agent", "to": "data-processor", "methods": ["GET"], "paths": ["/health"]},
    ]);
    Setup::default().with("intentions", intentions)
}

/// The line of the audit log in which `matches` holds, as soon as it is there; there must be only one.
async fn line(mesh: &Mesh, matches: impl Fn(&Value) -> bool) -> Value {
    let lines = || mesh.audited().into_iter().filter(&matches);
    wait_for("the audit log", async || lines().next().is_some()).await;
    let lines: Vec<_> = lines().collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = lines.into_iter().next().unwrap();
    assert!(line["@timestamp"].is_string(), "{line}");
    assert!(line["ecs"]["version"].is_string(), "{line}");
    assert_eq!(line["event"]["kind"], "event", "{line}");
    assert_eq!(line["event"]["category"], json!(["network"]), "{line}");
    assert_eq!(line["event"]["type"], json!(["access", "denied"]), "{line}");
    assert_eq!(line["event"]["outcome"], "failure", "{line}");
    line
}

async fn problem(answer: Response, status: u16) -> Value {
    let kind = answer.headers().get("content-type").cloned();
    assert_eq!(answer.status(), status, "{answer:?}");
    assert_eq!(kind.unwrap(), "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    problem
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_is_refused_and_written_down() {
    let mesh = Mesh::start(setup()).await;
    a_call_that_intentions_deny(&mesh).await;
    a_task_whose_originator_may_not_reach_the_agent(&mesh).await;
    a_request_that_skipped_the_filters(&mesh).await;
}

async fn a_call_that_intentions_deny(mesh: &Mesh) {
    let out = mesh.outbound("general-agent");
    let health = format!("{out}/data-processor/health");
    let allowed = mesh.client().get(health).send().await.unwrap();
    assert_eq!(allowed.status(), 200, "{:?}", allowed.text().await);

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let denied = mesh
        .client()
        .post(format!("{out}/data-processor/process"))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .json(&json!({"payload": {"csv": "a\n1\n"}}));
    let problem = problem(denied.send().await.unwrap(), 403).await;
    assert!(problem["detail"].is_string(), "{problem}");

    let line = line(mesh, |line| {
        line["service"]["name"] == "data-processor" && line["event"]["action"] == "request-refused"
    })
    .await;
    assert_eq!(line["service"]["origin"]["name"], "general-agent", "{line}");
    let names = &line["tls"]["client"]["x509"]["alternative_names"];
    let name = names[0].as_str().unwrap();
    assert!(name.starts_with("spiffe://"), "{line}");
    assert!(name.ends_with("/svc/general-agent"), "{line}");
    assert_eq!(line["http"]["request"]["method"], "POST", "{line}");
    assert_eq!(line["url"]["path"], "/process", "{line}");
    assert_eq!(line["trace"]["id"], trace, "{line}");
}

async fn a_task_whose_originator_may_not_reach_the_agent(mesh: &Mesh) {
    let may = mesh.token("bob", "tasks:write data:process").await;
    let answer = mesh.task(&may, "data-processor").send().await.unwrap();
    let task: Value = answer.json().await.unwrap();
    assert_eq!(task["status"], "completed", "{task}");
    assert!(mesh.audited().iter().all(|l| l["user"]["id"] != "bob"));

    let token = mesh.token("mallory", "tasks:write").await;
    let answer = mesh.task(&token, "data-processor").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let task: Value = answer.json().await.unwrap();
    assert_eq!(task["status"], "failed", "{task}");
    assert_eq!(task["error"]["code"], "not_allowed", "{task}");
    assert!(task["error"]["detail"].is_string(), "{task}");
    let id = task["task_id"].as_str().unwrap();

    let line = line(mesh, |line| line["event"]["action"] == "task-refused").await;
    assert_eq!(line["service"]["name"], "data-processor", "{line}");
    assert_eq!(line["user"]["id"], "mallory", "{line}");
    assert_eq!(line["labels"]["task_id"], id, "{line}");

    let url = BrokerUrl::try_from(mesh.broker().to_owned()).unwrap();
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url })
        .await
        .unwrap();
    let agent: AgentId = "data-processor".parse().unwrap();
    let mut dead = bus.consume(&agent.dead_queue(), 1).await.unwrap();
    let letter = within("the dead letter", dead.next()).await.unwrap();
    let step: Value = serde_json::from_slice(&letter.message.body).unwrap();
    assert_eq!(step["task_id"], id, "{step}");
    let reason = letter.message.properties.reason.clone().unwrap();
    assert!(reason.starts_with("not allowed"), "{reason}");
    letter.ack().await.unwrap();
    bus.close().await;
}

/// What a gateway would do whose filters did not run.
async fn a_request_that_skipped_the_filters(mesh: &Mesh) {
    let out = mesh.outbound("gateway");
    let skipped = mesh
        .client()
        .post(format!("{out}/orchestrator/orchestrate"))
        .json(&json!({"task_type": "general-agent", "payload": {}}));
    problem(skipped.send().await.unwrap(), 401).await;
    let missing = line(mesh, |line| line["service"]["name"] == "orchestrator").await;
    assert_eq!(missing["event"]["action"], "request-refused", "{missing}");
    assert_eq!(missing["event"]["code"], "assertion_missing", "{missing}");
    assert_eq!(missing["service"]["origin"]["name"], "gateway", "{missing}");
    assert_eq!(missing["url"]["path"], "/orchestrate", "{missing}");
    // An agent is no nearer.
    let skipped = mesh
        .client()
        .post(format!("{out}/general-agent/process"))
        .json(&json!({"payload": {}}));
    problem(skipped.send().await.unwrap(), 401).await;
    let at_agent = |line: &Value| line["service"]["name"] == "general-agent";
    let missing = line(mesh, at_agent).await;
    assert_eq!(missing["event"]["code"], "assertion_missing", "{missing}");
    // The filters' own questions bring no caller, but the mesh's token.
    let load = || {
        mesh.client()
            .get(format!("{out}/orchestrator/internal/load"))
    };
    let asked = load().bearer_auth(mesh.internal_token());
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    assert_eq!(load().send().await.unwrap().status(), 401);
    let token = usual_token(mesh).await;
    let answer = mesh.task(&token, "general-agent").send().await.unwrap();
    assert_eq!(answer.status(), 200, "a request with all of it passes");
}
