//! What passes and what does not, and what the client is told.

mod costs;
mod shared;

use super::*;
use crate::config::{Dimension, Limit as LimitConfig, Unit};
use crate::decision::FOUND_CALLER;
use crate::host::MemoryHost;
use crate::request::MemoryHead;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_protocol::Timestamp;
use serde_json::Value;

const NOW_MS: u64 = 1_800_000_000_000;

fn host() -> MemoryHost {
    MemoryHost::at(Timestamp::from_millis(NOW_MS))
}

fn limit(name: &str, quota: u64, window_s: u64) -> LimitConfig {
    LimitConfig {
        name: name.to_owned(),
        quota,
        window_s,
        burst: None,
        by: Vec::new(),
        unit: Unit::Requests,
        cost: None,
        shared: false,
    }
}

fn config(limits: Vec<LimitConfig>) -> RateLimit {
    RateLimit {
        revision: "1".to_owned(),
        limits,
        table_key: URL_SAFE_NO_PAD.encode([7; 32]),
        slots: 1024,
        trusted_proxies: Vec::new(),
        headers: LimitHeaders::Draft,
        when_unusable: WhenUnusable::Refuse,
        exchange: None,
    }
}

fn policy(limits: Vec<LimitConfig>) -> Policy {
    compile(&config(limits)).unwrap()
}

fn get() -> MemoryHead {
    MemoryHead::new("GET", "/tasks?x=1")
}

/// The request as it stands after the decision, and the refusal if it is one.
fn ask(policy: &Policy, head: &MemoryHead, host: &MemoryHost) -> (Request, Option<Refusal>) {
    let mut request = Request::default();
    match policy.decide(&mut request, head, host) {
        Decision::Pass(_) => (request, None),
        Decision::Refuse(refusal) => (request, Some(refusal)),
    }
}

/// How many of `times` requests pass.
fn passed(policy: &Policy, head: &MemoryHead, host: &MemoryHost, times: usize) -> usize {
    (0..times)
        .filter(|_| ask(policy, head, host).1.is_none())
        .count()
}

fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value.as_str())
}

fn calling(sub: &str) -> MemoryHost {
    let host = host();
    let caller = crate::Caller {
        sub: sub.to_owned(),
        origin: "https://issuer.example".to_owned(),
        scope: String::new(),
        ..crate::Caller::default()
    };
    host.leave(FOUND_CALLER, serde_json::to_vec(&caller).unwrap());
    host
}

