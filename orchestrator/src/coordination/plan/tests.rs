//! Collaborations as they are read and checked.

use super::check::{Ground, check};
use super::draft::Draft;
use super::{Catalog, Code, Joint};
use crate::config::Agent;
use crate::planner::CheckedPlan;
use crate::planner::check::Bounds;
use mesh_protocol::AgentId;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::RequestError;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn checked(plan: Value) -> Result<CheckedPlan, Vec<(Code, String, String)>> {
    let agents = ["a", "b", "c", "d"].map(|id| Agent {
        id: id.parse().unwrap(),
        capabilities: Vec::new(),
        description: String::new(),
        queue_kind: None,
        concurrency: 1,
        resources: Default::default(),
        originators: None,
    });
    let catalog = Catalog::new(agents.to_vec());
    let listeners: BTreeSet<AgentId> = ["listener".parse().unwrap()].into();
    let ground = Ground {
        catalog: &catalog,
        listeners: &listeners,
        bounds: Bounds {
            max_steps: 4,
            max_width: 3,
        },
    };
    check(Draft::from_json(&plan), PlanSource::Client, &ground).map_err(|findings| {
        let all = findings.into_iter();
        all.map(|f| (f.code, f.place, f.detail)).collect()
    })
}

fn nodes(names: &[&str]) -> Value {
    names
        .iter()
        .map(|n| json!({"agent": n, "role": "r"}))
        .collect()
}

fn edges(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(a, b)| json!({"from": a, "to": b}))
        .collect()
}

#[test]
fn a_graph_becomes_steps() {
    let plan = checked(json!({
        "nodes": [
            {"agent": "a", "role": "read", "priority": "7"},
            {"agent": "b", "role": "count"},
            {"agent": "c", "role": "draw"},
            {"agent": "d", "role": "bind", "priority": 1},
        ],
        "edges": [
            {"from": "a", "to": "b", "data": "rows", "weight": 2},
            {"from": "a", "to": "c", "data": "rows", "weight": 9},
            {"from": "b", "to": "d"},
        ],
        "synchronization_points": ["when all is drawn", {"after": ["b", "c"], "before": "d"}],
        "estimated_completion": "90 seconds",
    }))
    .unwrap();
    let graph = plan.plan.collaboration.as_ref().unwrap();
    assert_eq!((graph.nodes[0].priority, graph.nodes[1].priority), (7, 5));
    assert_eq!(graph.edges[2].data, "unknown");
    let last = &plan.plan.execution_plan[3];
    let before: Vec<&str> = last.dependencies.iter().map(|d| d.as_str()).collect();
    // c gives nothing and is waited for.
    assert_eq!(before, ["b", "c"]);
    assert_eq!(graph.edges_to(&last.agent).count(), 1);
    let figures = super::graph::metrics(graph, &plan.dag);
    assert_eq!((figures.nodes, figures.edges), (4, 3));
    assert_eq!((figures.depth, figures.width), (3, 2));
    assert!((figures.density - 0.25).abs() < 1e-9);
    let path: Vec<&str> = figures.critical_path.iter().map(AgentId::as_str).collect();
    assert_eq!(
        (path, figures.critical_path_weight),
        (vec!["a", "c", "d"], 9)
    );
    assert!((plan.plan.estimated_time - 90.0).abs() < 1e-9);
}

