//! Pools: weights, health, and what happens when nobody is there.

use crate::support::{Gateway, Service, Setup, until};
use hyper::{Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// A kong.yml with one service that leads to the pool.
fn pool(targets: &[(SocketAddr, u16)], checks: &str) -> Setup {
    let mut setup = Setup::new(targets[0].0, "");
    let targets: String = targets
        .iter()
        .map(|(address, weight)| format!("  - {{target: '{address}', weight: {weight}}}\n"))
        .collect();
    setup.yaml = format!(
        "_format_version: \"3.0\"\nservices:\n- name: s\n  url: http://pool\n  connect_timeout: 1000\n  \
         routes: [{{name: r, paths: [/]}}]\nupstreams:\n- name: pool\n  targets:\n{targets}{checks}"
    );
    setup
}

/// A service that answers with a status that can be changed.
async fn changing() -> (Service, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&status);
    let service = Service::answering(move |_| {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::from_u16(told.load(Ordering::SeqCst)).unwrap();
        response
    })
    .await;
    (service, status)
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn healthy(gateway: &Gateway, target: SocketAddr) -> bool {
    let labels = [("upstream", "pool"), ("target", &*target.to_string())];
    gateway.metric("gateway_upstream_target_health", &labels) > 0.0
}

#[tokio::test]
async fn weights_are_shares() {
    let (a, b, c) = tokio::join!(Service::start(), Service::start(), Service::start());
    let gateway = pool(&[(a.address, 3), (b.address, 1), (c.address, 0)], "")
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
    let shares = [&a, &b, &c].map(|s| s.seen().len());
    assert_eq!(shares, [15, 5, 0]);
    assert_eq!(a.seen()[0].headers["host"], a.address.to_string());
}

#[tokio::test]
async fn whoever_is_not_there_is_passed_over_whatever_the_method() {
    let service = Service::start().await;
    let gateway = pool(&[(nobody(), 100), (service.address, 1)], "")
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(gateway.post("/", "", "body").await.status, 200);
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
    assert_eq!(service.seen().len(), 10);
    assert_eq!(service.seen()[0].body, "body");
}

#[tokio::test]
async fn without_retries_the_first_failure_is_the_answer() {
    let service = Service::start().await;
    let mut setup = pool(&[(nobody(), 100), (service.address, 1)], "");
    setup.yaml = setup
        .yaml
        .replace("  connect_timeout", "  retries: 0\n  connect_timeout");
    let gateway = setup.start().await;
    assert_eq!(gateway.get("/", "").await.status, 502);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn bad_answers_take_a_target_out() {
    let ((bad, status), good) = tokio::join!(changing(), Service::start());
    status.store(500, Ordering::SeqCst);
    let checks = "  healthchecks: {passive: {unhealthy: {http_failures: 2}}}\n";
    let gateway = pool(&[(bad.address, 1), (good.address, 1)], checks)
        .start()
        .await;
    for _ in 0..10 {
        gateway.get("/", "").await;
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (2, 8));
    assert!(!healthy(&gateway, bad.address).await);
    assert!(healthy(&gateway, good.address).await);
}

#[tokio::test]
async fn with_all_targets_out_there_is_a_problem() {
    let checks = "  healthchecks: {passive: {unhealthy: {tcp_failures: 1}}}\n";
    let gateway = pool(&[(nobody(), 1), (nobody(), 1)], checks).start().await;
    assert_eq!(gateway.get("/", "").await.status, 502);
    let answer = gateway.get("/", "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert!(answer.body.contains("no-healthy-target"), "{}", answer.body);
    // A pool without targets has none either.
    let mut setup = pool(&[(nobody(), 1)], "");
    setup.yaml = setup
        .yaml
        .replace("upstreams:\n- name: pool\n", "upstreams:\n- name: pool\n#");
    setup.yaml = setup.yaml.split("#").next().unwrap().to_owned();
    let gateway = setup.start().await;
    assert_eq!(gateway.get("/", "").await.status, 503);
}

#[tokio::test]
async fn questions_find_out_who_is_ill_and_who_is_well_again() {
    let (service, status) = changing().await;
    let checks = "  healthchecks:
    active:
      http_path: /health
      headers: {x-probe: [yes]}
      healthy: {interval: 0.02, successes: 2}
      unhealthy: {interval: 0.02, http_failures: 2, tcp_failures: 1}
";
    let gone = nobody();
    let gateway = pool(&[(service.address, 1), (gone, 1)], checks)
        .start()
        .await;
    until("the end of who is not there", async || {
        !healthy(&gateway, gone).await
    })
    .await;
    status.store(503, Ordering::SeqCst);
    until("illness", async || {
        !healthy(&gateway, service.address).await
    })
    .await;
    assert_eq!(gateway.get("/", "").await.status, 503);
    status.store(200, Ordering::SeqCst);
    until("health", async || healthy(&gateway, service.address).await).await;
    assert_eq!(gateway.get("/asked", "").await.status, 200);
    let seen = service.seen();
    let asked: Vec<_> = seen.iter().filter(|s| s.target == "/health").collect();
    assert!(asked.len() >= 4);
    assert_eq!(asked[0].headers["x-probe"], "yes");
    assert_eq!(seen.iter().filter(|s| s.target == "/asked").count(), 1);
}

#[tokio::test]
async fn a_host_header_of_the_pool_is_sent() {
    let service = Service::start().await;
    let setup = pool(&[(service.address, 1)], "  host_header: agents.test\n");
    let gateway = setup.start().await;
    gateway.get("/", "").await;
    assert_eq!(service.only().headers["host"], "agents.test");
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    for (checks, word) in [
        ("  algorithm: latency\n", "latency"),
        ("  hash_on: header\n", "hash_on"),
        ("  hash_fallback: ip\n", "hash_fallback"),
        ("  use_srv_name: true\n", "use_srv_name"),
        ("  healthchecks: {active: {type: tcp}}\n", "active.type"),
        ("  healthchecks: {threshold: 101}\n", "threshold"),
        (
            "  healthchecks: {active: {healthy: {interval: -1}}}\n",
            "interval",
        ),
        ("  healthchecks: {active: {http_path: x}}\n", "http_path"),
    ] {
        let refusal = pool(&[(nobody(), 1)], checks).refusal().await;
        assert!(
            refusal.contains("upstream pool") && refusal.contains(word),
            "{refusal}"
        );
    }
}