#[test]
fn a_quota_passes_and_no_more() {
    let (policy, mut host) = (policy(vec![limit("second", 5, 1)]), host());
    assert_eq!(passed(&policy, &get(), &host, 8), 5);
    let (_, refusal) = ask(&policy, &get(), &host);
    let refusal = refusal.unwrap();
    assert_eq!(refusal.status, 429);
    assert_eq!(header(&refusal.headers, "retry-after"), Some("1"));
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    assert_eq!(
        body["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(body["violated-policies"], serde_json::json!(["second"]));
    host.set_now_ns((NOW_MS + 400) * 1_000_000);
    assert_eq!(passed(&policy, &get(), &host, 8), 2);
}

#[test]
fn the_client_hears_what_is_left() {
    let day = LimitConfig {
        burst: Some(50),
        ..limit("day", 1000, 86_400)
    };
    let policy = policy(vec![limit("second", 5, 1), day]);
    let (request, _) = ask(&policy, &get(), &host());
    let headers = policy.response_headers(&request);
    assert_eq!(
        header(&headers, "ratelimit-policy"),
        Some("\"second\";q=5;w=1, \"day\";q=1000;w=86400")
    );
    assert_eq!(
        header(&headers, "ratelimit"),
        Some("\"second\";r=4;t=1, \"day\";r=49;t=87")
    );
    assert_eq!(header(&headers, "x-ratelimit-limit"), None);

    let mut older = config(vec![limit("second", 5, 1)]);
    older.headers = LimitHeaders::DraftAndOlder;
    let policy = compile(&older).unwrap();
    let (request, _) = ask(&policy, &get(), &host());
    let headers = policy.response_headers(&request);
    assert_eq!(header(&headers, "x-ratelimit-remaining"), Some("4"));
    older.headers = LimitHeaders::None;
    let policy = compile(&older).unwrap();
    let (request, _) = ask(&policy, &get(), &host());
    assert_eq!(policy.response_headers(&request), []);
}

#[test]
fn a_later_refusal_gives_back_what_earlier_limits_gave() {
    let policy = policy(vec![limit("wide", 10, 60), limit("narrow", 2, 60)]);
    let host = host();
    assert_eq!(passed(&policy, &get(), &host, 9), 2);
    let (request, refusal) = ask(&policy, &get(), &host);
    assert!(refusal.is_some());
    // Of the ten, two were used, and one was looked at.
    assert_eq!(request.standings[0].left, 7);
}

#[test]
fn each_key_has_its_own() {
    let by = |by: Vec<Dimension>| {
        policy(vec![LimitConfig {
            by,
            ..limit("each", 2, 60)
        }])
    };
    let consumer = by(vec![Dimension::Consumer]);
    let (alice, mut bob) = (calling("alice"), calling("bob"));
    assert_eq!(passed(&consumer, &get(), &alice, 5), 2);
    assert_eq!(passed(&consumer, &get(), &bob, 5), 2);
    bob.set_now_ns(NOW_MS * 1_000_000 + 1);
    assert_eq!(passed(&consumer, &get(), &bob, 5), 0);

    let path = by(vec![Dimension::Path]);
    let gateway = host();
    assert_eq!(passed(&path, &get(), &gateway, 5), 2);
    let other_query = MemoryHead::new("GET", "/tasks?x=2");
    assert_eq!(passed(&path, &other_query, &gateway, 5), 0);
    assert_eq!(
        passed(&path, &MemoryHead::new("GET", "/agents"), &gateway, 5),
        2
    );

    let tenant = by(vec![
        Dimension::Header("x-tenant".to_owned()),
        Dimension::Address,
    ]);
    let gateway = host();
    let from =
        |tenant: &str, peer: &str| get().with("x-tenant", tenant).from(peer.parse().unwrap());
    for (tenant_name, peer, left) in [
        ("a", "192.0.2.1", 2),
        ("a", "192.0.2.2", 2),
        ("b", "192.0.2.1", 2),
        ("a", "192.0.2.1", 0),
        ("v6", "2001:db8::1", 2),
        ("v6", "2001:db8::2", 0),
        ("v6", "2001:db8:0:1::1", 2),
    ] {
        let head = from(tenant_name, peer);
        assert_eq!(
            passed(&tenant, &head, &gateway, 5),
            left,
            "{tenant_name} {peer}"
        );
    }
}

#[test]
fn a_request_may_cost_more() {
    let policy = policy(vec![LimitConfig {
        cost: Some(Cost::Header {
            name: "x-cost".to_owned(),
            max: 20,
        }),
        ..limit("units", 10, 60)
    }]);
    let host = host();
    let costing = |cost: &str| get().with("x-cost", cost);
    assert_eq!(passed(&policy, &costing("4"), &host, 5), 2);
    assert_eq!(passed(&policy, &get(), &host, 5), 2);
    let (_, refusal) = ask(&policy, &costing("11"), &host);
    assert_eq!(refusal.unwrap().status, 429, "more than there ever is");
    for bad in ["0", "21", "-1", "1.5", "", "x", "99999999999999999999"] {
        let (_, refusal) = ask(&policy, &costing(bad), &host);
        assert_eq!(refusal.unwrap().status, 400, "{bad:?}");
    }
}

#[test]
fn requests_at_the_same_time() {
    let policy = policy(vec![LimitConfig {
        unit: Unit::ConcurrentRequests,
        ..limit("inside", 2, 60)
    }]);
    let mut host = host();
    let (mut first, refused) = ask(&policy, &get(), &host);
    assert!(refused.is_none());
    assert_eq!(
        header(&policy.response_headers(&first), "ratelimit-policy"),
        Some("\"inside\";q=2;qu=\"concurrent-requests\"")
    );
    let (_second, refused) = ask(&policy, &get(), &host);
    assert!(refused.is_none());
    let (mut third, refused) = ask(&policy, &get(), &host);
    assert_eq!(refused.unwrap().status, 429);
    policy.end(&mut third, &host);
    assert!(
        ask(&policy, &get(), &host).1.is_some(),
        "a refused one held nothing"
    );
    policy.end(&mut first, &host);
    policy.end(&mut first, &host);
    assert_eq!(passed(&policy, &get(), &host, 3), 1);
    // Whoever never comes to an end is lost some day.
    host.set_now_ns((NOW_MS + 60_000) * 1_000_000);
    assert_eq!(passed(&policy, &get(), &host, 3), 2);
}

#[test]
fn workers_together_pass_what_one_would() {
    let policy = || {
        policy(vec![LimitConfig {
            by: vec![Dimension::Path],
            ..limit("second", 100, 1)
        }])
    };
    let gateway = host();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (policy, gateway) = (policy(), gateway.clone());
            std::thread::spawn(move || passed(&policy, &get(), &gateway, 200))
        })
        .collect();
    let passed: usize = workers.into_iter().map(|w| w.join().unwrap()).sum();
    assert_eq!(passed, 100);
}

