//! The lane over a real RabbitMQ: what happens when the broker or the sidecar goes away in the middle.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod lane;

use lane::{Lane, Reply, TestAgent, agent_id, config, ok, over, quick, sidecar, step};
use mesh_bus::{Properties, QueueKind, Topology};
use mesh_protocol::outcome::Outcome;
use mesh_tests::{rabbitmq, wait_for, within};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;

#[tokio::test]
async fn a_lost_connection_loses_no_step_and_calls_no_agent_twice() {
    let broker = rabbitmq::shared().await;
    let url = broker.vhost().await;
    let bus = over(&url).await;
    let mut lane = Lane::start(bus, vec![Reply::Held], quick()).await;
    for n in 0..8 {
        lane.step(&step(&format!("s{n}"))).await;
    }
    lane.agent.was_called(8).await;
    broker.close_connections(&url).await;
    wait_for("the steps to come again", || async {
        lane.admin("/metrics")
            .await
            .1
            .contains("sidecar_repeats_total{agent=\"data-processor\"} 8")
    })
    .await;
    lane.agent.release();
    let mut seen = BTreeSet::new();
    while seen.len() < 8 {
        let result = lane.result().await;
        assert!(matches!(result.outcome, Outcome::Completed { .. }));
        seen.insert(result.step_id);
    }
    assert_eq!(lane.agent.calls().len(), 8);
    lane.stop().await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_in_ready() {
    let broker = rabbitmq::shared().await;
    let url = broker.vhost().await;
    let other = over(&url).await;
    let classic = Topology::exchanges().with_agent(&agent_id(), QueueKind::Classic);
    other.declare(&classic).await.unwrap();
    let agent = TestAgent::start(vec![ok(json!(1))]).await;
    let deps = mesh_sidecar::Deps {
        bus: Some(over(&url).await),
        ..lane::deps()
    };
    let bound = mesh_sidecar::build(config(agent.address, quick()), deps)
        .await
        .unwrap();
    let status = bound.admin_address();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(bound.run(shutdown.clone()));
    wait_for("the mismatch to show", || async {
        let (code, text) = page(status, "/ready").await;
        code == 503 && text.contains("queue agent.data_processor.tasks exists with x-")
    })
    .await;
    shutdown.cancel();
    within("the end", running).await.unwrap();
}

async fn page(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
        return (0, String::new());
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.get(9..12).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, answer)
}

#[tokio::test]
async fn a_killed_sidecar_leaves_its_steps_to_the_next() {
    let broker = rabbitmq::shared().await;
    let url = broker.vhost().await;
    let bus = over(&url).await;
    let agent = TestAgent::start(vec![Reply::Held]).await;
    let mut file = serde_json::to_value(config(agent.address, quick())).unwrap();
    file["worker"]["bus"] = json!({"backend": "rabbitmq", "url": url});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sidecar.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_sidecar"))
        .args(["--check", "--config"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(checked.success());

    let topology = Topology::exchanges()
        .with_orchestrator(QueueKind::Quorum)
        .with_agent(&agent_id(), QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let mut results = bus
        .consume("agent.orchestrator.coordination", 100)
        .await
        .unwrap();
    let mut first = sidecar(&path);
    for n in 0..20 {
        let message = mesh_bus::Message {
            exchange: mesh_protocol::names::EXCHANGE_TASKS.into(),
            routing_key: agent_id().execute_key(),
            body: serde_json::to_vec(&step(&format!("s{n}"))).unwrap().into(),
            mandatory: true,
            properties: Properties::default(),
        };
        bus.publish(message).await.unwrap();
    }
    agent.was_called(16).await;
    first.kill().unwrap();
    first.wait().unwrap();
    agent.release();
    let mut second = sidecar(&path);
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let delivery = within("a result", results.next()).await.unwrap();
        let result: mesh_protocol::outcome::StepResult =
            serde_json::from_slice(&delivery.message.body).unwrap();
        assert!(matches!(result.outcome, Outcome::Completed { .. }));
        seen.insert(result.step_id);
        delivery.ack().await.unwrap();
    }
    // The same key for both calls of a step: an agent that honours it does the work once.
    let keys: BTreeSet<_> = agent
        .calls()
        .iter()
        .map(|c| c.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys.len(), 20);
    let pid = second.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let left = tokio::task::spawn_blocking(move || second.wait());
    assert!(
        within("the sidecar to leave", left)
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}
