//! `Idempotency-Key`: who sends a task again gets the same task.

use crate::mesh::{Ground, Mesh, assertion, config};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::HashSet;

async fn task_id(response: reqwest::Response) -> String {
    let answer: Value = response.json().await.unwrap();
    answer["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_same_request_is_the_same_task() {
    let mesh = Mesh::start(config()).await;
    let task = json!({"task": "system_optimization", "payload": {"a": 1, "b": 2}});
    let key = ("idempotency-key", "once");
    let first = mesh.post_with(&task, &[key]).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let id = task_id(first).await;
    mesh.ended(&id).await;
    // While it goes and when it has ended; bare and as the draft writes it.
    for key in [key, ("idempotency-key", "\"once\"")] {
        let again = mesh.post_with(&task, &[key]).await;
        assert_eq!(again.status(), StatusCode::OK);
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(task_id(again).await, id);
    }
    let headers = [key, ("prefer", "wait=20")];
    let waited = mesh.post_with(&task, &headers).await;
    let answer: Value = waited.json().await.unwrap();
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["results"].as_object().unwrap().len(), 2);
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_task_that_goes_on_answers_as_it_did() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let task = json!({"task": "system_optimization"});
    let headers = [("idempotency-key", "k"), ("prefer", "respond-async")];
    let first = mesh.post_with(&task, &headers).await;
    let location = first.headers()["location"].clone();
    let again = mesh.post_with(&task, &headers).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(again.headers()["location"], location);
}

#[tokio::test]
async fn another_body_is_refused() {
    let mesh = Mesh::start(config()).await;
    let key = [("idempotency-key", "once")];
    let first = mesh
        .post_with(&json!({"task": "system_optimization"}), &key)
        .await;
    assert_eq!(first.status(), StatusCode::OK);
    let other = json!({"task": "system_optimization", "priority": 9});
    let refused = mesh.post_with(&other, &key).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );
    let problem: Value = refused.json().await.unwrap();
    let kind = "urn:agent-mesh:problem:idempotency-key-reused";
    assert_eq!(problem["type"], kind);
    let task = json!({"task": "system_optimization"});
    for bad in ["", "\"\"", &"k".repeat(256)] {
        let refused = mesh.post_with(&task, &[("idempotency-key", bad)]).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn a_key_belongs_to_its_caller() {
    let mesh = Mesh::start(config()).await;
    let task = json!({"task": "system_optimization"});
    let mut ids = HashSet::new();
    for _ in 0..2 {
        for caller in [Some("alice"), Some("bob"), None] {
            let assertion = caller.map(|sub| assertion(sub, ""));
            let mut headers = vec![("idempotency-key", "k")];
            if let Some(assertion) = &assertion {
                headers.push(("x-mesh-assertion", assertion));
            }
            let answer = mesh.post_with(&task, &headers).await;
            assert_eq!(answer.status(), StatusCode::OK);
            ids.insert(task_id(answer).await);
        }
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn of_many_at_once_one_begins() {
    let mesh = Mesh::start(config()).await;
    let task = json!({"task": "system_optimization"});
    let headers = [("idempotency-key", "k")];
    let answers = join_all((0..20).map(|_| mesh.post_with(&task, &headers))).await;
    let ids: HashSet<String> = join_all(answers.into_iter().map(task_id))
        .await
        .into_iter()
        .collect();
    assert_eq!(ids.len(), 1);
    let id = ids.into_iter().next().unwrap();
    mesh.ended(&id).await;
    mesh.metric("orchestrator_tasks_total{outcome=\"completed\"} 1")
        .await;
    mesh.metric("orchestrator_tasks_in_flight 0").await;
}