#[test]
fn a_circle_is_named() {
    for (pairs, named) in [
        (
            &[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")][..],
            ["b → c → b", "c → b → c"],
        ),
        (&[("a", "b"), ("b", "a")], ["a → b → a", "b → a → b"]),
        (&[("a", "a")], ["a → a", "a → a"]),
    ] {
        let found = checked(json!({"nodes": nodes(&["a", "b", "c", "d"]), "edges": edges(pairs)}));
        let found = found.unwrap_err();
        assert_eq!((found.len(), found[0].0), (1, Code::C005));
        assert!(named.iter().any(|n| found[0].2.contains(n)), "{found:?}");
    }
    // Through a barrier as well.
    let found = checked(json!({
        "nodes": nodes(&["a", "b"]),
        "edges": edges(&[("a", "b")]),
        "synchronization_points": [{"after": ["b"], "before": ["a"]}],
    }));
    assert_eq!(found.unwrap_err()[0].0, Code::C005);
}

#[test]
fn every_fault_has_its_code_and_place() {
    let ab = nodes(&["a", "b"]);
    let long = "x".repeat(3000);
    for (plan, code, place) in [
        (
            json!({"nodes": nodes(&["a", "x"])}),
            Code::C001,
            "nodes[1].agent",
        ),
        (
            json!({"nodes": nodes(&["A B"])}),
            Code::C001,
            "nodes[0].agent",
        ),
        (
            json!({"nodes": nodes(&["listener"])}),
            Code::C002,
            "nodes[0].agent",
        ),
        (
            json!({"nodes": nodes(&["a", "b", "a"])}),
            Code::C003,
            "nodes[2].agent",
        ),
        (
            json!({"nodes": ab, "edges": edges(&[("a", "c")])}),
            Code::C004,
            "edges[0].to",
        ),
        (
            json!({"nodes": ab, "edges": [{"to": "b"}]}),
            Code::C004,
            "edges[0].from",
        ),
        (
            json!({"nodes": ab, "synchronization_points": [{"after": ["a"], "before": ["d"]}]}),
            Code::C004,
            "synchronization_points[0].before[0]",
        ),
        (
            json!({"nodes": ab, "edges": edges(&[("a", "b"), ("a", "b")])}),
            Code::C006,
            "edges[1]",
        ),
        (json!({}), Code::C007, "nodes"),
        (json!({"nodes": []}), Code::C007, "nodes"),
        (
            json!({"nodes": nodes(&["a", "b", "c", "d", "a"])}),
            Code::C008,
            "nodes",
        ),
        (
            json!({"nodes": ab, "edges": edges(&[("a", "b"); 1001])}),
            Code::C008,
            "edges",
        ),
        (
            json!({"nodes": nodes(&["a", "b", "c", "d"])}),
            Code::C009,
            "",
        ),
        (
            json!({"nodes": [{"agent": "a"}]}),
            Code::C010,
            "nodes[0].role",
        ),
        (
            json!({"nodes": [{"agent": "a", "role": long}]}),
            Code::C010,
            "nodes[0].role",
        ),
        (
            json!({"nodes": ab, "synchronization_points": [{}]}),
            Code::C010,
            "synchronization_points[0].after",
        ),
        (
            json!({"nodes": [{"agent": "a", "role": "r", "priority": 11}]}),
            Code::C011,
            "nodes[0].priority",
        ),
        (
            json!({"nodes": ab, "edges": [{"from": "a", "to": "b", "weight": 0}]}),
            Code::C011,
            "edges[0].weight",
        ),
        (
            json!({"nodes": [{"agent": "a", "role": "r", "priority": 2.5}]}),
            Code::C012,
            "nodes[0].priority",
        ),
        (
            json!({"nodes": ab, "edges": [{"form": "a", "to": "b"}]}),
            Code::C012,
            "edges[0]",
        ),
        (json!({"nodes": "a"}), Code::C012, "nodes"),
        (
            json!({"nodes": ab, "edges": {"a": "b"}}),
            Code::C012,
            "edges",
        ),
        (json!([]), Code::C012, ""),
        (json!({"nodes": [7]}), Code::C012, "nodes[0]"),
    ] {
        let found = checked(plan.clone()).unwrap_err();
        let hit = found.iter().any(|f| (f.0, f.1.as_str()) == (code, place));
        assert!(hit, "{plan}: {found:?}");
        assert!(found.len() <= 20);
    }
}

#[test]
fn any_object_is_a_task() {
    let read = |body: &str| Joint::from_json(body.as_bytes());
    let joint = read(r#"{"task":"scan","payload":{"a":1},"priority":8,"plan":{"nodes":[]},"capabilities":["x"]}"#).unwrap();
    assert_eq!(joint.request.task_type, "scan");
    assert_eq!((joint.request.priority, joint.capabilities.len()), (8, 1));
    assert!(joint.plan.is_some());
    let joint = read(r#"{"description":"look","priority":2,"timeout":9,"plan":null}"#).unwrap();
    assert_eq!(joint.request.task_type, "collaboration");
    assert_eq!((joint.request.priority, joint.request.timeout), (2, 9));
    assert_eq!(
        Value::Object(joint.request.payload),
        json!({"description": "look"})
    );
    let joint = read(r#"{"payload":{"a":1}}"#).unwrap();
    assert_eq!(Value::Object(joint.request.payload), json!({"a": 1}));
    for (body, field) in [
        ("[]", ""),
        (r#"{"task":3}"#, "task"),
        (r#"{"task":"x","capabilities":"y"}"#, "capabilities"),
        (r#"{"task":"x","capabilities":[""]}"#, "capabilities"),
        (r#"{"x":1,"priority":99}"#, "priority"),
    ] {
        let Err(RequestError::Fields(faults)) = read(body) else {
            panic!("{body}");
        };
        assert_eq!(faults[0].field, field, "{body}");
    }
    assert!(matches!(read("{"), Err(RequestError::NotJson(_))));
    let whole = |body: &str| read(body).unwrap().whole();
    assert_eq!(
        whole(r#"{"task":"x","payload":{}}"#),
        whole(r#"{"payload":{},"task":"x"}"#)
    );
    assert_ne!(
        whole(r#"{"task":"x"}"#),
        whole(r#"{"task":"x","plan":{"nodes":[]}}"#)
    );
}
