//! One agent that wants everything: the others have their places, and the store its peace.

use crate::mesh::{Ground, Mesh, config};
use crate::socket::Socket;
use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::coordination::hub::{Bounds, RedisHub};
use mesh_tests::redis;
use serde_json::json;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// A message that never ends, in parts that hold nothing: as many frames as fit through a socket.
#[tokio::test]
async fn frames_that_hold_nothing_leave_others_their_turn() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let socket = Socket::open(mesh.address, "/ws/data-processor?last=").await;
    let mut stream = socket.0.into_inner().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let flood = std::thread::spawn(move || {
        let begin = [1, 0x81, 0, 0, 0, 0, b'x'];
        let rest = [0, 0x80, 0, 0, 0, 0].repeat(200_000);
        let mut sent = stream.write_all(&begin);
        // Until the mesh ends.
        while sent.is_ok() {
            sent = stream.write_all(&rest);
        }
    });
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        turns += 1;
    }
    assert!(turns > 25, "{turns}");
    assert_eq!(mesh.get("/health").await.status(), 200);
    drop(mesh);
    drop(flood);
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
