//! Services that lead to the agent which a filter has chosen.

use crate::filters::{CALLBACKS, module, on};
use crate::support::{Gateway, Service, Setup};

/// A gateway whose filter chooses the agent that `x-want` names; without it, none.
async fn choosing(first: &Service, second: &Service) -> Gateway {
    let rest = "  tags: [mesh-agents]
  routes: [{name: r, paths: [/ai]}]
filter_chains: [{service: s, filters: [{name: choose}]}]
";
    // Copies the value of x-want into x-mesh-agent.
    let choose =
        "(if (i32.eqz (call $get (i32.const 0) (i32.const 100) (i32.const 6) (i32.const 1000)
          (i32.const 1004))) (then (drop (call $add (i32.const 0) (i32.const 106) (i32.const 12)
          (i32.load (i32.const 1000)) (i32.load (i32.const 1004)))))) (i32.const 0)";
    let names = "(data (i32.const 100) \"x-wantx-mesh-agent\")";
    let mut setup = Setup::new("127.0.0.1:9".parse().unwrap(), rest)
        .with_modules(&[("choose", &module(&(on(CALLBACKS[0], choose) + names)))]);
    setup.agents = [
        ("planner".to_owned(), vec![first.address.to_string()]),
        (
            "coder".to_owned(),
            vec![second.address.to_string(), second.address.to_string()],
        ),
        ("nowhere".to_owned(), Vec::new()),
    ]
    .into();
    setup.start().await
}

#[tokio::test]
async fn the_filter_says_which_agent() {
    let (planner, coder) = tokio::join!(Service::start(), Service::start());
    let gateway = choosing(&planner, &coder).await;
    let answer = gateway.post("/ai/process", "x-want: planner\n", "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(planner.only().target, "/process");
    assert!(!planner.only().headers.contains_key("x-mesh-agent"));
    assert_eq!(gateway.get("/ai", "x-want: coder\n").await.status, 200);
    assert_eq!(coder.seen().len(), 1);
}

#[tokio::test]
async fn without_a_known_agent_there_is_a_problem() {
    let (planner, coder) = tokio::join!(Service::start(), Service::start());
    let gateway = choosing(&planner, &coder).await;
    for (headers, status, kind) in [
        ("", 502, "no-agent"),
        ("x-want: stranger\n", 404, "unknown-agent"),
        ("x-want: nowhere\n", 503, "no-healthy-target"),
    ] {
        let answer = gateway.get("/ai", headers).await;
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert!(answer.body.contains(kind), "{}", answer.body);
    }
    assert!(planner.seen().is_empty() && coder.seen().is_empty());
}

#[tokio::test]
async fn a_client_never_says_which_agent() {
    let (planner, coder) = tokio::join!(Service::start(), Service::start());
    let gateway = choosing(&planner, &coder).await;
    for name in [
        "x-mesh-agent",
        "X-Mesh-Agent",
        "x_mesh_agent",
        "X-mesh_AGENT",
    ] {
        let headers = format!("{name}: coder\nx-want: planner\n");
        let answer = gateway.get("/ai", &headers).await;
        assert_eq!(answer.status, 400, "{name}");
    }
    // What a connection names ends with it.
    let nominated = "connection: x-mesh-agent\nx-mesh-agent: coder\n";
    assert_eq!(gateway.get("/ai", nominated).await.status, 502);
    assert!(planner.seen().is_empty() && coder.seen().is_empty());
}

#[tokio::test]
async fn an_agent_has_an_address() {
    let mut setup = Setup::new("127.0.0.1:9".parse().unwrap(), "");
    setup.agents = [("a".to_owned(), vec!["example.test:1".to_owned()])].into();
    let refusal = setup.refusal().await;
    assert!(refusal.contains("agent a: host example.test"), "{refusal}");
}
