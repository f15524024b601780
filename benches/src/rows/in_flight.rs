//! What a run costs the orchestrator while it is in flight.

use super::{Bench, say};
use crate::load::{Call, times};
use crate::mesh::Sketch;
use crate::row::{Row, figure};
use crate::servers::{RabbitMq, Redis};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "Resident memory of the orchestrator with 10,000 runs in flight, less what it had before the first, for each of them. RabbitMQ and Redis; tasks of two steps with a payload \
    of 1 KB; agents that hold the 1,000 steps that each is given and never answer, so that the others wait in their queues.";

const RUNS: u32 = 10_000;
const CONNECTIONS: usize = 32;
/// Until what the last ones left behind is freed.
const REST: Duration = Duration::from_secs(2);

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let scratch = bench.scratch.path();
    let broker = RabbitMq::start(scratch).await?;
    let redis = Redis::start(scratch).await?;
    let sketch = Sketch {
        agents: vec![("hardware-optimizer", 0), ("resource-arbitrator", 0)],
        hold: true,
        concurrency: Some(1000),
        rabbitmq: Some(broker.url()),
        redis: Some(redis.url()),
        ..Sketch::default()
    };
    let laid = sketch.lay(bench, "in-flight").await?;
    let body = json!({"task_type": "system_optimization", "payload": {"text": "x".repeat(1024)}});
    let call = Call::post(laid.orchestrator, "/orchestrate", &body, r#""task_id""#);
    let (mut each, mut whole, mut per_s) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        broker.forget(&laid.queues()?).await?;
        redis.clear().await?;
        let orchestrator = laid.orchestrator(bench).await?;
        let _workers = laid.workers(bench)?;
        let before = orchestrator.resident_mib()?;
        let begun = Instant::now();
        times(&call, CONNECTIONS, usize::try_from(RUNS)?).await?;
        per_s.push(f64::from(RUNS) / begun.elapsed().as_secs_f64());
        tokio::time::sleep(REST).await;
        let after = orchestrator.resident_mib()?;
        let mut store = redis.connect().await?;
        let unfinished: u32 = redis::cmd("ZCARD")
            .arg("tasks:unfinished")
            .query_async(&mut store)
            .await?;
        ensure!(
            unfinished == RUNS,
            "{unfinished} of {RUNS} runs are in flight"
        );
        let kib = (after - before) * 1024.0 / f64::from(RUNS);
        say(&format!(
            "  {} KiB a run, {} MiB in all",
            figure(kib),
            figure(after)
        ));
        each.push(kib);
        whole.push(after);
    }
    Ok(Row::alone("in-flight", "KiB", &each)
        .with_note(format!(
            "MiB of the whole orchestrator: {}",
            figure(crate::median(&whole))
        ))
        .with_note(format!(
            "submitted at {} tasks/s, both steps stored and published",
            figure(crate::median(&per_s))
        )))
}
