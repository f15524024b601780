//! Plans of three steps through one orchestrator, against the same in Celery.

use super::{Bench, say};
use crate::load::{Call, closed_loop, until_right};
use crate::mesh::{Laid, Sketch};
use crate::process::{Process, free_port};
use crate::python::{CELERY_QUEUE, Http, Pool, Python};
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use crate::{median, quantile};
use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "Tasks of three steps, each needing the one before, through one orchestrator and one sidecar on RabbitMQ (quorum queues, confirms) and Redis, to an agent that \
    answers at once; from POST to `completed` (`Prefer: wait`), 64 connections that each send the next task when their last one is done. Each is planned by a double of Ollama. \
    The peer is Celery (`benches/peers/celery_peer.py`) with the same promises: quorum queue, `acks_late`, `reject_on_worker_lost`, confirms, results in Redis, a POST to the same agent \
    for each task (requests, connections kept). Its chains are submitted by a Python client straight to the broker as fast as that goes, and from the twentieth part on counted until the last is done; \
    without HTTP, without planning, and without anybody who waits for each, which is in Celery's favour. So is that no state of a chain is stored before its tasks are published.";
/// What the row says.
pub const ABOUT_CHORD: &str =
    "The same with two steps side by side and one that needs both, against Celery's chords.";

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(4);
/// Chains that Celery has done before anything counts.
const CELERY_WARM_UP: usize = 20;
/// Chains that count.
const CELERY_TASKS: usize = 500;
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at how many of Celery's chains are done.
const LOOK: Duration = Duration::from_millis(20);

/// A form of three steps.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its row.
    pub row: &'static str,
    celery: &'static str,
    peer: &'static str,
    model: &'static [&'static str],
}

/// One after the other.
pub const CHAIN: Shape = Shape {
    row: "chain-3",
    celery: "chain",
    peer: "Celery chains, prefork 2",
    model: &["--depth", "3", "--width", "1"],
};
/// Two side by side, and one that needs both.
pub const CHORD: Shape = Shape {
    row: "chain-chord",
    celery: "chord",
    peer: "Celery chords, prefork 2",
    model: &["--depth", "1", "--width", "2", "--join"],
};

/// What one side reached, and its processor milliseconds per task: of orchestrator and sidecar, or of the worker.
#[derive(Debug, Clone, Copy)]
struct Reached {
    per_s: f64,
    cpu_ms: f64,
    broker_ms: f64,
}

struct Side {
    shape: Shape,
    laid: Laid,
    call: Call,
    _model: Process,
    /// Ours and Celery's.
    rounds: Vec<[Reached; 2]>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
}

struct Ground {
    broker: RabbitMq,
    redis: Redis,
    counter: MultiplexedConnection,
}

/// Measures the rows of `shapes`, in turns.
pub async fn measure(bench: &Bench, shapes: &[Shape]) -> Result<Vec<Row>> {
    let scratch = bench.scratch.path();
    let broker = RabbitMq::start(scratch).await?;
    let redis = Redis::start(scratch).await?;
    let ground = Ground {
        counter: redis.connect().await?,
        broker,
        redis,
    };
    let mut sides = Vec::new();
    for shape in shapes {
        sides.push(Side::new(bench, &ground, *shape).await?);
    }
    for _ in 0..bench.rounds {
        for side in &mut sides {
            side.round(bench, &ground).await?;
        }
    }
    Ok(sides.iter().map(Side::row).collect())
}

