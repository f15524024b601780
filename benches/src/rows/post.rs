//! `POST /orchestrate` against the plan's own shape.

use super::{Bench, say};
use crate::load::{Call, Reached, closed_loop, until_right};
use crate::mesh::{Laid, Sketch};
use crate::process::{Process, free_address, free_port};
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use crate::{median, quantile};
use anyhow::{Result, ensure};
use lapin::options::QueuePurgeOptions;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// What the row says.
pub const ABOUT: &str = "Requests per second at 32 keep-alive connections, each answered with the task's id and plan once the task is stored and its first steps are \
    with the broker. The peer is a minimal writing of the plan's orchestrator (`benches/peers/plan_orchestrator.py`): FastAPI in one uvicorn worker, pika publishing \
    without confirms, one Redis write per step, a new httpx client per request. Both plan the same two steps after asking a model whose port is closed; no sidecar \
    takes the steps. Ours stores the task, publishes with confirms to quorum queues and puts every change of state on `ai.events`.";

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(5);
const AGENTS: [(&str, u64); 2] = [("hardware-optimizer", 0), ("resource-arbitrator", 0)];

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let uvicorn = bench.root.join("target/bench-venv/bin/uvicorn");
    ensure!(
        uvicorn.exists(),
        "{} is not there; benches/setup.sh makes it",
        uvicorn.display()
    );
    let scratch = bench.scratch.path();
    let broker = RabbitMq::start(scratch).await?;
    let redis = Redis::start(scratch).await?;
    let model = format!("http://127.0.0.1:{}", free_port()?);
    let sketch = Sketch {
        agents: AGENTS.to_vec(),
        rabbitmq: Some(broker.url()),
        redis: Some(redis.url()),
        ollama: Some(model.clone()),
        ..Sketch::default()
    };
    let laid = sketch.lay(bench, "post").await?;
    // Its queues and bindings are there before the peer publishes.
    drop(laid.orchestrator(bench).await?);

    let body = json!({"task_type": "system_optimization", "payload": {"target": "latency"}, "priority": 5});
    let mut rounds = Vec::new();
    let (mut ours_ms, mut peer_ms) = (Vec::new(), Vec::new());
    let (mut ours_cpu, mut peer_cpu) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        clear(&laid, &broker, &redis).await?;
        let orchestrator = laid.orchestrator(bench).await?;
        let call = Call::post(laid.orchestrator, "/orchestrate", &body, r#""task_id""#);
        let ours = side(&call, &orchestrator).await?;
        drop(orchestrator);

        clear(&laid, &broker, &redis).await?;
        let address = free_address()?;
        let mut command = Command::new(&uvicorn);
        command
            .args(["plan_orchestrator:app", "--host", "127.0.0.1"])
            .args(["--port", &address.port().to_string()])
            .args(["--workers", "1", "--log-level", "warning", "--app-dir"])
            .arg(bench.root.join("benches/peers"))
            .env("RABBITMQ_PORT", broker.port.to_string())
            .env("REDIS_PORT", redis.port.to_string())
            .env("OLLAMA_URL", &model)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = Process::start("plan-orchestrator", scratch, command)?;
        process.listening(address, Duration::from_secs(30)).await?;
        let call = Call::post(address, "/orchestrate", &body, r#""task_id""#);
        let peer = side(&call, &process).await?;
        say(&format!(
            "  ours {} req/s, the plan's shape {} req/s",
            figure(ours.0.per_s),
            figure(peer.0.per_s)
        ));
        rounds.push((ours.0.per_s, peer.0.per_s));
        ours_ms.push(quantile(&ours.0.millis, 0.5));
        peer_ms.push(quantile(&peer.0.millis, 0.5));
        ours_cpu.push(ours.1);
        peer_cpu.push(peer.1);
    }
    Ok(Row::beside(
        "orchestrate-post",
        "req/s",
        "FastAPI, pika, one worker",
        &rounds,
    )
    .with_goal(Goal::RatioAtLeast(50.0))
    .with_note(format!(
        "p50: ours {} ms, peer {} ms",
        figure(median(&ours_ms)),
        figure(median(&peer_ms))
    ))
    .with_note(format!(
        "processor ms per request: ours {}, peer {}",
        figure(median(&ours_cpu)),
        figure(median(&peer_cpu))
    )))
}

/// What one side reached, and its processor time per request in milliseconds.
async fn side(call: &Call, process: &Process) -> Result<(Reached, f64)> {
    until_right(call, Duration::from_secs(30)).await?;
    let before = process.cpu_s()?;
    let reached = closed_loop(call, CONNECTIONS, WARM_UP, DURATION).await?;
    let cpu_s = process.cpu_s()? - before;
    let requests = reached.per_s * (WARM_UP + DURATION).as_secs_f64();
    Ok((reached, cpu_s * 1000.0 / requests))
}

/// Neither side finds what the other left: an orchestrator takes up the tasks it finds in its store.
async fn clear(laid: &Laid, broker: &RabbitMq, redis: &Redis) -> Result<()> {
    redis.clear().await?;
    let connection = broker.connect().await?;
    let channel = connection.create_channel().await?;
    for queue in laid.queues()? {
        channel
            .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
