//! A wide and deep plan: what the mesh adds to the work itself.

use super::{Bench, say};
use crate::load::{Call, Line, until_right};
use crate::mesh::{Laid, Sketch};
use crate::process::{Process, free_port};
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "100 steps in ten layers of ten, each step needing two of the layer before, planned by a double of Ollama and taken in turn by two agents that \
    need 20 ms a step. From the POST (planning included) to `completed`, against the critical path of ten steps: 200 ms. Backends in memory, everything in one process.";
/// What the row says.
pub const ABOUT_BROKER: &str = "The same on RabbitMQ and Redis, each part in its own process: every layer waits for its steps and results to be on disk.";

/// What the row says.
pub const ABOUT_1000: &str = "The same with 1,000 steps in 50 layers of 20, against the critical path of one second. `max_steps` and `max_width` are raised for it.";
/// What the row says.
pub const ABOUT_1000_BROKER: &str = "The same on RabbitMQ and Redis, each part in its own process.";

const STEP_MS: u32 = 20;

/// A plan, and how often it is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its row with backends in memory.
    pub memory: &'static str,
    /// Its row on RabbitMQ and Redis.
    pub broker: &'static str,
    depth: u32,
    width: u32,
    /// Tasks per round, one after another.
    tasks: usize,
}

/// 100 steps.
pub const HUNDRED: Shape = Shape {
    memory: "dag-100",
    broker: "dag-100-broker",
    depth: 10,
    width: 10,
    tasks: 5,
};
/// 1,000 steps.
pub const THOUSAND: Shape = Shape {
    memory: "dag-1000",
    broker: "dag-1000-broker",
    depth: 50,
    width: 20,
    tasks: 2,
};

impl Shape {
    fn critical_path_ms(self) -> f64 {
        f64::from(self.depth * STEP_MS)
    }
}

struct Side {
    name: &'static str,
    shape: Shape,
    call: Call,
    _laid: Laid,
    _processes: Vec<Process>,
    rounds: Vec<f64>,
}

/// Measures the rows, in turns.
pub async fn measure(bench: &Bench, shape: Shape, memory: bool, broker: bool) -> Result<Vec<Row>> {
    let scratch = bench.scratch.path();
    let port = free_port()?;
    let arguments = [
        ("--port", port.to_string()),
        ("--agents", "even-worker,odd-worker".to_owned()),
        ("--depth", shape.depth.to_string()),
        ("--width", shape.width.to_string()),
    ];
    let arguments = arguments.iter().flat_map(|(name, value)| [*name, value]);
    let mut model = Process::part("model", scratch, ["model"].into_iter().chain(arguments))?;
    let address = ([127, 0, 0, 1], port).into();
    model.listening(address, Duration::from_secs(10)).await?;
    let sketch = Sketch {
        agents: vec![
            ("even-worker", STEP_MS.into()),
            ("odd-worker", STEP_MS.into()),
        ],
        bounds: Some((1000, 20)),
        ollama: Some(format!("http://127.0.0.1:{port}")),
        ..Sketch::default()
    };
    let mut sides = Vec::new();
    let servers = if broker {
        let servers = (
            RabbitMq::start(scratch).await?,
            Redis::start(scratch).await?,
        );
        let durable = Sketch {
            rabbitmq: Some(servers.0.url()),
            redis: Some(servers.1.url()),
            consul: true,
            ..sketch.clone()
        };
        let laid = durable.lay(bench, "broker").await?;
        let processes = laid.processes(bench).await?;
        sides.push(Side::new(bench, (shape.broker, shape), laid, processes).await?);
        Some(servers)
    } else {
        None
    };
    if memory {
        let laid = sketch.lay(bench, "memory").await?;
        let processes = laid.one_process(bench).await?;
        sides.insert(
            0,
            Side::new(bench, (shape.memory, shape), laid, processes).await?,
        );
    }
    for _ in 0..bench.rounds {
        for side in &mut sides {
            side.round().await?;
        }
    }
    drop(servers);
    Ok(sides.iter().map(Side::row).collect())
}

impl Side {
    async fn new(
        bench: &Bench,
        (name, shape): (&'static str, Shape),
        laid: Laid,
        processes: Vec<Process>,
    ) -> Result<Self> {
        let call = Call::post(
            laid.gateway,
            "/ai/orchestrate",
            &json!({"task_type": "work", "payload": {}}),
            r#""status":"completed""#,
        )
        .with_header("authorization", &laid.bearer(bench)?)?
        .with_header("prefer", "wait=30")?;
        let answer = until_right(&call, Duration::from_secs(30)).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let plan = answer.get("plan").context("the answer has no plan")?;
        let steps = plan
            .get("execution_plan")
            .and_then(Value::as_array)
            .map_or(0, |steps| u32::try_from(steps.len()).unwrap_or(u32::MAX));
        ensure!(
            plan.get("source") == Some(&json!("ollama")) && steps == shape.depth * shape.width,
            "the model's plan was not taken: {plan}"
        );
        Ok(Self {
            name,
            shape,
            call,
            _laid: laid,
            _processes: processes,
            rounds: Vec::new(),
        })
    }

    async fn round(&mut self) -> Result<()> {
        let mut line = Line::open(self.call.address).await?;
        let mut millis = Vec::new();
        for _ in 0..self.shape.tasks {
            let sent = Instant::now();
            line.call(&self.call).await?;
            millis.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        let middle = crate::median(&millis);
        say(&format!("  {}: {} ms", self.name, figure(middle)));
        self.rounds.push(middle);
        Ok(())
    }

    fn row(&self) -> Row {
        let critical_path = self.shape.critical_path_ms();
        let rounds: Vec<_> = self.rounds.iter().map(|ms| (*ms, critical_path)).collect();
        Row::beside(self.name, "ms", "critical path", &rounds).with_goal(Goal::RatioAtMost(1.1))
    }
}
