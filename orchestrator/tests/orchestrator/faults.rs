//! A Redis that forgets, freezes, or holds something else: no task ends in silence.

use crate::mesh::{Ground, Mesh, answer_well, config};
use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::run::new_task_id;
use mesh_orchestrator::store::contract::sample;
use mesh_orchestrator::store::{RedisStore, ReplicaId, RunRecord};
use mesh_tests::redis::{self, Store};
use mesh_tests::wait_for;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub async fn ground(server: &Store) -> Ground {
    let url = StoreUrl::try_from(server.url()).unwrap();
    let store = RedisStore::connect(&url, Duration::from_secs(3600))
        .await
        .unwrap();
    Ground {
        store: Arc::new(store),
        ..Ground::new()
    }
}

/// What an operator, or somebody else's program, does to the store.
pub fn redis_cli(server: &Store, arguments: &[&str]) {
    let output = Command::new("redis-cli")
        .args(["-u", &server.url()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Keeps a run of a replica that is no more.
async fn keep(ground: &Ground, run: &RunRecord) {
    let created = ground.store.create(run, ReplicaId::random()).await;
    created.unwrap();
}

fn unfinished_are_none(server: &Store) {
    let output = Command::new("redis-cli")
        .args(["-u", &server.url(), "ZCARD", "tasks:unfinished"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0");
}

fn signal(server: &Store, name: &str) {
    let pid = server.pid().to_string();
    let kill = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(kill.unwrap().success());
}

pub async fn ready(mesh: &Mesh) {
    wait_for("the orchestrator to be ready", async || {
        mesh.get("/ready").await.status() == 200
    })
    .await;
}

#[tokio::test]
async fn a_store_that_lost_its_memory_gets_running_tasks_again() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let id = mesh.submit(&json!({"task": "system_optimization"})).await;
    redis_cli(&server, &["FLUSHALL"]);
    for agent in ["hardware-optimizer", "resource-arbitrator"] {
        mesh.agent(agent, answer_well).await;
    }
    mesh.ended(&id).await;
    // What is stored is whole: another process reads it, and lists it.
    let stored = mesh.ground.store.load(&id.parse().unwrap()).await;
    let stored = stored.unwrap().unwrap();
    assert_eq!(stored.status.as_str(), "completed");
    assert!(stored.steps.iter().all(|step| step.result.is_some()));
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"][0]["task_id"], id.as_str());
}

#[tokio::test]
async fn an_emptied_store_is_noticed_and_gets_what_nobody_touches() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let id = mesh.submit(&json!({"task": "system_optimization"})).await;
    redis_cli(&server, &["FLUSHALL"]);
    mesh.metric("orchestrator_store_emptied_total 1").await;
    mesh.metric("orchestrator_runs_written_again_total 1").await;
    let stored = mesh.ground.store.load(&id.parse().unwrap()).await;
    assert_eq!(stored.unwrap().unwrap().status.as_str(), "in_progress");
    let readiness = mesh.until("/ready", |r| r["ready"] == true).await;
    let note = readiness["notes"][0].as_str().unwrap();
    assert!(note.contains("found emptied"), "{note}");
    for agent in ["hardware-optimizer", "resource-arbitrator"] {
        mesh.agent(agent, answer_well).await;
    }
    assert_eq!(mesh.ended(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_taken_back() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let id = mesh.submit(&json!({"task": "system_optimization"})).await;
    let key = format!("task:{id}");
    redis_cli(&server, &["DEL", &key]);
    redis_cli(&server, &["SET", &key, "x"]);
    for agent in ["hardware-optimizer", "resource-arbitrator"] {
        mesh.agent(agent, answer_well).await;
    }
    assert_eq!(mesh.ended(&id).await["status"], "completed");
    let stored = mesh.ground.store.load(&id.parse().unwrap()).await.unwrap();
    assert_eq!(stored.unwrap().status.as_str(), "completed");
}

#[tokio::test]
async fn tasks_that_cannot_be_read_do_not_stop_the_others() {
    let server = redis::start().await;
    let ground = ground(&server).await;
    let (wrong_type, wrong_hash, gone, good) = (
        new_task_id().to_string(),
        sample(None),
        new_task_id().to_string(),
        sample(None),
    );
    redis_cli(&server, &["SET", &format!("task:{wrong_type}"), "x"]);
    keep(&ground, &wrong_hash).await;
    keep(&ground, &good).await;
    let wrong_hash = wrong_hash.task_id.to_string();
    let hash = format!("task:{wrong_hash}");
    redis_cli(&server, &["HSET", &hash, "plan", "{", "task_type", "\u{1}"]);
    for id in [&wrong_type, &gone] {
        redis_cli(&server, &["ZADD", "tasks:unfinished", "0", id]);
        redis_cli(&server, &["ZADD", "tasks:all", "0", id]);
    }
    let mesh = Mesh::without_agents(config(), ground).await;
    ready(&mesh).await;
    mesh.agent("data-processor", answer_well).await;
    let good = good.task_id.to_string();
    assert_eq!(mesh.ended(&good).await["status"], "completed");
    for id in [&wrong_type, &wrong_hash] {
        let task = mesh.get_json(&format!("/task/{id}")).await;
        assert_eq!(task["status"], "failed");
        assert_eq!(task["error"]["code"], "corrupt");
    }
    assert_eq!(mesh.get(&format!("/task/{gone}")).await.status(), 404);
    unfinished_are_none(&server);
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 3, "{listed}");
}

#[tokio::test]
async fn one_bad_key_does_not_hide_the_other_tasks() {
    let server = redis::start().await;
    let ground = ground(&server).await;
    let good = sample(None);
    keep(&ground, &good).await;
    let bad = new_task_id().to_string();
    redis_cli(&server, &["SET", &format!("task:{bad}"), "x"]);
    redis_cli(&server, &["ZADD", "tasks:all", "0", &bad]);
    let mesh = Mesh::without_agents(config(), ground).await;
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"][0]["task_id"], good.task_id.as_str());
}

#[tokio::test]
async fn a_task_that_was_refused_is_not_run_later() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    signal(&server, "STOP");
    let refused = mesh.post(&json!({"task": "data_processing"})).await;
    signal(&server, "CONT");
    assert_eq!(refused.status(), 503);
    wait_for("the task to be withdrawn", async || {
        let listed: Value = mesh.get("/tasks").await.json().await.unwrap();
        listed["tasks"][0]["status"] == "failed"
    })
    .await;
    unfinished_are_none(&server);
}

#[tokio::test]
async fn a_task_that_nobody_runs_can_be_called_off() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let left = sample(None);
    keep(&mesh.ground, &left).await;
    let url = mesh.url(&format!("/task/{}", left.task_id));
    for status in [200, 409] {
        let answer = mesh.client.delete(&url).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let stored = mesh.ground.store.load(&left.task_id).await.unwrap();
    assert_eq!(stored.unwrap().status.as_str(), "cancelled");
}

#[tokio::test]
async fn what_another_process_ended_stays_as_it_ended() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let mut ended = mesh.ground.store.load(&id.parse().unwrap()).await;
    let mut ended = ended.as_mut().unwrap().take().unwrap();
    ended.status = mesh_orchestrator::store::TaskStatus::Cancelled;
    ended.finished_at = Some(ended.created_at);
    keep(&mesh.ground, &ended).await;
    for agent in ["data-processor", "general-agent"] {
        mesh.agent(agent, answer_well).await;
    }
    assert_eq!(mesh.ended(&id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_note_of_the_plans_clients_is_no_task() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    // What they write when they sent something to an agent themselves.
    redis_cli(
        &server,
        &["HSET", "task:task_1732300000.5", "status", "dispatched"],
    );
    assert_eq!(mesh.get("/task/task_1732300000.5").await.status(), 404);
}
