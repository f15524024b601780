//! The step lane against a bare loop: what our code costs beside broker, HTTP and agent.

use super::{Bench, say};
use crate::mesh;
use crate::parts::BareLoop;
use crate::process::{Process, free_address, free_port};
use crate::row::{Goal, Row, figure};
use crate::servers::RabbitMq;
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use mesh_bus::{QueueKind, Topology};
use mesh_protocol::AgentId;
use mesh_protocol::message::{HEADER_IDEMPOTENCY_KEY, StepTask};
use mesh_protocol::names::{EXCHANGE_TASKS, ORCHESTRATOR};
use serde_json::json;
use std::time::{Duration, Instant};

/// What the row says.
pub const ABOUT: &str = "A queue of 30,000 steps of 1 KB is drained through the sidecar to an agent on loopback that answers at once, \
    and the results are counted in the orchestrator's queue. The peer is a loop of lapin and hyper alone (`benches/src/parts/bare.rs`): \
    same broker, quorum queues, prefetch 64, confirms, persistent and mandatory results under the task and the idempotency key, acknowledged after the confirm.";

const STEPS: u32 = 30_000;
/// Also the sidecar's concurrency; enough to keep the broker busy, below where its queue in memory counts.
const PREFETCH: u16 = 64;
const LIMIT: Duration = Duration::from_secs(60);

struct Lane {
    broker: RabbitMq,
    agent: AgentId,
    agent_url: String,
    channel: Channel,
    results: String,
    _connection: lapin::Connection,
    _agent: Process,
}

/// What one drain cost.
struct Drained {
    steps_per_s: f64,
    cpu_ms_per_1000: f64,
    broker_ms_per_1000: f64,
    resident_mib: f64,
}

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let lane = Lane::lay(bench).await?;
    let mut rounds = Vec::new();
    let (mut cpu, mut broker, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // Who begins changes, so that neither always finds the broker warmer.
        let (ours, bare) = if round % 2 == 0 {
            let ours = lane.drain(lane.sidecar(bench)?).await?;
            (ours, lane.drain(lane.bare(bench)?).await?)
        } else {
            let bare = lane.drain(lane.bare(bench)?).await?;
            (lane.drain(lane.sidecar(bench)?).await?, bare)
        };
        say(&format!(
            "  sidecar {} steps/s, bare loop {} steps/s",
            figure(ours.steps_per_s),
            figure(bare.steps_per_s)
        ));
        rounds.push((ours.steps_per_s, bare.steps_per_s));
        cpu.push((ours.cpu_ms_per_1000, bare.cpu_ms_per_1000));
        broker.push((ours.broker_ms_per_1000, bare.broker_ms_per_1000));
        resident.push(ours.resident_mib);
    }
    let middles = |pairs: Vec<(f64, f64)>| {
        let (ours, bare): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        (figure(crate::median(&ours)), figure(crate::median(&bare)))
    };
    let (cpu, broker) = (middles(cpu), middles(broker));
    Ok(
        Row::beside("step-lane", "steps/s", "bare lapin+hyper loop", &rounds)
            .with_goal(Goal::RatioAtLeast(0.9))
            .with_note(format!(
                "processor ms per 1000 steps: sidecar {}, bare loop {}; the broker's beside them {}, {}",
                cpu.0, cpu.1, broker.0, broker.1
            ))
            .with_note(format!(
                "resident MiB of the sidecar at the end of a drain: {}",
                figure(crate::median(&resident))
            )),
    )
}

