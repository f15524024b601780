//! What a task costs by its type, and claims as keys.

use super::*;
use std::collections::BTreeMap;

fn priced() -> Policy {
    let units = BTreeMap::from([("cheap".to_owned(), 1), ("dear".to_owned(), 4)]);
    policy(vec![LimitConfig {
        cost: Some(Cost::TaskType { units, other: 2 }),
        ..limit("units", 8, 3600)
    }])
}

/// What is left after a POST with `body`.
fn left(policy: &Policy, host: &MemoryHost, body: &[u8]) -> Result<u64, u16> {
    let head = MemoryHead::new("POST", "/ai/orchestrate");
    let (mut request, refusal) = ask(policy, &head, host);
    assert_eq!(refusal, None);
    assert!(policy.wants_body(&request));
    match policy.decide_body(&mut request, Some(body), host) {
        Decision::Pass(_) => Ok(request.standings[0].left),
        Decision::Refuse(refusal) => Err(refusal.status),
    }
}

#[test]
fn a_task_costs_what_its_type_is_listed_with() {
    let (policy, host) = (priced(), host());
    assert_eq!(left(&policy, &host, br#"{"task_type":"cheap"}"#), Ok(7));
    assert_eq!(
        left(&policy, &host, br#"{"payload":{"a":[1]},"task":"dear"}"#),
        Ok(3)
    );
    assert_eq!(left(&policy, &host, br#"{"task_type":"any"}"#), Ok(1));
    assert_eq!(left(&policy, &host, br#"{"task_type":"any"}"#), Err(429));
    assert_eq!(left(&policy, &host, br#"{"task_type":"cheap"}"#), Ok(0));
}

#[test]
fn a_body_that_cannot_be_read_costs_as_much_as_the_dearest() {
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"\xff",
        br#"{"task_type":5}"#,
        br#"{"x":1}"#,
    ] {
        assert_eq!(left(&priced(), &host(), body), Ok(4), "{body:?}");
    }
    let deep = [b"{\"x\":".repeat(10_000), b"1".to_vec()].concat();
    assert_eq!(left(&priced(), &host(), &deep), Ok(4));
}

#[test]
fn a_body_that_nobody_sees_is_refused_and_costs_nothing() {
    let (policy, host) = (priced(), host());
    let head = MemoryHead::new("POST", "/");
    let mut request = ask(&policy, &head, &host).0;
    let Decision::Refuse(refusal) = policy.decide_body(&mut request, None, &host) else {
        panic!("it passed")
    };
    assert_eq!(refusal.status, 413);
    assert_eq!(left(&policy, &host, br#"{"task_type":"cheap"}"#), Ok(7));
}

#[test]
fn what_is_no_task_costs_one_and_needs_no_body() {
    let (policy, host) = (priced(), host());
    let (request, refusal) = ask(&policy, &get(), &host);
    assert_eq!(refusal, None);
    assert!(!policy.wants_body(&request));
    assert_eq!(request.standings[0].left, 7);
}

#[test]
fn what_the_head_gave_is_given_back_when_the_body_costs_too_much() {
    let units = BTreeMap::from([("dear".to_owned(), 9)]);
    let priced = LimitConfig {
        cost: Some(Cost::TaskType { units, other: 1 }),
        ..limit("units", 8, 3600)
    };
    let inside = LimitConfig {
        unit: Unit::ConcurrentRequests,
        ..limit("inside", 1, 60)
    };
    let policy = policy(vec![limit("second", 2, 3600), inside, priced]);
    let host = host();
    for _ in 0..5 {
        let head = MemoryHead::new("POST", "/");
        let (mut request, refusal) = ask(&policy, &head, &host);
        assert_eq!(refusal, None, "the earlier limits gave back");
        let body = br#"{"task_type":"dear"}"#;
        let Decision::Refuse(refusal) = policy.decide_body(&mut request, Some(body), &host) else {
            panic!("it passed")
        };
        assert_eq!(refusal.status, 429);
        policy.end(&mut request, &host);
    }
}

#[test]
fn callers_are_told_apart_by_a_claim() {
    let by = vec![Dimension::Claim("tenant".to_owned())];
    let policy = policy(vec![LimitConfig {
        by,
        ..limit("tenant", 1, 3600)
    }]);
    let host = host();
    let caller = |sub: &str, tenant: Option<&str>| {
        let claims = tenant.map(|tenant| ("tenant".to_owned(), tenant.to_owned()));
        let caller = crate::Caller {
            sub: sub.to_owned(),
            origin: "https://issuer.example".to_owned(),
            scope: String::new(),
            claims: claims.into_iter().collect(),
        };
        host.leave(FOUND_CALLER, serde_json::to_vec(&caller).unwrap());
        passed(&policy, &get(), &host, 1)
    };
    assert_eq!(caller("ada", Some("north")), 1);
    assert_eq!(caller("bob", Some("north")), 0);
    assert_eq!(caller("bob", Some("south")), 1);
    assert_eq!(caller("eve", None), 1);
    assert_eq!(caller("fay", None), 0);
}
