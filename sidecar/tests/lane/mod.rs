//! A sidecar with a scripted agent at one end and a reader of results at the other.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part, and a test that cannot go on must fail"
)]

use mesh_bus::{
    BrokerUrl, Bus, BusConfig, Deliveries, Delivery as Delivered, Message, Properties, QueueKind,
    Topology,
};
use mesh_protocol::AgentId;
use mesh_protocol::message::StepTask;
use mesh_protocol::names::EXCHANGE_TASKS;
use mesh_protocol::outcome::{Outcome, StepResult};
use mesh_sidecar::config::{Config, Delivery, Worker};
use mesh_sidecar::registry::Memory;
use mesh_sidecar::{Deps, build};
use mesh_tests::{wait_for, within};
use mesh_trace::Tracer;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub fn agent_id() -> AgentId {
    "data-processor".parse().unwrap()
}

/// The lane over a real broker.
pub async fn over(url: &str) -> Arc<dyn Bus> {
    let url = BrokerUrl::try_from(url.to_owned()).unwrap();
    let config = BusConfig::Rabbitmq { url };
    mesh_bus::connect(&config).await.unwrap()
}

/// The program that users run.
pub fn sidecar(file: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sidecar"))
        .arg("--config")
        .arg(file)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the test agent was asked.
#[derive(Debug, Clone)]
pub struct Call {
    pub headers: HashMap<String, String>,
    pub body: Value,
}

/// What it does then.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status, one more header line or none, body.
    Answer(u16, &'static str, Vec<u8>),
    /// Promises a hundred bytes, sends some and closes.
    CutOff,
    /// Sends one piece after another until the other side leaves.
    Forever,
    /// Closes without a word.
    Close,
    /// Answers 200 once [`TestAgent::release`] was called.
    Held,
}

pub fn ok(body: Value) -> Reply {
    Reply::Answer(200, "", body.to_string().into_bytes())
}

/// An agent that answers its calls from a script, and the last line of it for ever.
pub struct TestAgent {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    at_once: watch::Sender<(usize, usize)>,
    held: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl TestAgent {
    pub async fn start(script: Vec<Reply>) -> Arc<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    pub async fn start_at(place: SocketAddr, script: Vec<Reply>) -> Arc<Self> {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, held) = (
            Arc::<Mutex<Vec<Call>>>::default(),
            watch::Sender::new(false),
        );
        let at_once = watch::Sender::new((0, 0));
        let (seen, hold, busy) = (Arc::clone(&calls), held.clone(), at_once.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (script.clone(), Arc::clone(&seen));
                let (hold, busy) = (hold.clone(), busy.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(call) = read_call(&mut stream).await {
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(call);
                            seen.len() - 1
                        };
                        busy.send_modify(|(now, most)| {
                            *now += 1;
                            *most = (*most).max(*now);
                        });
                        let reply = script.get(number).or(script.last()).unwrap().clone();
                        let go_on = send(stream.get_mut(), reply, hold.subscribe()).await;
                        busy.send_modify(|(now, _)| *now -= 1);
                        if !go_on {
                            return;
                        }
                    }
                });
            }
        });
        Arc::new(Self {
            address,
            calls,
            at_once,
            held,
            task,
        })
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.at_once.borrow().1
    }

    pub async fn was_called(&self, times: usize) {
        wait_for("calls", || async { self.calls().len() >= times }).await;
    }

    pub fn release(&self) {
        self.held.send_replace(true);
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_call(stream: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut headers = HashMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    assert_eq!(line, "POST /process HTTP/1.1\r\n");
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    let body = serde_json::from_slice(&body).unwrap();
    Some(Call { headers, body })
}

async fn send(stream: &mut TcpStream, reply: Reply, mut held: watch::Receiver<bool>) -> bool {
    let (status, header, body) = match reply {
        Reply::Answer(status, header, body) => (status, header, body),
        Reply::Held => {
            held.wait_for(|released| *released).await.unwrap();
            (200, "", b"{\"held\":true}".to_vec())
        }
        Reply::Close => return false,
        Reply::CutOff => {
            let part = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"part\":";
            stream.write_all(part).await.unwrap();
            return false;
        }
        Reply::Forever => {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let piece = format!("400\r\n{}\r\n", " ".repeat(0x400));
            while stream.write_all(piece.as_bytes()).await.is_ok() {
                tokio::task::yield_now().await;
            }
            return false;
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{header}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok()
}

/// A running sidecar and what is at both of its ends.
pub struct Lane {
    pub bus: Arc<dyn Bus>,
    pub agent: Arc<TestAgent>,
    pub admin: SocketAddr,
    pub results: Deliveries,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<()>,
}

/// Quick retries, none of them put off, and nothing else out of the ordinary.
pub fn quick() -> Worker {
    Worker {
        retry_base_ms: 1,
        delivery: Delivery {
            delayed_retries: 0,
            ..Delivery::default()
        },
        ..Worker::default()
    }
}

/// As many delayed retries, as quick as they can be.
pub fn put_off(delayed_retries: u32) -> Worker {
    Worker {
        delivery: Delivery {
            delayed_retries,
            first_delay_ms: 250,
            longest_delay_ms: 500,
            ..Delivery::default()
        },
        max_attempts: 1,
        ..quick()
    }
}

/// What a sidecar without a bus and without traces is given.
pub fn deps() -> Deps {
    Deps {
        bus: None,
        registry: Memory::new(),
        tracer: Tracer::off(),
        logs: None,
        metrics: prometheus::Registry::new(),
    }
}

pub fn config(agent: SocketAddr, worker: Worker) -> Config {
    serde_json::from_value(json!({
        "service": agent_id(),
        // A question of another kind would be a call to the scripted agent.
        "app": {"url": format!("http://{agent}"), "health": {"check": "tcp"}},
        "admin_listen": "127.0.0.1:0",
        "worker": worker,
    }))
    .unwrap()
}

impl Lane {
    pub async fn start(bus: Arc<dyn Bus>, script: Vec<Reply>, worker: Worker) -> Self {
        let agent = TestAgent::start(script).await;
        Self::with_agent(bus, agent, worker).await
    }

    pub async fn with_agent(bus: Arc<dyn Bus>, agent: Arc<TestAgent>, worker: Worker) -> Self {
        let config = config(agent.address, worker);
        Self::configured(bus, agent, config).await
    }

    /// A lane whose drain lasts no longer than `drain_ms`.
    pub async fn draining(bus: Arc<dyn Bus>, script: Vec<Reply>, drain_ms: u64) -> Self {
        let agent = TestAgent::start(script).await;
        let config = Config {
            drain_ms,
            ..config(agent.address, quick())
        };
        Self::configured(bus, agent, config).await
    }

    /// A lane with a configuration of its own.
    pub async fn configured(bus: Arc<dyn Bus>, agent: Arc<TestAgent>, config: Config) -> Self {
        Self::given(bus, agent, config, deps()).await
    }

    /// A lane whose sidecar is given `deps`, and this bus.
    pub async fn given(
        bus: Arc<dyn Bus>,
        agent: Arc<TestAgent>,
        config: Config,
        deps: Deps,
    ) -> Self {
        let topology = Topology::exchanges()
            .with_orchestrator(QueueKind::Quorum)
            .with_agent(&agent_id(), QueueKind::Quorum);
        bus.declare(&topology).await.unwrap();
        let results = bus
            .consume("agent.orchestrator.coordination", 100)
            .await
            .unwrap();
        let deps = Deps {
            bus: Some(Arc::clone(&bus)),
            ..deps
        };
        let bound = build(config, deps).await.unwrap();
        let admin = bound.admin_address();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.run(shutdown.clone()));
        Self {
            bus,
            agent,
            admin,
            results,
            shutdown,
            running,
        }
    }

    /// Publishes to the agent as the orchestrator does.
    pub async fn publish(&self, body: impl Into<Vec<u8>>, properties: Properties) {
        let message = Message {
            exchange: EXCHANGE_TASKS.into(),
            routing_key: agent_id().execute_key(),
            body: body.into().into(),
            mandatory: true,
            properties,
        };
        self.bus.publish(message).await.unwrap();
    }

    pub async fn step(&self, step: &StepTask) {
        let body = serde_json::to_vec(step).unwrap();
        self.publish(body, Properties::default()).await;
    }

    /// The next result, taken off its queue.
    pub async fn result(&mut self) -> StepResult {
        let delivery = within("a result", self.results.next()).await.unwrap();
        let result = serde_json::from_slice(&delivery.message.body).unwrap();
        delivery.ack().await.unwrap();
        result
    }

    /// The error of the next result, which has to be a failure.
    pub async fn failure(&mut self) -> (String, String, u32) {
        let result = self.result().await;
        match result.outcome {
            Outcome::Failed { error } => (error.code, error.detail, result.attempts),
            Outcome::Completed { result } => panic!("completed with {result}"),
        }
    }

    /// The reason and body of the next dead letter.
    pub async fn dead_letter(&self) -> (String, Vec<u8>) {
        let delivery = self.dead().await;
        let reason = delivery.message.properties.reason.clone().unwrap();
        let body = delivery.message.body.to_vec();
        delivery.ack().await.unwrap();
        (reason, body)
    }

    /// The next dead letter, unsettled.
    pub async fn dead(&self) -> Delivered {
        let queue = agent_id().dead_queue();
        let mut dead = self.bus.consume(&queue, 1).await.unwrap();
        let delivery = within("a dead letter", dead.next()).await.unwrap();
        dead.stopper().cancel();
        delivery
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the drain", self.running).await.unwrap();
    }

    /// Status and body of a page of the admin listener.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// How many messages its metrics count as dead.
    pub async fn dead_letters(&self) -> u64 {
        let (_, metrics) = self.admin("/metrics").await;
        let counted = metrics
            .lines()
            .filter(|line| line.starts_with("sidecar_dead_letters_total{"));
        let counts: Vec<u64> = counted
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(!counts.is_empty(), "{metrics}");
        counts.into_iter().sum()
    }
}

pub fn step(id: &str) -> StepTask {
    serde_json::from_value(json!({
        "task_id": "t", "step_id": id, "agent": agent_id(), "action": "Process x", "role": "r",
        "payload": {"n": 1}, "incoming_data": {"s0": {"agent": "b", "data": [1]}},
        "assertion": "secret",
    }))
    .unwrap()
}
