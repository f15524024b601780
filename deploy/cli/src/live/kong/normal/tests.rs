//! What Kong fills in is no difference, and what it does not is one.

use super::*;

/// The part of Kong's schemas that is asked for here, in its form.
fn services() -> Schema {
    Schema::new(json!({"fields": [
        {"id": {"type": "string", "uuid": true, "auto": true}},
        {"name": {"type": "string", "unique": true}},
        {"protocol": {"type": "string", "default": "http"}},
        {"host": {"type": "string", "required": true}},
        {"port": {"type": "integer", "default": 80}},
        {"path": {"type": "string"}},
        {"retries": {"type": "integer", "default": 5}},
        {"tags": {"type": "set", "elements": {"type": "string"}}},
    ]}))
}

#[test]
fn what_kong_fills_in_is_no_difference() {
    let config = json!({"services": [{
        "name": "a", "url": "http://h/p", "tags": ["y", "x"],
        "routes": [{"name": "r", "paths": ["/a"], "plugins": [{"name": "cors", "config": {"origins": ["*"]}}]}],
    }]});
    let wanted = Flat::of_config(&config);
    let held = Flat::of_entities(vec![
        (
            "services",
            json!({"id": "1", "name": "a", "protocol": "http", "host": "h", "port": 80, "path": "/p",
            "retries": 5, "tags": ["x", "y"], "created_at": 1, "updated_at": 1, "client_certificate": null}),
        ),
        (
            "routes",
            json!({"id": "2", "name": "r", "paths": ["/a"], "service": {"id": "1"}}),
        ),
        (
            "plugins",
            json!({"id": "3", "name": "cors", "route": {"id": "2"}, "service": null,
            "config": {"origins": ["*"], "max_age": null}}),
        ),
    ]);
    let names = |flat: &Flat| {
        flat.entities
            .iter()
            .map(|e| e.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&wanted), ["a", "r", "cors (route r)"]);
    assert_eq!(names(&wanted), names(&held));
    let schema = services();
    for (number, (a, b)) in wanted.entities.iter().zip(&held.entities).enumerate() {
        let schema = (number == 0).then_some(&schema);
        assert_eq!(
            plain(&a.body, schema, Some(&a.body)),
            plain(&b.body, schema, Some(&a.body))
        );
    }
    let other = json!({"id": "1", "name": "a", "host": "h", "path": "/p", "retries": 6});
    assert_eq!(plain(&other, Some(&schema), None)["retries"], 6);
}

#[test]
fn records_within_have_defaults_too() {
    let schema = Schema::new(json!({"fields": [
        {"healthchecks": {"type": "record", "default": {"active": {"type": "http", "healthy": {"interval": 0}}}, "fields": [
            {"active": {"type": "record", "fields": [
                {"type": {"type": "string", "default": "http"}},
                {"healthy": {"type": "record", "fields": [{"interval": {"type": "number", "default": 0}}]}},
            ]}},
        ]}},
    ]}));
    let full = json!({"healthchecks": {"active": {"type": "http", "healthy": {"interval": 0}}}});
    assert_eq!(plain(&full, Some(&schema), None), json!({}));
    let some = json!({"healthchecks": {"active": {"healthy": {"interval": 5}}}});
    assert_eq!(plain(&some, Some(&schema), None), some);
    // An old name beside the new one, which no schema has.
    let shorthand = json!({"redis_host": "h"});
    assert_eq!(plain(&shorthand, Some(&schema), None), json!({}));
    assert_eq!(
        plain(&shorthand, Some(&schema), Some(&shorthand)),
        shorthand
    );
}

#[test]
fn a_target_without_a_port_has_kongs() {
    for (target, full) in [
        ("h", "h:8000"),
        ("h:1", "h:1"),
        ("[::1]", "[::1]:8000"),
        ("[::1]:2", "[::1]:2"),
    ] {
        assert_eq!(address(&json!({"target": target})), full);
    }
}
