//! Tasks: who originated them, when, and that the broker is no way around.

use super::*;

#[test]
fn a_task_is_judged_by_the_time_of_its_submission() {
    let bench = Bench::new(
        json!([{"from": {"services": ["orchestrator"]}, "methods": ["POST"], "paths": ["/process"],
            "callers": {"subjects": ["alice"]}}]),
        json!({}),
    );
    let hour = 3_600;
    let mut old = claims("alice");
    (old.iat, old.exp) = (old.iat - hour, old.exp - hour);
    let old = sign(&old);
    let submitted = NOW.millis() - hour * 1_000;
    let reason = |result: Result<_, Refusal>| {
        result
            .map(|_: Option<Arc<Claims>>| ())
            .map_err(|r| r.reason())
    };
    assert_eq!(
        bench
            .task(Some(&old), Some(submitted))
            .unwrap()
            .unwrap()
            .sub,
        "alice"
    );
    for (assertion, submitted, wanted) in [
        (Some(&*old), None, Reason::AssertionExpired),
        (Some(&*old), Some(NOW.millis()), Reason::AssertionExpired),
        (
            Some(&*old),
            Some(submitted - 31_000),
            Reason::AssertionExpired,
        ),
        (Some("x"), Some(NOW.millis()), Reason::AssertionMalformed),
        (None, Some(NOW.millis()), Reason::NoIntention),
        (None, None, Reason::NoIntention),
        (Some(&*sign(&claims("bob"))), None, Reason::NoIntention),
        (Some(&*old), Some(NOW.millis() + 31_000), Reason::Submission),
        (
            Some(&*old),
            Some(NOW.millis() - (86_400 + 31) * 1_000),
            Reason::Submission,
        ),
    ] {
        assert_eq!(
            reason(bench.task(assertion, submitted)),
            Err(wanted),
            "{assertion:?} {submitted:?}"
        );
    }
    assert_eq!(bench.count("task", "submission"), 2.0);
    let now = sign(&claims("alice"));
    assert_eq!(
        reason(bench.task(Some(&now), Some(NOW.millis() + 29_000))),
        Ok(())
    );
}

#[test]
fn tasks_come_from_the_orchestrator() {
    let allowed = |intentions, inbound| Bench::new(intentions, inbound).task(None, None).is_ok();
    assert!(allowed(open(), json!({})));
    assert!(allowed(
        json!([{"from": {"services": ["orchestrator"]}}]),
        json!({})
    ));
    assert!(!allowed(json!([]), json!({})));
    assert!(!allowed(
        json!([{"from": {"services": ["gateway"]}}]),
        json!({})
    ));
    assert!(!allowed(
        json!([{"from": "any", "paths": ["/health"]}]),
        json!({})
    ));
    assert!(!allowed(
        json!([{"from": "any"}, {"from": "any", "action": "deny", "paths": ["/process"]}]),
        json!({})
    ));
    // What a request needs, a task needs too: the broker is no way around.
    assert!(!allowed(open(), json!({"assertion": {"required": {}}})));
    assert!(allowed(
        open(),
        json!({"assertion": {"required": {"except": ["/process"]}}})
    ));
}

#[test]
fn a_plain_worker_has_no_policy_and_an_identity_denies_by_default() {
    let build_of = |extra: Value| {
        let mut config = json!({"service": "a", "admin_listen": "127.0.0.1:0"});
        config
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        build(
            &serde_json::from_value(config).unwrap(),
            &prometheus::Registry::new(),
        )
        .unwrap()
    };
    assert!(build_of(json!({})).is_none());
    assert!(build_of(json!({"policy": {"intentions": [{"from": "any"}]}})).is_some());
    let source = json!({"development": {"directory": "unused"}});
    let (policy, _writer) = build_of(json!({"identity": {"source": source}})).unwrap();
    let (task_id, step_id) = ("t".parse().unwrap(), "s".parse().unwrap());
    let origin = Origin {
        task_id: &task_id,
        step_id: &step_id,
        assertion: None,
        submitted: None,
        traceparent: None,
    };
    assert_eq!(
        policy.task(origin, NOW).unwrap_err().reason(),
        Reason::NoIntention
    );
}
