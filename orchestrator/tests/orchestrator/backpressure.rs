//! A task that cannot be taken is refused with 503, and has no id: the store is full, the broker is away, or
//! takes nothing.

use crate::faults::{ground, ready, redis_cli};
use crate::mesh::{Ground, Mesh, config};
use mesh_bus::{Bus, BusConfig};
use mesh_tests::rabbitmq::{self, Broker};
use mesh_tests::{redis, wait_for};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

async fn submit(mesh: &Mesh) -> Result<String, ()> {
    let response = mesh.post(&json!({"task": "data_processing"})).await;
    if response.status() == 200 {
        let answer: Value = response.json().await.unwrap();
        return Ok(answer["task_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem.get("task_id"), None);
    Err(())
}

async fn bus(broker: &Broker) -> Arc<dyn Bus> {
    let config: BusConfig =
        serde_json::from_value(json!({"backend": "rabbitmq", "url": broker.url()})).unwrap();
    mesh_bus::connect(&config).await.unwrap()
}

async fn queued(mesh: &Mesh, bus: &dyn Bus, tasks: usize) {
    wait_for("every accepted task to reach the broker", async || {
        let depth = bus.depth("agent.data_processor.tasks").await;
        depth.is_ok_and(|depth| depth.messages as usize == tasks)
    })
    .await;
    mesh.metric(&format!("orchestrator_tasks_in_flight {tasks}"))
        .await;
}

#[tokio::test]
async fn a_full_store_takes_no_tasks() {
    let server = redis::start().await;
    let mesh = Mesh::without_agents(config(), ground(&server).await).await;
    ready(&mesh).await;
    let before = submit(&mesh).await.unwrap();
    redis_cli(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(submit(&mesh).await, Err(()));
    redis_cli(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    submit(&mesh).await.unwrap();
    let listed = mesh.get_json("/tasks").await;
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(
        mesh.get_json(&format!("/task/{before}")).await["status"],
        "in_progress"
    );
}

#[tokio::test]
async fn a_broker_that_is_away_takes_no_tasks() {
    let mut broker = rabbitmq::start().await;
    let bus = bus(&broker).await;
    let mesh = Mesh::on_bus(config(), Arc::clone(&bus), Ground::new()).await;
    ready(&mesh).await;
    submit(&mesh).await.unwrap();
    queued(&mesh, &*bus, 1).await;
    broker.kill().await;
    wait_for("a task to be refused", async || {
        submit(&mesh).await.is_err()
    })
    .await;
    let refused = mesh.get("/ready").await;
    assert_eq!(refused.status(), 503);
    broker.start_again().await;
    ready(&mesh).await;
    wait_for("a task to be taken", async || submit(&mesh).await.is_ok()).await;
    bus.close().await;
}

#[tokio::test]
async fn a_broker_that_is_blocked_by_an_alarm_takes_no_tasks() {
    let broker = rabbitmq::start().await;
    let bus = bus(&broker).await;
    let mesh = Mesh::on_bus(config(), Arc::clone(&bus), Ground::new()).await;
    ready(&mesh).await;
    let alarm = "{resource_limit, disk, node()}";
    broker
        .eval(format!("rabbit_alarm:set_alarm({{{alarm}, []}})."))
        .await;
    // Those that were taken before it was noticed wait in the outbox.
    let taken = AtomicUsize::new(0);
    wait_for("a task to be refused", async || {
        let answer = submit(&mesh).await;
        taken.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
        answer.is_err()
    })
    .await;
    let taken = taken.into_inner();
    assert!(taken > 0);
    mesh.until("/ready", |r| {
        r["reasons"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("takes nothing"))
    })
    .await;
    broker
        .eval(format!("rabbit_alarm:clear_alarm({alarm})."))
        .await;
    queued(&mesh, &*bus, taken).await;
    wait_for("a task to be taken", async || submit(&mesh).await.is_ok()).await;
    bus.close().await;
}