impl Side {
    async fn new(bench: &Bench, ground: &Ground, shape: Shape) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let fixed = ["model", "--agents", "worker", "--port", &port_text];
        let arguments = fixed.into_iter().chain(shape.model.iter().copied());
        let name = format!("model-{}", shape.celery);
        let mut model = Process::part(&name, bench.scratch.path(), arguments)?;
        model
            .listening(([127, 0, 0, 1], port).into(), LIMIT)
            .await?;
        let sketch = Sketch {
            agents: vec![("worker", 0)],
            concurrency: Some(100),
            rabbitmq: Some(ground.broker.url()),
            redis: Some(ground.redis.url()),
            ollama: Some(format!("http://127.0.0.1:{port}")),
            ..Sketch::default()
        };
        let laid = sketch.lay(bench, shape.row).await?;
        let call = Call::post(
            laid.orchestrator,
            "/orchestrate",
            &json!({"task_type": "work", "payload": {"target": "latency"}}),
            r#""status":"completed""#,
        );
        Ok(Self {
            shape,
            call: call.with_header("prefer", "wait=30")?,
            laid,
            _model: model,
            rounds: Vec::new(),
            p50_ms: Vec::new(),
            p99_ms: Vec::new(),
        })
    }

    async fn round(&mut self, bench: &Bench, ground: &Ground) -> Result<()> {
        let ours = self.ours(bench, ground).await?;
        let celery = self.celery(bench, ground).await?;
        say(&format!(
            "  {}: ours {} tasks/s, {} {} tasks/s",
            self.shape.row,
            figure(ours.per_s),
            self.shape.peer,
            figure(celery.per_s)
        ));
        self.rounds.push([ours, celery]);
        Ok(())
    }

    /// Neither side finds what the other left: an orchestrator takes up the tasks it finds in its store.
    async fn clear(&self, ground: &Ground) -> Result<()> {
        let mut queues = self.laid.queues()?;
        queues.push(CELERY_QUEUE.to_owned());
        ground.broker.forget(&queues).await?;
        ground.redis.clear().await
    }

    async fn ours(&mut self, bench: &Bench, ground: &Ground) -> Result<Reached> {
        self.clear(ground).await?;
        let orchestrator = self.laid.orchestrator(bench).await?;
        let workers = self.laid.workers(bench)?;
        let answer = until_right(&self.call, LIMIT).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let steps = answer
            .pointer("/plan/execution_plan")
            .and_then(Value::as_array);
        ensure!(
            steps.is_some_and(|steps| steps.len() == 3),
            "the model's plan was not taken: {answer}"
        );
        let own = || -> Result<f64> {
            let workers: f64 = workers.iter().map(Process::cpu_s).sum::<Result<f64>>()?;
            Ok(orchestrator.cpu_s()? + workers)
        };
        let before = (own()?, ground.broker.cpu_s()?);
        let reached = closed_loop(&self.call, CONNECTIONS, WARM_UP, DURATION).await?;
        let tasks = reached.per_s * (WARM_UP + DURATION).as_secs_f64();
        self.p50_ms.push(quantile(&reached.millis, 0.5));
        self.p99_ms.push(quantile(&reached.millis, 0.99));
        Ok(Reached {
            per_s: reached.per_s,
            cpu_ms: (own()? - before.0) * 1000.0 / tasks,
            broker_ms: (ground.broker.cpu_s()? - before.1) * 1000.0 / tasks,
        })
    }

    async fn celery(&self, bench: &Bench, ground: &Ground) -> Result<Reached> {
        self.clear(ground).await?;
        let endpoint = self.laid.endpoints.first().context("there is no agent")?;
        let agent = format!("http://{endpoint}/process");
        let (broker, redis) = (&ground.broker, &ground.redis);
        let python = Python::new(&bench.root, bench.scratch.path(), broker, redis, &agent)?;
        let mut worker = python.celery(Pool::Prefork, Http::Requests)?;
        let shape = self.shape.celery;
        let warm_up = CELERY_WARM_UP.to_string();
        python.submitted(&[shape, &warm_up]).await?;
        let until = Instant::now() + LIMIT;
        while ground.done(CELERY_WARM_UP).await? < CELERY_WARM_UP {
            worker.alive()?;
            ensure!(Instant::now() < until, "Celery does not begin");
            tokio::time::sleep(LOOK).await;
        }
        ground.redis.clear().await?;
        let mut client = python.submits(&[shape, &CELERY_TASKS.to_string()])?;
        let until = Instant::now() + LIMIT;
        let mut first = None;
        let (begin, before, done_at_begin) = loop {
            let done = ground.done(CELERY_TASKS).await?;
            if done > CELERY_TASKS / 20 && first.is_none() {
                let spent = (worker.group_cpu_s()?, broker.cpu_s()?);
                first = Some((Instant::now(), spent, done));
            }
            if done >= CELERY_TASKS {
                break first.context("Celery was done before it was looked at")?;
            }
            worker.alive()?;
            client.ended_well()?;
            let of = CELERY_TASKS;
            ensure!(
                Instant::now() < until,
                "Celery: {done} of {of} after {LIMIT:?}"
            );
            tokio::time::sleep(LOOK).await;
        };
        let seconds = begin.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // hundreds
        let tasks = (CELERY_TASKS - done_at_begin) as f64;
        Ok(Reached {
            per_s: tasks / seconds,
            cpu_ms: (worker.group_cpu_s()? - before.0) * 1000.0 / tasks,
            broker_ms: (broker.cpu_s()? - before.1) * 1000.0 / tasks,
        })
    }

    fn row(&self) -> Row {
        let rounds: Vec<_> = self
            .rounds
            .iter()
            .map(|[o, c]| (o.per_s, c.per_s))
            .collect();
        let middle = |of: fn(&[Reached; 2]) -> f64| {
            figure(median(&self.rounds.iter().map(of).collect::<Vec<_>>()))
        };
        Row::beside(self.shape.row, "tasks/s", self.shape.peer, &rounds)
            .with_goal(Goal::RatioAtLeast(10.0))
            .with_note(format!(
                "processor ms per task: orchestrator and sidecar {}, Celery's worker {}; the broker's beside them {}, {}",
                middle(|[ours, _]| ours.cpu_ms),
                middle(|[_, celery]| celery.cpu_ms),
                middle(|[ours, _]| ours.broker_ms),
                middle(|[_, celery]| celery.broker_ms),
            ))
            .with_note(format!(
                "ours, from POST to completed: p50 {} ms, p99 {} ms",
                figure(median(&self.p50_ms)),
                figure(median(&self.p99_ms))
            ))
            .with_note(crate::machine::busy())
    }
}

impl Ground {
    /// How many of the first `count` plans of Celery are done: the last task of each has a result.
    async fn done(&self, count: usize) -> Result<usize> {
        let mut counter = self.counter.clone();
        let keys = (0..count).map(|number| format!("celery-task-meta-last-{number}"));
        let mut exists = redis::cmd("EXISTS");
        exists.arg(keys.collect::<Vec<_>>());
        Ok(exists.query_async(&mut counter).await?)
    }
}
