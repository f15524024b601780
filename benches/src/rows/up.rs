//! How long `mesh up` takes to its first answered task.

use super::{Bench, say};
use crate::load::{Call, Line};
use crate::mesh::{ours, said};
use crate::process::{Process, free_address};
use crate::row::{Goal, Row, figure};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "From the start of the process `mesh up` (gateway with four filters, orchestrator, six sidecars with certificates of their own, four agents, memory backends) to the answer of a \
    task of one step through the gateway, its result in it; asked for every 5 ms. Filters come from the cache of compiled ones in `.mesh/cache`: the first start, which fills it, is a note. The \
    peer is no mesh: one agent alone, FastAPI in one uvicorn worker (`benches/peers/fastapi_agent.py`), from its start to its first answer.";

const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions.
const AGAIN: Duration = Duration::from_millis(5);

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let uvicorn = bench.root.join("target/bench-venv/bin/uvicorn");
    ensure!(
        uvicorn.exists(),
        "{} is not there; benches/setup.sh makes it",
        uvicorn.display()
    );
    let home = bench.scratch.path().join("up");
    fs::create_dir_all(&home)?;
    let first = start(bench, &home).await?;
    let (mut rounds, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (ours_ms, cpu_ms) = start(bench, &home).await?;
        let peer_ms = peer(bench, &uvicorn).await?;
        say(&format!(
            "  ours {} ms, one FastAPI agent {} ms",
            figure(ours_ms),
            figure(peer_ms)
        ));
        rounds.push((ours_ms, peer_ms));
        processor.push(cpu_ms);
    }
    let row = Row::beside("up", "ms", "one FastAPI agent, no mesh", &rounds);
    Ok(row
        .with_goal(Goal::AtMost(1_500.0))
        .with_note(format!(
            "first start, filters compiled: {} ms",
            figure(first.0)
        ))
        .with_note(format!(
            "processor ms until then: {}",
            figure(crate::median(&processor))
        )))
}

/// One start, in milliseconds to the first answered task, and the processor's milliseconds until then.
async fn start(bench: &Bench, home: &Path) -> Result<(f64, f64)> {
    let (gateway, orchestrator) = (free_address()?, free_address()?);
    let file = home.join("mesh.yaml");
    let agents = [
        "hardware-optimizer",
        "resource-arbitrator",
        "data-processor",
        "general-agent",
    ];
    let agents = agents.map(|agent| format!("  - {{id: {agent}, run: {{builtin: {agent}}}}}\n"));
    fs::write(
        &file,
        format!(
            "version: 1\nmesh: bench\n\
             gateway:\n  listen: {gateway}\n  auth: {{development: true}}\n  \
               filters: {{rate_limit: {{limits: [{{name: second, quota: 100000, window_s: 1, by: [consumer]}}]}}, \
               task_admission: {{priority: {{otherwise: 10}}}}}}\n\
             orchestrator:\n  listen: {orchestrator}\n  planner: {{general_agent: general-agent, rules: {{first: [data-processor]}}}}\n\
             agents:\n{}",
            agents.concat()
        ),
    )?;
    let token = said(ours(&bench.binary("mesh")).arg("token").arg(&file))?;
    let body = json!({"task_type": "first", "payload": {"csv": "n\n1\n2\n"}});
    let call = Call::post(gateway, "/ai/orchestrate", &body, r#""status":"completed""#)
        .with_header("authorization", &format!("Bearer {}", token.trim()))?
        .with_header("prefer", "wait=10")?;
    let mut command = ours(&bench.binary("mesh"));
    command.arg("up").arg(&file);
    command
        .arg("--filters")
        .arg(bench.root.join("target/filters"));
    let begun = Instant::now();
    let mut mesh = Process::start("up", home, command)?;
    answered(&mut mesh, gateway, &call).await?;
    let took = begun.elapsed().as_secs_f64() * 1_000.0;
    let cpu_ms = mesh.cpu_s()? * 1_000.0;
    mesh.leave(LIMIT).await?;
    Ok((took, cpu_ms))
}

async fn peer(bench: &Bench, uvicorn: &Path) -> Result<f64> {
    let address = free_address()?;
    let body = json!({"task_id": "t", "payload": {}});
    let call = Call::post(address, "/process", &body, r#""status":"completed""#);
    let mut command = Command::new(uvicorn);
    command
        .args(["fastapi_agent:app", "--host", "127.0.0.1"])
        .args(["--port", &address.port().to_string()])
        .args(["--workers", "1", "--log-level", "warning", "--app-dir"])
        .arg(bench.root.join("benches/peers"));
    let begun = Instant::now();
    let mut process = Process::start("fastapi-agent", bench.scratch.path(), command)?;
    answered(&mut process, address, &call).await?;
    Ok(begun.elapsed().as_secs_f64() * 1_000.0)
}

/// Asks until the answer is right.
async fn answered(process: &mut Process, address: SocketAddr, call: &Call) -> Result<()> {
    let until = Instant::now() + LIMIT;
    loop {
        let asked = async { Line::open(address).await?.call(call).await };
        let Err(error) = asked.await else {
            return Ok(());
        };
        process.alive()?;
        if Instant::now() > until {
            return Err(error).with_context(|| process.log_end());
        }
        tokio::time::sleep(AGAIN).await;
    }
}
