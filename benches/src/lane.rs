//! A queue of steps that somebody drains: our sidecar, a bare loop, the plan's shape, Celery.

use crate::mesh;
use crate::process::{Process, free_address, free_port};
use crate::python::{CELERY_QUEUE, Http, Pool, Python};
use crate::rows::Bench;
use crate::servers::{RabbitMq, Redis};
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use mesh_bus::{QueueKind, Topology};
use mesh_protocol::AgentId;
use mesh_protocol::message::{HEADER_IDEMPOTENCY_KEY, StepTask};
use mesh_protocol::names::{EXCHANGE_TASKS, ORCHESTRATOR};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// For one drain; the slowest takes a few seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at how far a drain is. Asking costs every side the same.
const LOOK: Duration = Duration::from_millis(10);

/// Who drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours.
    Sidecar,
    /// lapin and hyper alone ([`crate::parts::BareLoop`]).
    Bare,
    /// `peers/plan_lane.py`, with the broker's confirms or without.
    Plan {
        /// Whether results are confirmed.
        confirms: bool,
        /// Its HTTP client.
        http: Http,
    },
    /// `peers/celery_peer.py`.
    Celery(Pool, Http),
}

/// What is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Bytes of a message.
    pub bytes: usize,
    /// How many there are.
    pub steps: u32,
    /// Most that are in hand at the same time, where the side lets that be said.
    pub in_flight: u16,
}

/// What one drain cost.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Steps per second.
    pub steps_per_s: f64,
    /// The side's processor time.
    pub cpu_ms_per_1000: f64,
    /// The broker's beside it.
    pub broker_ms_per_1000: f64,
    /// How much of a core the agent took.
    pub agent_share: f64,
    /// Resident memory of the side's first process at the end, in MiB.
    pub resident_mib: f64,
}

/// The ground all sides are measured on.
pub struct Lane {
    broker: RabbitMq,
    redis: Redis,
    counter: MultiplexedConnection,
    id: AgentId,
    url: String,
    agent: Process,
    channel: Channel,
    results: String,
    binary: PathBuf,
    scratch: PathBuf,
    root: PathBuf,
    _connection: lapin::Connection,
}