impl Lane {
    async fn lay(bench: &Bench) -> Result<Self> {
        let scratch = bench.scratch.path();
        let broker = RabbitMq::start(scratch).await?;
        let agent: AgentId = "lane".parse()?;
        mesh::declare(
            &broker.url(),
            &Topology::exchanges()
                .with_agent(&agent, QueueKind::Quorum)
                .with_orchestrator(QueueKind::Quorum),
        )
        .await?;
        let port = free_port()?;
        let mut process = Process::part("agent", scratch, ["agent", "--port", &port.to_string()])?;
        process
            .listening(([127, 0, 0, 1], port).into(), LIMIT)
            .await?;
        let connection = broker.connect().await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            broker,
            agent,
            agent_url: format!("http://127.0.0.1:{port}"),
            channel,
            results: format!("agent.{ORCHESTRATOR}.coordination"),
            _connection: connection,
            _agent: process,
        })
    }

    fn sidecar(&self, bench: &Bench) -> Result<impl FnOnce() -> Result<Process> + use<>> {
        let config = json!({
            "service": self.agent,
            "app": {"url": self.agent_url},
            "admin_listen": free_address()?,
            "worker": {
                "bus": {"backend": "rabbitmq", "url": self.broker.url()},
                "concurrency": PREFETCH,
            },
        });
        let (binary, scratch) = (bench.binary("sidecar"), bench.scratch.path().to_owned());
        Ok(move || mesh::sidecar(&binary, &scratch, "sidecar", &config))
    }

    fn bare(&self, bench: &Bench) -> Result<impl FnOnce() -> Result<Process> + use<>> {
        let bare = BareLoop {
            broker: self.broker.url(),
            queue: self.agent.task_queue(),
            agent: format!("{}/process", self.agent_url).parse()?,
            prefetch: PREFETCH,
        };
        let scratch = bench.scratch.path().to_owned();
        Ok(move || {
            Process::part(
                "bare-loop",
                &scratch,
                [
                    "bare-loop",
                    "--broker",
                    &bare.broker,
                    "--queue",
                    &bare.queue,
                    "--agent",
                    &bare.agent.to_string(),
                    "--prefetch",
                    &bare.prefetch.to_string(),
                ],
            )
        })
    }

    async fn drain(&self, start: impl FnOnce() -> Result<Process>) -> Result<Drained> {
        for queue in [self.agent.task_queue(), self.results.clone()] {
            self.channel
                .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
                .await?;
        }
        self.preload().await?;
        let mut process = start()?;
        let until = Instant::now() + LIMIT;
        // From the first sample past a twentieth, so that starting and connecting do not count, to
        // the one that sees the last result. Asking the broker costs both sides the same.
        let mut first = None;
        let (begin, cpu_begin, broker_begin, done_at_begin) = loop {
            let done = self.depth(&self.results).await?;
            let now = Instant::now();
            if done > STEPS / 20 && first.is_none() {
                first = Some((now, process.cpu_s()?, self.broker.cpu_s()?, done));
            }
            if done >= STEPS {
                break first.context("the queue was drained before it was looked at")?;
            }
            process.alive()?;
            ensure!(now < until, "{done} of {STEPS} results after {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_s = process.cpu_s()? - cpu_begin;
        let broker_s = self.broker.cpu_s()? - broker_begin;
        let steps = f64::from(STEPS - done_at_begin);
        let resident_mib = process.resident_mib()?;
        let done = self.depth(&self.results).await?;
        ensure!(done == STEPS, "{done} results for {STEPS} steps");
        Ok(Drained {
            steps_per_s: steps / seconds,
            cpu_ms_per_1000: cpu_s / steps * 1e6,
            broker_ms_per_1000: broker_s / steps * 1e6,
            resident_mib,
        })
    }

    /// Messages that are ready in `queue`.
    async fn depth(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await?;
        Ok(found.message_count())
    }

    async fn preload(&self) -> Result<()> {
        let key = self.agent.execute_key();
        let publish = |number: u32| {
            let key = &key;
            async move {
                let (body, properties) = self.message(number)?;
                let options = BasicPublishOptions::default();
                let confirm = self
                    .channel
                    .basic_publish(
                        EXCHANGE_TASKS.into(),
                        key.as_str().into(),
                        options,
                        &body,
                        properties,
                    )
                    .await?
                    .await?;
                ensure!(confirm.is_ack(), "the broker refused a step");
                Ok(())
            }
        };
        // As many unconfirmed as keep the broker's log busy.
        let mut published = futures_util::stream::iter((0..STEPS).map(publish)).buffered(500);
        while let Some(done) = published.next().await {
            done?;
        }
        Ok(())
    }

    /// A step of 1 KB as the orchestrator sends it.
    fn message(&self, number: u32) -> Result<(Vec<u8>, BasicProperties)> {
        let task = format!("bench-{number}");
        let payload = json!({"text": "x".repeat(700), "rows": [1, 2, 3], "unit": "MiB"});
        let step = StepTask {
            task_id: task.parse()?,
            step_id: "s1".parse()?,
            agent: self.agent.clone(),
            action: "Process bench".to_owned(),
            role: "Process bench".to_owned(),
            payload: serde_json::from_value(payload)?,
            incoming_data: serde_json::Map::new(),
            timestamp: crate::machine::now(),
            deadline_ms: None,
            submitted_ms: None,
            assertion: None,
        };
        let mut headers = FieldTable::default();
        headers.insert(
            HEADER_IDEMPOTENCY_KEY.into(),
            lapin::types::AMQPValue::LongString(format!("{task}:s1").into()),
        );
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_correlation_id(task.as_str().into())
            .with_message_id(format!("{task}:s1").as_str().into())
            .with_headers(headers);
        Ok((serde_json::to_vec(&step)?, properties))
    }
}
