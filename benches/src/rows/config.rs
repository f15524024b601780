//! What mesh.yaml costs: checked and rendered, at three sizes.

use super::Bench;
use crate::row::{Goal, Row, figure};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What the rows say.
pub const ABOUT: &str = "Time to check a mesh.yaml of 1,000 agents and 5,000 routes and to render all of it (kong.yml, the environment of Kong, orchestrator.json, one file for each sidecar), in one process, \
    files not written. Beside it half a tenth and twice the size: the cost per agent is the same. decK and `kong config parse` are not to be had on this machine, so no peer is measured.";
/// The same process, its memory.
pub const ABOUT_RSS: &str = "The most memory that this process had resident (VmHWM).";

/// Agents and routes; the second is the one that has a goal.
const SIZES: [(usize, usize); 3] = [(100, 500), (1_000, 5_000), (2_000, 10_000)];

#[derive(Deserialize)]
struct Measured {
    validate_ms: f64,
    total_ms: f64,
    rendered: u64,
    peak_mib: f64,
}

/// Measures both rows.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut table = vec![
        [
            "agents",
            "routes",
            "mesh.yaml",
            "check",
            "check and render",
            "rendered",
            "memory",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for (agents, routes) in SIZES {
        let file = bench.scratch.path().join(format!("mesh-{agents}.yaml"));
        let text = mesh(agents, routes)?;
        std::fs::write(&file, &text)?;
        let rounds = (0..bench.rounds).map(|_| once(&file));
        let rounds = rounds.collect::<Result<Vec<Measured>>>()?;
        let of = |value: fn(&Measured) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
        let first = rounds.first().context("no rounds")?;
        let median = |value: fn(&Measured) -> f64| figure(crate::median(&of(value)));
        table.push(vec![
            agents.to_string(),
            routes.to_string(),
            format!("{} KiB", text.len() / 1024),
            format!("{} ms", median(|m| m.validate_ms)),
            format!("{} ms", median(|m| m.total_ms)),
            format!("{} KiB", first.rendered / 1024),
            format!("{} MiB", median(|m| m.peak_mib)),
        ]);
        if agents == 1_000 {
            times = of(|m| m.total_ms);
            memory = of(|m| m.peak_mib);
        }
    }
    Ok(vec![
        Row::alone("config", "ms", &times)
            .with_goal(Goal::AtMost(1_000.0))
            .with_table(table),
        Row::alone("config-rss", "MiB", &memory).with_goal(Goal::AtMost(200.0)),
    ])
}

fn once(file: &Path) -> Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    let out = command.args(["config", "--file"]).arg(file).output()?;
    ensure!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// A mesh as an operator would write it: every agent with what is usual, every route with its own path.
fn mesh(agents: usize, routes: usize) -> Result<String> {
    let mut text = "version: 1\nmesh: large\ngateway:\n  auth: {development: true}\n".to_owned();
    text.push_str("  filters:\n    rate_limit: {limits: [{name: a, quota: 50, window_s: 1, by: [consumer]}]}\n");
    // Without agent_router, which takes 256 agents.
    text.push_str("  routes:\n");
    for n in 0..routes {
        writeln!(
            text,
            "    - {{name: route-{n}, paths: [/team-{}/service-{n}], methods: [GET, POST]}}",
            n % 50
        )?;
    }
    text.push_str("orchestrator:\n  planner:\n    general_agent: agent-0\n    rules:\n");
    for n in 0..agents / 10 {
        writeln!(text, "      task_{n}: [agent-{n}, agent-{}]", n + 1)?;
    }
    text.push_str("intentions:\n  - {from: gateway, to: any}\n  - {from: orchestrator, to: any}\n");
    for n in 0..agents / 2 {
        writeln!(
            text,
            "  - {{from: agent-{n}, to: agent-{}, methods: [POST], paths: [/process]}}",
            n + 1
        )?;
    }
    text.push_str("agents:\n");
    for n in 0..agents {
        let address = format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256);
        writeln!(
            text,
            "  - id: agent-{n}\n    description: Does the work of number {n}\n    capabilities: [skill_{n}, skill_{}]\n    \
             endpoint: http://{address}:8080\n    concurrency: 4\n    timeout: 30s\n    retries: {{attempts: 3, pause: 100ms}}",
            n % 100
        )?;
    }
    Ok(text)
}
