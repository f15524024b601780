//! How long runs stand still when their orchestrator is killed.

use super::{Bench, say};
use crate::load::{Call, Line, times, until_right};
use crate::mesh::Sketch;
use crate::process::{Process, free_address, free_port};
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "From kill -9 of an orchestrator with 20 runs in flight (steps of 20 ms, 100 in a row) to the first change that another replica makes in the store of the last of these runs: \
    the longest of all rounds, each killed at another moment of the lease. Every run is completed by the other replica afterwards, or the row fails. RabbitMQ, Redis.";

const RUNS: usize = 20;
const DEPTH: u64 = 100;
const STEP_MS: u64 = 20;
/// How far the runs are at the earliest when their orchestrator is killed; over the rounds up to a renewal of its
/// lease later.
const BEGUN: Duration = Duration::from_millis(500);
const RENEWAL: Duration = Duration::from_millis(1000);
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the store.
const LOOK: Duration = Duration::from_millis(5);

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let scratch = bench.scratch.path();
    let broker = RabbitMq::start(scratch).await?;
    let redis = Redis::start(scratch).await?;
    let port = free_port()?;
    let (port_text, depth) = (port.to_string(), DEPTH.to_string());
    let shape = ["--agents", "worker", "--depth", &depth, "--width", "1"];
    let arguments = ["model", "--port", &port_text].into_iter().chain(shape);
    let mut model = Process::part("model", scratch, arguments)?;
    model
        .listening(([127, 0, 0, 1], port).into(), LIMIT)
        .await?;
    let sketch = Sketch {
        agents: vec![("worker", STEP_MS)],
        concurrency: Some(100),
        rabbitmq: Some(broker.url()),
        redis: Some(redis.url()),
        ollama: Some(format!("http://127.0.0.1:{port}")),
        ..Sketch::default()
    };
    let laid = sketch.lay(bench, "takeover").await?;
    let _workers = laid.workers(bench)?;
    let other = free_address()?;
    let body = json!({"task_type": "work", "payload": {}});
    let call = Call::post(laid.orchestrator, "/orchestrate", &body, r#""task_id""#);
    let mut store = redis.connect().await?;
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let killed = laid.orchestrator(bench).await?;
        let _heir = laid.replica(bench, "heir", other).await?;
        let answers = times(&call, RUNS, RUNS).await?;
        let runs = answers.iter().map(|answer| {
            let answer: Value = serde_json::from_slice(answer)?;
            let id = answer.get("task_id").and_then(Value::as_str);
            Ok(id.context("no task id")?.to_owned())
        });
        let runs: Vec<String> = runs.collect::<Result<_>>()?;
        let part = u32::try_from(round)?;
        let later = RENEWAL * part / u32::try_from(bench.rounds)?;
        tokio::time::sleep(BEGUN + later).await;
        let begin = Instant::now();
        drop(killed);
        // Nobody but the other writes from here on.
        let before = versions(&mut store, &runs).await?;
        ensure!(
            before.iter().all(Option::is_some),
            "a run had ended before its orchestrator was killed"
        );
        let mut changed = vec![None; runs.len()];
        while changed.iter().any(Option::is_none) {
            ensure!(begin.elapsed() < LIMIT, "a run is not taken over");
            tokio::time::sleep(LOOK).await;
            let now = versions(&mut store, &runs).await?;
            let seen = begin.elapsed().as_secs_f64();
            for ((changed, before), now) in changed.iter_mut().zip(&before).zip(&now) {
                if changed.is_none() && now != before {
                    *changed = Some(seen);
                }
            }
        }
        let changed: Vec<f64> = changed.into_iter().flatten().collect();
        let first = changed.iter().copied().fold(f64::INFINITY, f64::min);
        let last = changed.iter().copied().fold(0.0, f64::max);
        say(&format!(
            "  first {} s, last {} s",
            figure(first),
            figure(last)
        ));
        firsts.push(first);
        lasts.push(last);
        let mut line = Line::open(other).await?;
        for run in &runs {
            let ended = Call {
                expect: r#""status":"completed""#,
                ..Call::get(other, &format!("/task/{run}"))
            };
            if line.call(&ended).await.is_err() {
                until_right(&ended, LIMIT).await?;
                line = Line::open(other).await?;
            }
        }
    }
    let list = |rounds: &[f64]| {
        let all: Vec<String> = rounds.iter().map(|seconds| figure(*seconds)).collect();
        all.join(", ")
    };
    let longest = lasts.iter().copied().fold(0.0, f64::max);
    let mut row = Row::alone("takeover", "s", &[longest]).with_goal(Goal::AtMost(10.0));
    row.notes = vec![
        format!("rounds, the last of {RUNS} runs: {}", list(&lasts)),
        format!("rounds, the first of them: {}", list(&firsts)),
    ];
    Ok(row)
}

/// The version of each run, as long as it goes on.
async fn versions(store: &mut MultiplexedConnection, runs: &[String]) -> Result<Vec<Option<u64>>> {
    let mut pipeline = redis::pipe();
    for run in runs {
        let key = format!("task:{run}");
        pipeline.hmget(key, &["version", "finished_at"]);
    }
    let rows: Vec<(Option<u64>, Option<String>)> = pipeline.query_async(store).await?;
    Ok(rows
        .into_iter()
        .map(|(version, ended)| version.filter(|_| ended.is_none()))
        .collect())
}
