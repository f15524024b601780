//! Checking and rendering grow with the mesh, and not with its square: twice the agents and routes take about twice the
//! time. `make bench ONLY=config` measures the same alone.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use mesh_config::render;
use mesh_config::secret::Secrets;
use std::fmt::Write;
use std::time::{Duration, Instant};

fn mesh(agents: usize, routes: usize) -> String {
    // Without agent_router, which takes 256 agents.
    let mut text =
        "version: 1\nmesh: large\ngateway:\n  auth: {development: true}\n  routes:\n".to_owned();
    for n in 0..routes {
        let team = n % 50;
        writeln!(
            text,
            "    - {{name: r-{n}, paths: [/team-{team}/service-{n}], methods: [GET, POST]}}"
        )
        .unwrap();
    }
    text.push_str("orchestrator:\n  planner:\n    general_agent: agent-0\n    rules:\n");
    for n in 0..agents / 10 {
        writeln!(text, "      task_{n}: [agent-{n}, agent-{}]", n + 1).unwrap();
    }
    text.push_str("intentions:\n  - {from: gateway, to: any}\n  - {from: orchestrator, to: any}\n");
    for n in 0..agents / 2 {
        writeln!(
            text,
            "  - {{from: agent-{n}, to: agent-{}, methods: [POST]}}",
            n + 1
        )
        .unwrap();
    }
    text.push_str("agents:\n");
    for n in 0..agents {
        let (a, b, skill) = (n / 256, n % 256, n % 100);
        writeln!(
            text,
            "  - id: agent-{n}\n    description: Does the work of number {n}\n    capabilities: [skill_{n}, skill_{skill}]\n    \
             endpoint: http://10.0.{a}.{b}:8080\n    concurrency: 4\n    timeout: 30s"
        )
        .unwrap();
    }
    text
}

/// Time to check, and to check and render.
fn once(text: &str) -> (Duration, Duration) {
    let begun = Instant::now();
    let mesh = mesh_config::compile("mesh.yaml", text).unwrap().mesh;
    let checked = begun.elapsed();
    let none = Secrets::none();
    let mut length = render::kong(&mesh, &none).unwrap().to_yaml().unwrap().len();
    let orchestrator = render::orchestrator(&mesh, &none).unwrap();
    length += serde_json::to_string_pretty(&orchestrator).unwrap().len();
    for sidecar in render::sidecars(&mesh, &none).unwrap() {
        length += serde_json::to_string_pretty(&sidecar).unwrap().len();
    }
    assert!(length > text.len());
    (checked, begun.elapsed())
}

#[test]
fn twice_the_mesh_takes_about_twice_the_time() {
    let mut took = Vec::new();
    for (agents, routes) in [(100, 500), (1_000, 5_000), (2_000, 10_000)] {
        let text = mesh(agents, routes);
        // The best of some: the machine does other things, too.
        let rounds: Vec<_> = (0..3).map(|_| once(&text)).collect();
        let checked = rounds.iter().map(|r| r.0).min().unwrap();
        let whole = rounds.iter().map(|r| r.1).min().unwrap();
        eprintln!("{agents} agents, {routes} routes: checked {checked:?}, and rendered {whole:?}");
        took.push(whole);
    }
    let ratio = took[2].as_secs_f64() / took[1].as_secs_f64();
    // With a square in it this would be 4.
    assert!(
        ratio < 3.0,
        "2,000 agents take {ratio:.1} times as long as 1,000"
    );
}