impl Lane {
    /// Starts the servers and the agent, and declares the queues.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn lay(bench: &Bench) -> Result<Self> {
        let scratch = bench.scratch.path();
        let broker = RabbitMq::start(scratch).await?;
        let redis = Redis::start(scratch).await?;
        let id: AgentId = "lane".parse()?;
        mesh::declare(
            &broker.url(),
            &Topology::exchanges()
                .with_agent(&id, QueueKind::Quorum)
                .with_orchestrator(QueueKind::Quorum),
        )
        .await?;
        let port = free_port()?;
        let mut agent = Process::part("agent", scratch, ["agent", "--port", &port.to_string()])?;
        agent
            .listening(([127, 0, 0, 1], port).into(), LIMIT)
            .await?;
        let connection = broker.connect().await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            counter: redis.connect().await?,
            broker,
            redis,
            id,
            url: format!("http://127.0.0.1:{port}"),
            agent,
            channel,
            results: format!("agent.{ORCHESTRATOR}.coordination"),
            binary: bench.binary("sidecar"),
            scratch: scratch.to_owned(),
            root: bench.root.clone(),
            _connection: connection,
        })
    }

    /// Has `side` drain `load`.
    ///
    /// # Errors
    /// When it does not drain it in time, or what came of it is not one result for each step.
    pub async fn drain(&self, side: Side, load: Load) -> Result<Drained> {
        self.empty().await?;
        if let Side::Celery(..) = side {
            let (steps, bytes) = (load.steps.to_string(), load.bytes.to_string());
            let python = self.python()?;
            python.submitted(&["fill", &steps, &bytes]).await?;
        } else {
            // A broker that runs out of room answers nothing.
            tokio::time::timeout(LIMIT, self.preload(load))
                .await
                .context("the queue is not filled")??;
        }
        let mut process = self.start(side, load)?;
        let until = Instant::now() + LIMIT;
        // From the first look past a twentieth, so that starting and connecting do not count, to the one that sees
        // the last result.
        let mut first = None;
        let (begin, before, done_at_begin) = loop {
            let done = self.done(side).await?;
            let now = Instant::now();
            if done > load.steps / 20 && first.is_none() {
                first = Some((now, self.spent(&process)?, done));
            }
            if done >= load.steps {
                break first.context("the queue was drained before it was looked at")?;
            }
            process.alive()?;
            let of = load.steps;
            ensure!(
                now < until,
                "{side:?}: {done} of {of} results after {LIMIT:?}"
            );
            tokio::time::sleep(LOOK).await;
        };
        let seconds = begin.elapsed().as_secs_f64();
        let after = self.spent(&process)?;
        let steps = f64::from(load.steps - done_at_begin);
        let resident_mib = process.resident_mib()?;
        let done = self.done(side).await?;
        ensure!(
            done == load.steps,
            "{done} results for {} steps",
            load.steps
        );
        let [own, broker, agent] =
            [0, 1, 2].map(|part: usize| match (after.get(part), before.get(part)) {
                (Some(after), Some(before)) => after - before,
                _ => f64::NAN,
            });
        Ok(Drained {
            steps_per_s: steps / seconds,
            cpu_ms_per_1000: own / steps * 1e6,
            broker_ms_per_1000: broker / steps * 1e6,
            agent_share: agent / seconds,
            resident_mib,
        })
    }

    /// Processor time so far: of the side with all its processes, of the broker, of the agent.
    fn spent(&self, process: &Process) -> Result<[f64; 3]> {
        let broker = self.broker.cpu_s()?;
        Ok([process.group_cpu_s()?, broker, self.agent.cpu_s()?])
    }

    fn python(&self) -> Result<Python> {
        let agent = format!("{}/process", self.url);
        Python::new(&self.root, &self.scratch, &self.broker, &self.redis, &agent)
    }

    fn start(&self, side: Side, load: Load) -> Result<Process> {
        match side {
            Side::Sidecar => self.sidecar(load),
            Side::Bare => self.bare(load),
            Side::Plan { confirms, http } => {
                let queue = self.id.task_queue();
                self.python()?.plan_lane(&queue, confirms, http)
            }
            Side::Celery(pool, http) => self.python()?.celery(pool, http),
        }
    }

    fn sidecar(&self, load: Load) -> Result<Process> {
        let config = json!({
            "service": self.id,
            "app": {"url": self.url},
            "admin_listen": free_address()?,
            "worker": {
                "bus": {"backend": "rabbitmq", "url": self.broker.url()},
                "concurrency": load.in_flight,
            },
        });
        mesh::sidecar(&self.binary, &self.scratch, "sidecar", &config)
    }

    fn bare(&self, load: Load) -> Result<Process> {
        let arguments = [
            "bare-loop",
            "--broker",
            &self.broker.url(),
            "--queue",
            &self.id.task_queue(),
            "--agent",
            &format!("{}/process", self.url),
            "--prefetch",
            &load.in_flight.to_string(),
        ];
        Process::part("bare-loop", &self.scratch, arguments)
    }

    /// How many results there are.
    async fn done(&self, side: Side) -> Result<u32> {
        if let Side::Celery(..) = side {
            let mut counter = self.counter.clone();
            return Ok(redis::cmd("DBSIZE").query_async(&mut counter).await?);
        }
        Ok(self.look(&self.results).await?.message_count())
    }

    async fn look(&self, queue: &str) -> Result<lapin::Queue> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        Ok(found.await?)
    }

    /// Nobody finds what another left.
    async fn empty(&self) -> Result<()> {
        let tasks = self.id.task_queue();
        let until = Instant::now() + LIMIT;
        // What the last one had in hand comes back when the broker has noticed its end.
        while self.look(&tasks).await?.consumer_count() > 0 {
            ensure!(Instant::now() < until, "the last side still consumes");
            tokio::time::sleep(LOOK).await;
        }
        for queue in [&tasks, &self.results] {
            self.channel
                .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
                .await?;
        }
        self.channel
            .queue_delete(CELERY_QUEUE.into(), QueueDeleteOptions::default())
            .await?;
        self.redis.clear().await
    }

    async fn preload(&self, load: Load) -> Result<()> {
        let key = self.id.execute_key();
        let publish = |number: u32| {
            let key = &key;
            async move {
                let (body, properties) = self.message(number, load.bytes)?;
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
        let mut published = futures_util::stream::iter((0..load.steps).map(publish)).buffered(500);
        while let Some(done) = published.next().await {
            done?;
        }
        Ok(())
    }

    /// A step of so many bytes as the orchestrator sends it.
    fn message(&self, number: u32, bytes: usize) -> Result<(Vec<u8>, BasicProperties)> {
        let task = format!("bench-{number}");
        let step = |filler: usize| -> Result<Vec<u8>> {
            let payload = json!({"text": "x".repeat(filler), "rows": [1, 2, 3], "unit": "MiB"});
            let step = StepTask {
                task_id: task.parse()?,
                step_id: "s1".parse()?,
                agent: self.id.clone(),
                action: "Process bench".to_owned(),
                role: "Process bench".to_owned(),
                payload: serde_json::from_value(payload)?,
                incoming_data: serde_json::Map::new(),
                timestamp: crate::machine::now(),
                deadline_ms: None,
                submitted_ms: None,
                assertion: None,
            };
            Ok(serde_json::to_vec(&step)?)
        };
        let body = step(bytes.saturating_sub(step(0)?.len()))?;
        let mut headers = FieldTable::default();
        headers.insert(
            HEADER_IDEMPOTENCY_KEY.into(),
            AMQPValue::LongString(format!("{task}:s1").into()),
        );
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_correlation_id(task.as_str().into())
            .with_message_id(format!("{task}:s1").as_str().into())
            .with_headers(headers);
        Ok((body, properties))
    }
}
