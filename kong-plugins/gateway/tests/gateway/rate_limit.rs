//! The rate_limit module as it is built, end to end: what passes is within the limit to the request,
//! across workers and connections, and the client hears how much is left.

use crate::support::{Gateway, Service, Setup, filters};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

async fn limited(service: &Service, limits: Value) -> Gateway {
    let config = json!({
        "limits": limits,
        "table_key": B64.encode([7; 32]),
        "headers": "draft_and_older",
    });
    let rest = format!(
        "  routes: [{{name: r, paths: [/r]}}]\n\
         filter_chains: [{{name: c, route: r, filters: [{{name: rate_limit, config: {config}}}]}}]\n"
    );
    let mut setup = Setup::new(service.address, &rest).changed(|config| config.workers = 2);
    setup.filters = filters("rate_limit");
    setup.start().await
}

#[tokio::test]
async fn a_quota_and_what_the_client_hears_of_it() {
    let service = Service::start().await;
    let limits = json!([{"name": "hour", "quota": 3, "window_s": 3600, "by": ["address"]}]);
    let gateway = limited(&service, limits).await;
    for left in ["2", "1", "0"] {
        let answer = gateway.get("/r", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some("\"hour\";q=3;w=3600")
        );
        let said = answer.header("ratelimit").unwrap();
        assert!(said.starts_with(&format!("\"hour\";r={left};t=")), "{said}");
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let refused = gateway.get("/r", "").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(problem["violated-policies"], json!(["hour"]));
    assert_eq!(refused.head.matches("ratelimit-policy").count(), 1);
    assert_eq!(service.seen().len(), 3);
    let counted = gateway.metric(
        "pw_rate_limit_requests_decision_refuse_reason_quota_exceeded",
        &[],
    );
    assert_eq!(counted, 1.0);
}

#[tokio::test]
async fn keys_of_clients_are_apart() {
    let service = Service::start().await;
    let limits = json!([{"name": "tenant", "quota": 1, "window_s": 3600, "by": [{"header": "x-tenant"}, "path"]}]);
    let gateway = limited(&service, limits).await;
    for (path, tenant, status) in [
        ("/r", "a", 200),
        ("/r", "a", 429),
        ("/r", "b", 200),
        ("/r/2", "a", 200),
        ("/r/2?x", "a", 429),
    ] {
        let answer = gateway.get(path, &format!("x-tenant: {tenant}\n")).await;
        assert_eq!(answer.status, status, "{path} {tenant}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_passes_than_the_limit_and_its_burst() {
    const RATE: f64 = 200.0;
    const BURST: f64 = 50.0;
    let service = Service::start().await;
    let limits = json!([{"name": "second", "quota": 200, "window_s": 1, "burst": 50}]);
    let gateway = Arc::new(limited(&service, limits).await);
    let begun = Instant::now();
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let mut passed = 0.0;
                while begun.elapsed() < Duration::from_secs(10) {
                    match gateway.get("/r", "").await.status {
                        200 => passed += 1.0,
                        429 => {}
                        other => panic!("answered {other}"),
                    }
                }
                passed
            })
        })
        .collect();
    let mut passed = 0.0;
    for client in clients {
        passed += client.await.unwrap();
    }
    let most = BURST + RATE * begun.elapsed().as_secs_f64();
    assert!(passed <= most, "{passed} passed, at most {most} may");
    assert!(passed >= BURST, "{passed} passed");
    assert_eq!(service.seen().len() as f64, passed);
}

#[tokio::test]
async fn requests_at_the_same_time_are_counted_until_they_end() {
    let service = Service::start().await;
    let limits =
        json!([{"name": "inside", "quota": 1, "window_s": 60, "unit": "concurrent_requests"}]);
    let gateway = limited(&service, limits).await;
    for _ in 0..3 {
        // One after the other: each has left before the next comes.
        assert_eq!(gateway.get("/r", "").await.status, 200);
    }
}
