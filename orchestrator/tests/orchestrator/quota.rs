//! `/internal/quota`: who may, what is wrong, and what a Redis that is gone or frozen does to it.

use crate::mesh::{Ground, Mesh, TOKEN, assertion, config, config_with_token};
use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::quota::contract::{HOUR, all, usage};
use mesh_orchestrator::quota::{Quota, RedisQuota};
use mesh_protocol::problem::CONTENT_TYPE;
use mesh_protocol::quota::{MAX_ENTRIES, PATH, Standings};
use mesh_tests::redis::{self, Store};
use mesh_tests::wait_for;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// For servers that answer, on a machine that may be slow.
const PATIENT: Duration = Duration::from_secs(30);

fn quota(url: String, patience: Duration) -> Arc<dyn Quota> {
    let url = StoreUrl::try_from(url).unwrap();
    Arc::new(RedisQuota::connect(&url, patience).unwrap())
}

async fn mesh(quota: Arc<dyn Quota>) -> Mesh {
    let ground = Ground {
        quota,
        ..Ground::new()
    };
    Mesh::without_agents(config_with_token(), ground).await
}

fn signal(server: &Store, name: &str) {
    let pid = server.pid().to_string();
    let kill = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(kill.unwrap().success());
}

fn redis_cli(url: &str, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-u", url])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A body that tells of one bucket.
fn told(gateway: &str, units: u64) -> Value {
    let usage = usage(gateway, 600_000, &[("k", HOUR, units)]);
    serde_json::to_value(usage).unwrap()
}

async fn post(mesh: &Mesh, body: String) -> Response {
    let request = mesh.client.post(mesh.url(PATH)).bearer_auth(TOKEN);
    request.body(body).send().await.unwrap()
}

/// Tells, and hears how many gateways there are and how many hours the bucket is in debt, rounded up.
async fn exchange(mesh: &Mesh, gateway: &str, units: u64) -> (u32, u64) {
    let response = post(mesh, told(gateway, units).to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let standings: Standings = response.json().await.unwrap();
    (standings.gateways, standings.debts_ns[0].div_ceil(HOUR))
}

async fn is_problem(response: Response, status: u16) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    problem
}

#[tokio::test]
async fn redis_passes_the_contract() {
    let server = redis::shared().await;
    all(async || quota(server.database(), PATIENT)).await;
}

#[tokio::test]
async fn what_lies_in_redis_leaves_by_itself() {
    let url = redis::shared().await.database();
    let quota = quota(url.clone(), PATIENT);
    // One bucket of an hour, one of a moment, one that is only asked for; a gateway that is soon gone.
    let used = [
        ("hour", HOUR, 1),
        ("moment", 1_000_000, 1),
        ("asked", HOUR, 0),
    ];
    quota.exchange(&usage("g", 1, &used)).await.unwrap();
    wait_for("all but the hour to leave", async || {
        redis_cli(&url, &["KEYS", "*"]) == "{quota}:b:hour"
    })
    .await;
    let left: u64 = redis_cli(&url, &["PTTL", "{quota}:b:hour"])
        .parse()
        .unwrap();
    assert!((1..=3_600_000).contains(&left), "{left}");
}

#[tokio::test]
async fn keys_that_hold_something_else_are_taken_back() {
    let url = redis::shared().await.database();
    let quota = quota(url.clone(), PATIENT);
    redis_cli(&url, &["LPUSH", "{quota}:gateways", "x"]);
    redis_cli(&url, &["LPUSH", "{quota}:b:list", "x"]);
    for (key, value) in [("text", "x"), ("nan", "nan"), ("huge", "inf")] {
        redis_cli(&url, &["SET", &format!("{{quota}}:b:{key}"), value]);
    }
    let used = ["list", "text", "nan", "huge"].map(|key| (key, HOUR, 1));
    let standings = quota.exchange(&usage("g", 600_000, &used)).await.unwrap();
    assert_eq!(standings.gateways, 1);
    assert_eq!(standings.debts_ns[..3], [HOUR; 3]);
    let longest = mesh_orchestrator::quota::MAX_DEBT.as_nanos();
    assert_eq!(u128::from(standings.debts_ns[3]), longest);
}

#[tokio::test]
async fn gateways_exchange_over_one_redis() {
    let url = redis::shared().await.database();
    // Two orchestrators, even.
    let one = mesh(quota(url.clone(), PATIENT)).await;
    let other = mesh(quota(url, PATIENT)).await;
    assert_eq!(exchange(&one, "a", 2).await, (1, 2));
    assert_eq!(exchange(&other, "b", 3).await, (2, 5));
    assert_eq!(exchange(&one, "a", 0).await, (2, 5));
    one.metric("orchestrator_quota_exchanges_total{outcome=\"counted\"} 2")
        .await;
    one.metric("orchestrator_quota_entries_total 2").await;
    one.metric("orchestrator_quota_gateways 2").await;
}

#[tokio::test]
async fn redis_killed_and_back() {
    let mut server = redis::start().await;
    let mesh = mesh(quota(server.url(), PATIENT)).await;
    assert_eq!(exchange(&mesh, "a", 2).await, (1, 2));
    server.kill().await;
    let refused = post(&mesh, told("a", 1).to_string()).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem = is_problem(refused, 503).await;
    assert!(!problem.to_string().contains("redis://"), "{problem}");
    mesh.metric("orchestrator_quota_exchanges_total{outcome=\"unavailable\"} 1")
        .await;
    server.start_again().await;
    wait_for("quotas to be kept again", async || {
        let asked = post(&mesh, told("a", 0).to_string()).await;
        asked.status() == StatusCode::OK
    })
    .await;
    // What was told and answered is there; what was refused is not.
    assert_eq!(exchange(&mesh, "b", 1).await, (2, 3));
}

#[tokio::test]
async fn what_a_frozen_redis_did_not_answer_does_not_count_later() {
    let server = redis::start().await;
    let patient = mesh(quota(server.url(), PATIENT)).await;
    let mesh = mesh(quota(server.url(), Duration::from_millis(300))).await;
    wait_for("a first exchange", async || {
        let first = post(&mesh, told("a", 0).to_string()).await;
        first.status() == StatusCode::OK
    })
    .await;
    signal(&server, "STOP");
    // More than may wait at the same time, and for longer than a connection may say nothing.
    for _ in 0..6 {
        let body = told("a", 1).to_string();
        let tellers = (0..150).map(|_| post(&mesh, body.clone()));
        for refused in futures_util::future::join_all(tellers).await {
            is_problem(refused, 503).await;
        }
    }
    signal(&server, "CONT");
    wait_for("quotas to be kept again", async || {
        let asked = post(&mesh, told("a", 0).to_string()).await;
        asked.status() == StatusCode::OK
    })
    .await;
    // All that was in line before is through: Redis reads what lies ready in turn.
    assert_eq!(exchange(&patient, "a", 0).await, (1, 0));
    assert_eq!(exchange(&patient, "a", 1).await, (1, 1));
}

#[tokio::test]
async fn a_redis_that_forgot_the_script_gets_it_again() {
    let url = redis::shared().await.database();
    let quota = quota(url.clone(), PATIENT);
    for gateways in 1..=2 {
        let usage = usage(&format!("g{gateways}"), 600_000, &[]);
        let standings = quota.exchange(&usage).await.unwrap();
        assert_eq!(standings.gateways, gateways);
        redis_cli(&url, &["SCRIPT", "FLUSH"]);
    }
}

#[tokio::test]
async fn only_the_token_opens() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = mesh.client.post(mesh.url(PATH));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(told("a", 1).to_string()).send().await.unwrap()
    };
    let good = format!("Bearer {TOKEN}");
    let good = ("authorization", good.as_str());
    // A filter's host is seldom this machine.
    for more in [("x-forwarded-for", "10.0.0.1"), ("host", "orchestrator")] {
        assert_eq!(ask(&[good, more]).await.status(), StatusCode::OK);
    }
    let short = format!("Bearer {}", &TOKEN[1..]);
    let long = format!("Bearer {TOKEN}x");
    let token = assertion("alice", "");
    for wrong in [
        &[][..],
        &[("authorization", "Bearer")],
        &[("authorization", TOKEN)],
        &[("authorization", &short)],
        &[("authorization", &long)],
        &[good, good],
    ] {
        let refused = ask(wrong).await;
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let problem = is_problem(refused, 401).await;
        assert!(!problem.to_string().contains(TOKEN));
    }
    mesh.metric("orchestrator_internal_refused_total 6").await;
    // What a gateway passed on finds nothing, whatever it brings.
    for passed_on in [
        ("x-mesh-assertion", token.as_str()),
        ("x-forwarded-host", "mesh"),
        ("x-forwarded-path", "/ai/orchestrate/internal/quota"),
        ("x-kong-request-id", "1"),
        ("via", "1.1 kong"),
    ] {
        is_problem(ask(&[good, passed_on]).await, 404).await;
    }
    let wrong = mesh.client.get(mesh.url(PATH)).bearer_auth(TOKEN).send();
    is_problem(wrong.await.unwrap(), 405).await;
}

