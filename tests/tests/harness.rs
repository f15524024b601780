//! The harness itself: what it starts comes back after a stop, and ends with the process.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mesh_tests::{consul, prometheus, rabbitmq, redis, server, wait_for};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_store_keeps_what_it_took() {
    let mut store = redis::start().await;
    assert!(ask(&store, "SET kept yes").contains("OK"));
    store.kill().await;
    store.start_again().await;
    assert!(ask(&store, "GET kept").contains("yes"));
    store.stop().await;
    store.forget();
    store.start_again().await;
    assert!(!ask(&store, "GET kept").contains("yes"));
    assert_ne!(store.database(), store.database());
}

/// Redis answers plain lines, too.
fn ask(store: &redis::Store, command: &str) -> String {
    use std::io::{Read, Write};
    let url = store.url();
    let address = url.trim_start_matches("redis://").trim_end_matches("/0");
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(socket, "{command}\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn virtual_hosts_are_apart() {
    let broker = rabbitmq::shared().await;
    assert_ne!(broker.vhost().await, broker.vhost().await);
    assert!(Path::new(&format!("/proc/{}", broker.pid())).exists());
}

#[tokio::test]
async fn a_consul_comes_back_empty_where_it_was() {
    let mut consul = consul::start().await;
    let service = json!({"Name": "kept", "Port": 1});
    consul.put("/v1/agent/service/register", service).await;
    let (url, pid) = (consul.url(), consul.pid());
    assert!(consul.get("/v1/agent/services").await["kept"].is_object());
    consul.kill().await;
    consul.start_again().await;
    assert_eq!(consul.url(), url);
    assert_ne!(consul.pid(), pid);
    assert_eq!(consul.get("/v1/agent/services").await, json!({}));
}

#[tokio::test]
async fn a_token_may_do_what_its_rules_say() {
    let consul = consul::start_with_acl().await;
    let token = consul
        .token_for("one", r#"service "one" { policy = "write" }"#)
        .await;
    let register = async |name: &str| {
        reqwest::Client::new()
            .put(format!("{}/v1/agent/service/register", consul.url()))
            .header("X-Consul-Token", &token)
            .json(&json!({"Name": name, "Port": 1}))
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(register("one").await, 200);
    assert_eq!(register("two").await, 403);
}

#[tokio::test]
async fn a_prometheus_finds_services_in_consul() {
    let consul = consul::start().await;
    // Consul's own port answers no metrics: found, and down.
    let service = json!({"Name": "somebody", "Address": "127.0.0.1", "Port": consul.http_port});
    consul.put("/v1/agent/service/register", service).await;
    let prometheus = prometheus::start(&format!(
        "global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: mesh
    consul_sd_configs: [{{server: '127.0.0.1:{}', services: [somebody]}}]
",
        consul.http_port
    ))
    .await;
    wait_for("the service to be scraped", || async {
        let up = prometheus.query("up").await;
        up.iter()
            .any(|sample| sample.labels["job"] == "mesh" && sample.value == 0.0)
    })
    .await;
}

/// Runs in a process of its own, started by the test below, which kills it.
#[tokio::test]
async fn child_that_is_killed() {
    if std::env::var_os("MESH_TESTS_CHILD").is_none() {
        return;
    }
    let directory = server::directory("child");
    let server = server::Server::start("sleep", &["600"], &[], directory.path());
    eprintln!("started {} {}", server.pid(), directory.path().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_server_ends_with_a_killed_test() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env("MESH_TESTS_CHILD", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let started = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("started ").map(str::to_owned))
        .unwrap();
    let (pid, directory) = started.split_once(' ').unwrap();
    assert!(Path::new(directory).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let process = format!("/proc/{pid}");
    wait_for("the server to end", async || {
        !Path::new(&process).exists() && !Path::new(directory).exists()
    })
    .await;
}
