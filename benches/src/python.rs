//! The peers in Python, from `target/bench-venv`.

use crate::process::Process;
use crate::servers::{RabbitMq, Redis};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// For one to put its tasks into a queue; takes a few seconds.
const FILL_LIMIT: Duration = Duration::from_secs(60);
/// The queue that Celery uses.
pub const CELERY_QUEUE: &str = "celery";

/// How a Celery worker does several tasks at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Two processes: one for each core here.
    Prefork,
    /// Sixteen threads.
    Threads,
}

impl Pool {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Prefork => ["--pool", "prefork", "--concurrency", "2"],
            Self::Threads => ["--pool", "threads", "--concurrency", "16"],
        }
    }
}

/// The HTTP client that calls the agent (`peers/agent.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// What most programs use.
    Requests,
    /// What the plan uses.
    Httpx,
    /// The leanest.
    Urllib3,
}

impl Http {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Httpx => "httpx",
            Self::Urllib3 => "urllib3",
        }
    }
}

/// Where they find what they need.
#[derive(Debug)]
pub struct Python {
    peers: PathBuf,
    interpreter: PathBuf,
    scratch: PathBuf,
    rabbitmq_port: u16,
    redis_port: u16,
    agent: String,
}

impl Python {
    /// Peers that have the agent at `agent` (a URL) do the work.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn new(
        root: &Path,
        scratch: &Path,
        broker: &RabbitMq,
        redis: &Redis,
        agent: &str,
    ) -> Result<Self> {
        let interpreter = root.join("target/bench-venv/bin/python");
        ensure!(
            root.join("target/bench-venv/bin/celery").exists(),
            "{} has no Celery; benches/setup.sh installs it",
            interpreter.display()
        );
        Ok(Self {
            peers: root.join("benches/peers"),
            interpreter,
            scratch: scratch.to_owned(),
            rabbitmq_port: broker.port,
            redis_port: redis.port,
            agent: agent.to_owned(),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.interpreter);
        command
            .args(arguments)
            .current_dir(&self.peers)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("RABBITMQ_PORT", self.rabbitmq_port.to_string())
            .env("REDIS_PORT", self.redis_port.to_string())
            .env("AGENT_URL", &self.agent);
        command
    }

    /// A Celery worker, which is ready a moment later. What it says to other workers is left out: there are none.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn celery(&self, pool: Pool, http: Http) -> Result<Process> {
        let mut command = self.command(&["-m", "celery", "-A", "celery_peer", "worker"]);
        command
            .env("HTTP", http.name())
            .args(pool.arguments())
            .args(["--loglevel", "warning"])
            .args([
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]);
        Process::start("celery", &self.scratch, command)
    }

    /// The plan's shape of a step lane on `queue`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn plan_lane(&self, queue: &str, confirms: bool, http: Http) -> Result<Process> {
        let form = if confirms { "confirms" } else { "plain" };
        let mut command = self.command(&["plan_lane.py", form]);
        command.env("QUEUE", queue).env("HTTP", http.name());
        Process::start("plan-lane", &self.scratch, command)
    }

    /// A client of Celery that submits what `arguments` say and ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn submits(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = self.command(&["celery_peer.py"]);
        command.args(arguments);
        Process::start("celery-client", &self.scratch, command)
    }

    /// The same, and waits for its end.
    ///
    /// # Errors
    /// When it fails, or takes too long.
    pub async fn submitted(&self, arguments: &[&str]) -> Result<()> {
        let mut client = self.submits(arguments)?;
        let until = Instant::now() + FILL_LIMIT;
        while !client.ended_well()? {
            ensure!(
                Instant::now() < until,
                "the client of Celery is not done after {FILL_LIMIT:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