#[tokio::test]
async fn without_a_token_there_is_nothing() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    for path in [PATH, mesh_protocol::load::PATH] {
        for method in [reqwest::Method::GET, reqwest::Method::POST] {
            let request = mesh.client.request(method, mesh.url(path));
            let answer = request.bearer_auth(TOKEN).send().await.unwrap();
            is_problem(answer, 404).await;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_place() {
    let mesh = Mesh::without_agents(config_with_token(), Ground::new()).await;
    let with = |pointer: &str, value: Value| {
        let mut wrong = told("a", 1);
        *wrong.pointer_mut(pointer).unwrap() = value;
        wrong.to_string()
    };
    let entry = told("a", 1)["used"][0].clone();
    let many = with("/used", vec![entry; MAX_ENTRIES + 1].into());
    for (body, place) in [
        (String::new(), ""),
        ("{".to_owned(), ""),
        (with("/used/0/units", json!(-1)), "used[0].units"),
        (with("/used/0/emission_ns", json!(0)), "used[0].emission_ns"),
        (with("/used/0/key", json!("k".repeat(65))), "used[0].key"),
        (with("/gateway", json!("a b")), "gateway"),
        (with("/interval_ms", json!(0)), "interval_ms"),
        (many, "used"),
    ] {
        let problem = is_problem(post(&mesh, body).await, 400).await;
        assert_eq!(problem["errors"][0]["field"], place, "{problem}");
    }
    let large = format!("{}{}", " ".repeat(1_000_000), told("a", 1));
    is_problem(post(&mesh, large).await, 413).await;
    mesh.metric("orchestrator_quota_exchanges_total{outcome=\"refused\"} 9")
        .await;
    assert_eq!(exchange(&mesh, "a", 0).await, (1, 0));
}