#[test]
fn many_keys_cost_bounded_memory() {
    let policy = policy(vec![LimitConfig {
        by: vec![Dimension::Path],
        ..limit("each", 2, 60)
    }]);
    let host = host();
    for number in 0..5000 {
        let head = MemoryHead::new("GET", &format!("/task/{number}"));
        assert_eq!(passed(&policy, &head, &host, 1), 1);
    }
    assert!(host.cells() <= 1024);
}

/// A gateway whose shared data cannot be used.
struct Broken;

impl Host for Broken {
    fn now_ns(&self) -> Result<u64, crate::Unreadable> {
        Ok(NOW_MS * 1_000_000)
    }

    fn cell(
        &self,
        _key: &str,
    ) -> Result<Option<(crate::host::Cell, crate::host::Version)>, Unshared> {
        Err(Unshared)
    }

    fn swap(
        &self,
        _key: &str,
        _cell: crate::host::Cell,
        _seen: Option<crate::host::Version>,
    ) -> Result<crate::host::Swapped, Unshared> {
        Err(Unshared)
    }

    fn random(&self) -> Result<[u8; 16], crate::Unreadable> {
        Err(crate::Unreadable)
    }

    fn found(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }
}

#[test]
fn without_shared_data_it_is_as_configured() {
    let mut config = config(vec![limit("second", 5, 1)]);
    let decide = |config: &RateLimit| {
        let policy = compile(config).unwrap();
        policy.decide(&mut Request::default(), &get(), &Broken)
    };
    assert!(matches!(decide(&config), Decision::Refuse(refusal) if refusal.status == 503));
    config.when_unusable = WhenUnusable::Pass;
    assert!(matches!(decide(&config), Decision::Pass(pass) if pass.reason == "unlimited"));
}

#[test]
fn faults_are_named_by_path() {
    let faults = |change: &dyn Fn(&mut RateLimit)| -> Vec<String> {
        let mut config = config(vec![limit("a", 1, 1)]);
        change(&mut config);
        let faults = compile(&config).unwrap_err();
        faults.into_iter().map(|fault| fault.path).collect()
    };
    assert_eq!(faults(&|c| c.limits.clear()), ["limits"]);
    assert_eq!(faults(&|c| c.limits[0].quota = 0), ["limits[0].quota"]);
    assert_eq!(
        faults(&|c| c.limits[0].name = "A b".into()),
        ["limits[0].name"]
    );
    assert_eq!(
        faults(&|c| c.limits.push(limit("a", 1, 1))),
        ["limits[1].name"]
    );
    assert_eq!(
        faults(&|c| c.limits[0].by = vec![Dimension::Path, Dimension::Path]),
        ["limits[0].by[1]"]
    );
    assert_eq!(
        faults(&|c| c.limits[0].by = vec![Dimension::Header("X".into())]),
        ["limits[0].by[0].header"]
    );
    assert_eq!(faults(&|c| c.table_key = "short".into()), ["table_key"]);
    assert_eq!(faults(&|c| c.slots = 1), ["slots"]);
    assert_eq!(
        faults(&|c| c.trusted_proxies = vec!["x".into()]),
        ["trusted_proxies[0]"]
    );
    assert_eq!(
        faults(&|c| {
            c.limits[0].unit = Unit::ConcurrentRequests;
            c.limits[0].burst = Some(1);
            c.limits[0].quota = 70_000;
        }),
        ["limits[0].unit", "limits[0].quota"]
    );
}
