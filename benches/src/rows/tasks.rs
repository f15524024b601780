//! Two-step tasks across the whole mesh: how long one takes, and how many go through.

use super::{Bench, say};
use crate::load::{Call, Reached, closed_loop, open_loop, until_right};
use crate::mesh::{Laid, Sketch};
use crate::process::Process;
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use crate::{median, quantile};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

/// What the row says.
pub const ABOUT_P50_MEMORY: &str = "From POST to `completed` (`Prefer: wait`), through the gateway with a token, for a `system_optimization` task: two steps by the \
    task-type table, agents that answer at once. 50 tasks a second arrive whether or not earlier ones are done (open loop). Backends in memory, everything in one \
    process (`mesh up`), agents beside it.";
/// What the row says.
pub const ABOUT_P50_BROKER: &str = "The same on RabbitMQ (quorum queues, confirms) and Redis, with gateway, orchestrator and both sidecars in processes of their own.";
/// What the row says.
pub const ABOUT_SATURATION: &str = "The same tasks, at 64 connections that each send the next task when their last one is completed (closed loop).";

const PER_S: u32 = 50;
const STEADY: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const FULL: Duration = Duration::from_secs(5);

struct Side {
    name: &'static str,
    goal_ms: f64,
    call: Call,
    processes: Vec<Process>,
    _laid: Laid,
    steady: Vec<Vec<f64>>,
    full: Vec<(Reached, f64)>,
}

/// Measures the steady rows, the saturation rows, or both, on both backends in turns.
pub async fn measure(bench: &Bench, steady: bool, full: bool) -> Result<Vec<Row>> {
    let broker = RabbitMq::start(bench.scratch.path()).await?;
    let redis = Redis::start(bench.scratch.path()).await?;
    let memory = Sketch {
        agents: vec![("hardware-optimizer", 0), ("resource-arbitrator", 0)],
        ..Sketch::default()
    };
    let durable = Sketch {
        rabbitmq: Some(broker.url()),
        redis: Some(redis.url()),
        consul: true,
        ..memory.clone()
    };
    let memory = memory.lay(bench, "memory").await?;
    let durable = durable.lay(bench, "broker").await?;
    let in_one = memory.one_process(bench).await?;
    let apart = durable.processes(bench).await?;
    let mut sides = [
        Side::new(bench, "memory", 5.0, memory, in_one).await?,
        Side::new(bench, "broker", 15.0, durable, apart).await?,
    ];
    for _ in 0..bench.rounds {
        for side in &mut sides {
            side.round(steady, full).await?;
        }
    }
    let mut rows = Vec::new();
    for side in &sides {
        if steady {
            rows.push(side.steady_row());
        }
    }
    for side in &sides {
        if full {
            rows.push(side.full_row());
        }
    }
    Ok(rows)
}

impl Side {
    async fn new(
        bench: &Bench,
        name: &'static str,
        goal_ms: f64,
        laid: Laid,
        processes: Vec<Process>,
    ) -> Result<Self> {
        let body = json!({"task_type": "system_optimization", "payload": {"target": "latency"}});
        let call = Call::post(
            laid.gateway,
            "/ai/orchestrate",
            &body,
            r#""status":"completed""#,
        )
        .with_header("authorization", &laid.bearer(bench)?)?
        .with_header("prefer", "wait=30")?;
        until_right(&call, Duration::from_secs(30)).await?;
        Ok(Self {
            name,
            goal_ms,
            call,
            processes,
            _laid: laid,
            steady: Vec::new(),
            full: Vec::new(),
        })
    }

    async fn round(&mut self, steady: bool, full: bool) -> Result<()> {
        if steady {
            // So that connections and caches are as they are in a mesh that has been up for a while.
            open_loop(&self.call, PER_S, WARM_UP).await?;
            let millis = open_loop(&self.call, PER_S, STEADY).await?;
            say(&format!(
                "  {}: p50 {} ms, p99 {} ms at {PER_S} tasks/s",
                self.name,
                figure(quantile(&millis, 0.5)),
                figure(quantile(&millis, 0.99))
            ));
            self.steady.push(millis);
        }
        if full {
            let before = self.cpu_s()?;
            let reached = closed_loop(&self.call, CONNECTIONS, WARM_UP, FULL).await?;
            let cpu_share = (self.cpu_s()? - before) / (WARM_UP + FULL).as_secs_f64();
            say(&format!(
                "  {}: {} tasks/s",
                self.name,
                figure(reached.per_s)
            ));
            self.full.push((reached, cpu_share));
        }
        Ok(())
    }

    fn cpu_s(&self) -> Result<f64> {
        self.processes.iter().map(Process::cpu_s).sum()
    }

    fn steady_row(&self) -> Row {
        let at = |share: f64| -> Vec<f64> {
            self.steady
                .iter()
                .map(|round| quantile(round, share))
                .collect()
        };
        let name = format!("task-{}-p50", self.name);
        Row::alone(&name, "ms", &at(0.5))
            .with_goal(Goal::AtMost(self.goal_ms))
            .with_note(format!(
                "p90 {} ms, p99 {} ms, longest {} ms (medians of the rounds)",
                figure(median(&at(0.9))),
                figure(median(&at(0.99))),
                figure(median(&at(1.0)))
            ))
    }

    fn full_row(&self) -> Row {
        let per_s: Vec<f64> = self.full.iter().map(|(reached, _)| reached.per_s).collect();
        let tail = |share: f64| {
            let rounds = self.full.iter();
            median(
                &rounds
                    .map(|(r, _)| quantile(&r.millis, share))
                    .collect::<Vec<_>>(),
            )
        };
        let cpu: Vec<f64> = self.full.iter().map(|(_, share)| *share).collect();
        Row::alone(&format!("task-{}-saturation", self.name), "tasks/s", &per_s).with_note(
            format!(
                "p50 {} ms, p99 {} ms; our processes took {} of the cores, the rest is servers, agents and load",
                figure(tail(0.5)),
                figure(tail(0.99)),
                figure(median(&cpu))
            ),
        )
    }
}
