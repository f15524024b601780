//! Which intention decides, and that none is passed by another spelling of a path.

use super::*;
use crate::policy::tests::claims;
use serde_json::json;

fn intentions(list: serde_json::Value) -> Intentions {
    let list: Vec<config::Intention> = serde_json::from_value(list).unwrap();
    Intentions::new(&list).unwrap()
}

fn decide(intentions: &Intentions, from: &str, asked: &str) -> Decision {
    decide_for(intentions, from, asked, None)
}

fn decide_for(
    intentions: &Intentions,
    from: &str,
    asked: &str,
    claims: Option<&Claims>,
) -> Decision {
    let (method, path) = asked.split_once(' ').unwrap();
    let held = claims.map(|claims| intentions.held(claims));
    let method = method.parse().unwrap();
    intentions.decide(&from.parse().unwrap(), &method, path, held.as_ref())
}

#[test]
fn nothing_is_allowed_that_no_intention_allows() {
    assert_eq!(
        decide(&intentions(json!([])), "a", "GET /"),
        Decision::Nothing
    );
    let some = intentions(json!([
        {"from": {"services": ["a", "b"]}, "methods": ["GET"], "paths": ["/x", "/y"]},
    ]));
    for (from, asked) in [("a", "GET /x"), ("b", "GET /y/z"), ("b", "GET /x/")] {
        assert_eq!(
            decide(&some, from, asked),
            Decision::Allowed,
            "{from} {asked}"
        );
    }
    for (from, asked) in [
        ("c", "GET /x"),
        ("a", "POST /x"),
        ("a", "HEAD /x"),
        ("a", "GET /xx"),
        ("a", "GET /"),
    ] {
        assert_eq!(
            decide(&some, from, asked),
            Decision::Nothing,
            "{from} {asked}"
        );
    }
}

#[test]
fn denying_wins_whatever_the_order() {
    for list in [
        json!([{"from": "any"}, {"from": {"services": ["a"]}, "action": "deny"}]),
        json!([{"from": {"services": ["a"]}, "action": "deny"}, {"from": "any"}]),
    ] {
        let both = intentions(list);
        assert!(matches!(decide(&both, "a", "GET /"), Decision::Denied(_)));
        assert_eq!(decide(&both, "b", "GET /"), Decision::Allowed);
    }
}

#[test]
fn an_unclear_path_is_decided_only_where_no_path_matters() {
    let open = intentions(json!([{"from": "any"}]));
    assert_eq!(decide(&open, "a", "GET /x//y"), Decision::Allowed);
    let also_opened = intentions(json!([{"from": "any"}, {"from": "any", "paths": ["/x"]}]));
    assert_eq!(decide(&also_opened, "a", "GET /x//y"), Decision::Allowed);
    let opened = intentions(json!([{"from": {"services": ["a"]}, "paths": ["/x"]}]));
    assert_eq!(decide(&opened, "a", "GET /x//y"), Decision::Unclear(0));
    assert_eq!(decide(&opened, "b", "GET /x//y"), Decision::Nothing);
    for list in [
        json!([{"from": "any"}, {"from": "any", "action": "deny", "paths": ["/admin"]}]),
        json!([{"from": "any", "action": "deny", "paths": ["/admin"]}, {"from": "any"}]),
    ] {
        let closed = intentions(list);
        for path in [
            "//admin",
            "/x/../admin",
            "/%2e/admin",
            "/admin;x",
            "/x%2f..%2fadmin",
            "/\\admin",
            "/admin%00",
        ] {
            let decision = decide(&closed, "a", &format!("GET {path}"));
            assert!(
                matches!(decision, Decision::Unclear(_)),
                "{path}: {decision:?}"
            );
        }
        for path in ["/admin", "/%61dmin", "/admin/", "/%41dmin"] {
            let decision = decide(&closed, "a", &format!("GET {path}"));
            let wanted = path != "/%41dmin";
            assert_eq!(
                matches!(decision, Decision::Denied(_)),
                wanted,
                "{path}: {decision:?}"
            );
        }
    }
}

#[test]
fn callers_are_held_against_the_assertion() {
    let alice = claims("alice");
    for (callers, holds) in [
        (json!({}), true),
        (json!({"subjects": ["bob", "alice"]}), true),
        (json!({"subjects": ["bob"]}), false),
        (
            json!({"issuers": ["https://issuer.example"], "scopes": ["tasks:submit"]}),
            true,
        ),
        (
            json!({"issuers": ["https://other.example"], "scopes": ["tasks:submit"]}),
            false,
        ),
        (json!({"scopes": ["tasks:submit", "tasks:read"]}), true),
        (json!({"scopes": ["tasks:submit", "admin"]}), false),
        (json!({"scopes": ["tasks"]}), false),
        (json!({"claims": {"tenant": "acme"}}), true),
        (json!({"claims": {"tenant": "ACME"}}), false),
        (json!({"claims": {"tenant": "acme", "role": "x"}}), false),
    ] {
        let allows = intentions(json!([{"from": "any", "callers": callers}]));
        let wanted = if holds {
            Decision::Allowed
        } else {
            Decision::Nothing
        };
        assert_eq!(
            decide_for(&allows, "a", "GET /", Some(&alice)),
            wanted,
            "{callers}"
        );
        assert_eq!(
            decide(&allows, "a", "GET /"),
            Decision::Nothing,
            "{callers}"
        );
        let denies = intentions(
            json!([{"from": "any"}, {"from": "any", "action": "deny", "callers": callers}]),
        );
        let wanted = if holds {
            Decision::Denied(1)
        } else {
            Decision::Allowed
        };
        assert_eq!(
            decide_for(&denies, "a", "GET /", Some(&alice)),
            wanted,
            "{callers}"
        );
    }
}
