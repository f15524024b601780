//! `/internal/load`: what gateways hear of how busy the agents are, over the memory bus and RabbitMQ.

use crate::mesh::{Ground, Mesh, TOKEN, answer_well, config_with_token, silence};
use mesh_bus::{Bus, BusConfig};
use mesh_protocol::load::{AgentLoad, Loads, PATH};
use mesh_tests::{rabbitmq, wait_for};
use reqwest::StatusCode;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

async fn loads(mesh: &Mesh) -> Loads {
    let request = mesh.client.get(mesh.url(PATH)).bearer_auth(TOKEN);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

/// Waits until `wanted` holds for what is told of `agent`.
async fn until(mesh: &Mesh, agent: &str, wanted: impl Fn(&AgentLoad) -> bool) {
    let deadline = Instant::now() + mesh_tests::GENEROUS;
    loop {
        let told = loads(mesh).await.agents.get(agent).copied();
        if told.as_ref().is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{agent} is still {told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn steps_count_until_they_end() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    let idle = loads(&mesh).await;
    assert_eq!(idle.agents.len(), 4);
    for load in idle.agents.values() {
        assert_eq!(*load, AgentLoad::default());
    }
    mesh.agent("hardware-optimizer", silence).await;
    mesh.agent("resource-arbitrator", answer_well).await;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(mesh.submit(&json!({"task": "system_optimization"})).await);
    }
    until(&mesh, "hardware-optimizer", |load| {
        load.consumers == 1 && load.depth == 5 && load.oldest_ms > 0 && load.rate_per_s.is_none()
    })
    .await;
    until(&mesh, "resource-arbitrator", |load| {
        load.consumers == 1
            && load.depth == 0
            && load.oldest_ms == 0
            && load.rate_per_s.is_some_and(|rate| rate > 0.0)
    })
    .await;
    // What is called off is under way no more, and was no work.
    let url = mesh.url(&format!("/task/{}", tasks[0]));
    mesh.client.delete(&url).send().await.unwrap();
    until(&mesh, "hardware-optimizer", |load| {
        load.depth == 4 && load.rate_per_s.is_none()
    })
    .await;
    let metrics = mesh.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("orchestrator_load_questions_total{outcome=\"whole\"}"));
    assert!(!metrics.contains("outcome=\"in_part\""));
}

#[tokio::test]
async fn what_is_taken_up_counts_again() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    until(&mesh, "data-processor", |load| load.depth == 1).await;
    let ground = mesh.stop().await;
    let mesh = Mesh::without_agents(config_with_token(), ground).await;
    until(&mesh, "data-processor", |load| {
        load.depth == 1 && load.oldest_ms > 0
    })
    .await;
    mesh.agent("data-processor", answer_well).await;
    mesh.ended(&id).await;
    until(&mesh, "data-processor", |load| load.depth == 0).await;
}

#[tokio::test]
async fn who_takes_what_is_told() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    let loads = loads(&mesh).await;
    assert_eq!(loads.general_agent.as_deref(), Some("general-agent"));
    assert_eq!(loads.task_types["data_processing"], ["data-processor"]);
    assert_eq!(
        loads.task_types["system_optimization"],
        ["hardware-optimizer", "resource-arbitrator"]
    );
    assert_eq!(loads.task_types["code_generation"], ["general-agent"]);
}

#[tokio::test]
async fn only_the_token_opens() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    assert_eq!(mesh.get(PATH).await.status(), StatusCode::UNAUTHORIZED);
    let request = mesh.client.get(mesh.url(PATH)).bearer_auth(TOKEN);
    let passed_on = request.header("x-forwarded-prefix", "/tasks");
    let answer = passed_on.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let request = mesh.client.post(mesh.url(PATH)).bearer_auth(TOKEN);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

/// Takes from `queue` until it is aborted.
async fn sidecar(bus: &dyn Bus, queue: &str) -> JoinHandle<()> {
    let mut deliveries = bus.consume(queue, 1).await.unwrap();
    tokio::spawn(async move { while deliveries.next().await.is_some() {} })
}

#[tokio::test]
async fn consumers_are_those_of_rabbitmq() {
    let mut broker = rabbitmq::start().await;
    let connect = BusConfig::Rabbitmq {
        url: broker.url().try_into().unwrap(),
    };
    let bus = mesh_bus::connect(&connect).await.unwrap();
    let mesh = Mesh::on_bus(config_with_token(), bus.clone(), Ground::new()).await;
    until(&mesh, "data-processor", |load| load.consumers == 0).await;
    wait_for("the queues to be declared", async || {
        mesh.get("/ready").await.status() == StatusCode::OK
    })
    .await;
    let sidecars = mesh_bus::connect(&connect).await.unwrap();
    let queue = "agent.data_processor.tasks";
    let one = sidecar(&*sidecars, queue).await;
    let two = sidecar(&*sidecars, queue).await;
    until(&mesh, "data-processor", |load| load.consumers == 2).await;
    one.abort();
    until(&mesh, "data-processor", |load| load.consumers == 1).await;
    // A broker that is away leaves what was known, and the answer comes all the same.
    broker.kill().await;
    for _ in 0..3 {
        assert_eq!(loads(&mesh).await.agents["data-processor"].consumers, 1);
    }
    broker.start_again().await;
    let three = sidecar(&*sidecars, queue).await;
    until(&mesh, "data-processor", |load| load.consumers == 2).await;
    two.abort();
    three.abort();
    until(&mesh, "data-processor", |load| load.consumers == 0).await;
    sidecars.close().await;
    bus.close().await;
}
