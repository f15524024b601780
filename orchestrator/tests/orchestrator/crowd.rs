//! One agent that wants everything: the others have their places, and the store its peace.

use crate::mesh::{Ground, Mesh, config};
use crate::socket::Socket;
use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::coordination::hub::{Bounds, RedisHub};
use mesh_tests::redis;
use serde_json::json;
use std::process::Command;
use std::sync::Arc;

#[tokio::test]
async fn an_agent_that_connects_again_and_again_leaves_places_to_others() {
    let mut few = config();
    few.coordination.max_connections = 20;
    let mesh = Mesh::without_agents(few, Ground::new()).await;
    // None of them is closed by its agent, and none read: each is given some time for its farewell.
    let mut crowd = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        match Socket::connect(mesh.address, "/ws/data-processor?last=", &[]).await {
            Ok(socket) => crowd.push(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status().as_u16(), 503);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "{}", crowd.len());
    let mut other = Socket::open(mesh.address, "/ws/general-agent?last=").await;
    assert_eq!(other.hear().await["type"], "welcome");
    drop(crowd);
    // What is over is over: the agent itself comes back.
    mesh_tests::wait_for("a place", async || {
        Socket::refused(mesh.address, "/ws/data-processor?last=", &[]).await == 101
    })
    .await;
}

/// How often a command was called on the server at `url`.
fn calls(url: &str, command: &str) -> u64 {
    let mut cli = Command::new("redis-cli");
    let told = cli.args(["-u", url, "INFO", "commandstats"]).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    let line = format!("cmdstat_{command}:calls=");
    let of = told.lines().find_map(|l| l.strip_prefix(&line));
    of.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn messages_to_nobody_do_not_have_the_whole_registry_read() {
    let server = redis::start().await;
    let url = StoreUrl::try_from(server.url()).unwrap();
    let ground = Ground {
        hub: Arc::new(RedisHub::connect(&url, Bounds::default()).unwrap()),
        ..Ground::new()
    };
    let mesh = Mesh::without_agents(config(), ground).await;
    let mut a = Socket::open(mesh.address, "/ws/data-processor?last=").await;
    assert_eq!(a.hear().await["type"], "welcome");
    let before = calls(&server.url(), "hgetall");
    for _ in 0..100 {
        a.send(&json!({"to": "nobody"})).await;
        assert_eq!(a.hear_of("error").await["code"], "unknown_agent");
    }
    assert_eq!(calls(&server.url(), "hgetall"), before);
}
