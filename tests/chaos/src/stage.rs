//! What everything happens on: a whole mesh of processes, with wires that can be cut between the parts.
//!
//! ```text
//!  mesh load ─▶ gateway ─▶ its sidecar ═▶ sidecar ─▶ orchestrator(s) ──wire──▶ Redis, and its replica
//!                                                          │ wire
//!                                                      RabbitMQ ──wire── sidecar first ─▶ agent first
//!                                                          └──── wire ── sidecars of the others ─▶ agents
//! ```

use crate::agent;
use crate::link::{Link, Mode};
use crate::store::Pair;
use mesh_orchestrator::double::{Answer, Ollama};
use mesh_tests::binary::binary;
use mesh_tests::mesh::{Mesh, Setup};
use mesh_tests::rabbitmq::{self, Broker};
use mesh_tests::server::{Server, directory, free_port};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// The agents of every task, in the order of its steps.
pub const AGENTS: [&str; 3] = ["first", "second", "third"];
/// The agent that is away for a while, with much in its queue.
pub const ABSENT: &str = "absent";
/// The task type: three steps, each behind the one before.
pub const TASK_TYPE: &str = "relay";

/// What a step has, before it has failed.
const STEP_TIMEOUT: &str = "30s";
/// What some steps take instead.
const LATE: Duration = Duration::from_secs(35);
/// What a step takes.
const TAKES: Duration = Duration::from_millis(10);

/// The stage.
pub struct Stage {
    /// The parts that are ours.
    pub mesh: Mutex<Mesh>,
    /// RabbitMQ.
    pub broker: Mutex<Broker>,
    /// URL of its virtual host, past the wires.
    pub broker_url: String,
    /// The wire of everybody to the broker, and that of one agent's sidecar.
    pub broker_links: [Link; 2],
    /// Redis and its replica, and the wire to whichever is the primary.
    pub stores: Mutex<Pair>,
    /// What the clocks of the orchestrators are ahead by, as libfaketime reads it.
    clock: PathBuf,
    /// The key to the gateway.
    pub token: String,
    /// Its URL.
    pub gateway: String,
    agents: Mutex<BTreeMap<&'static str, (u16, Option<Server>)>>,
    _model: Ollama,
    home: TempDir,
}

impl Stage {
    /// Sets everything up; returns when every part is ready.
    pub async fn set(orchestrators: usize) -> Self {
        let home = directory("chaos");
        let clock = home.path().join("clock");
        std::fs::write(&clock, "+0").expect("write the clock");
        let (broker, stores, model) = tokio::join!(
            rabbitmq::start(),
            Pair::start(),
            Ollama::start(vec![Answer::Plan(plan())])
        );
        let model = model.expect("a free port");
        let broker_url = broker.vhost().await;
        let broker_links = [Link::to(broker.port()).await, Link::to(broker.port()).await];
        let through = |link: &Link| {
            let port = |port: u16| format!("127.0.0.1:{port}/");
            broker_url.replace(&port(broker.port()), &port(link.port()))
        };
        let agents: BTreeMap<_, _> = AGENTS
            .into_iter()
            .chain([ABSENT])
            .map(|name| (name, (free_port(), None)))
            .collect();
        let mut environment_of = vec![("sidecar first", "RABBITMQ_URL", through(&broker_links[1]))];
        for name in ["orchestrator", "orchestrator-2"] {
            for (variable, value) in clock_of_its_own(&clock) {
                environment_of.push((name, variable, value));
            }
        }
        let setup = Setup {
            agents: Vec::new(),
            served: agents
                .iter()
                .map(|(name, (port, _))| (*name, *port))
                .collect(),
            orchestrators,
            broker: Some(through(&broker_links[0])),
            store: Some(stores.url()),
            environment: vec![("RUST_LOG", "warn".to_owned())],
            environment_of,
            ..Setup::default()
        };
        let setup = described(setup, &model.url(), home.path());
        let stage_agents = Mutex::new(agents);
        for name in AGENTS.into_iter().chain([ABSENT]) {
            start_agent(&stage_agents, home.path(), name).await;
        }
        let mesh = Mesh::start(setup).await;
        let token = token(&mesh).await;
        Self {
            gateway: mesh.gateway(),
            mesh: Mutex::new(mesh),
            broker: Mutex::new(broker),
            broker_url,
            broker_links,
            stores: Mutex::new(stores),
            clock,
            token,
            agents: stage_agents,
            _model: model,
            home,
        }
    }

    /// Kills an agent.
    pub async fn kill_agent(&self, name: &str) {
        let server = {
            let mut agents = self.agents.lock().await;
            agents.get_mut(name).and_then(|(_, server)| server.take())
        };
        if let Some(server) = server {
            server.kill().await;
        }
    }

    /// Starts an agent again.
    pub async fn start_agent(&self, name: &'static str) {
        start_agent(&self.agents, self.home.path(), name).await;
    }

    /// Changes what the wire between one sidecar and the broker does.
    pub fn partition(&self, mode: Mode) {
        self.broker_links[1].set(mode);
    }

    /// Sets the clocks of the orchestrators ahead by so many seconds.
    pub fn set_clocks(&self, ahead: &str) {
        // In one step: a reader sees the one or the other.
        let next = self.clock.with_extension("next");
        std::fs::write(&next, ahead).expect("write the clock");
        std::fs::rename(&next, &self.clock).expect("set the clock");
    }

    /// Where an agent has written down its effects.
    pub fn log(&self, agent: &str) -> PathBuf {
        log(self.home.path(), agent)
    }

    /// What the parts have logged, their last lines, for the message of a failure.
    pub async fn logs(&self) -> String {
        let mesh = self.mesh.lock().await;
        let names = mesh.names();
        let logs = names.iter().map(|name| (name, mesh.log(name)));
        let told = logs.filter(|(_, log)| !log.is_empty());
        told.map(|(name, log)| format!("--- {name}\n{log}\n"))
            .collect()
    }

    /// Ends everything in an orderly way.
    pub async fn strike(self) {
        self.mesh.into_inner().stop().await;
        for (_, server) in self.agents.into_inner().into_values() {
            if let Some(server) = server {
                // It holds nothing that is not written down.
                server.kill().await;
            }
        }
    }
}

async fn start_agent(
    agents: &Mutex<BTreeMap<&'static str, (u16, Option<Server>)>>,
    home: &Path,
    name: &'static str,
) {
    let mut agents = agents.lock().await;
    let (port, server) = agents.get_mut(name).expect("an agent");
    let mut arguments = vec![
        "agent".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
        format!("--log={}", log(home, name).display()),
    ];
    if AGENTS.contains(&name) {
        arguments.push(format!("--takes-ms={}", TAKES.as_millis()));
        arguments.push(format!("--late-ms={}", LATE.as_millis()));
    }
    let started = Server::start(&binary("chaos"), &arguments, &[], home);
    started.listens_on(*port).await;
    *server = Some(started);
}

fn log(home: &Path, agent: &str) -> PathBuf {
    home.join(format!("effects-{agent}"))
}

/// mesh.yaml beside what every mesh of the tests has.
fn described(setup: Setup, model: &str, home: &Path) -> Setup {
    setup
        .with(
            "orchestrator",
            json!({
                "planner": {
                    "rules": {TASK_TYPE: AGENTS},
                    "ollama": {"url": model, "model": "tinyllama", "timeout": "5s"},
                },
                "steps": {"timeout": STEP_TIMEOUT},
                "limits": {"max_runs": 200_000},
            }),
        )
        .with(
            "messaging",
            json!({"state_dir": home.join("state"), "delivery": {"delayed_retries": 5}}),
        )
        // Every fault is met by everybody, and nobody shall be called down for it.
        .with("traffic", json!({"response_timeout": "30s"}))
}

/// What the model says: one step behind the other.
fn plan() -> Value {
    let mut before: Option<&str> = None;
    let steps = AGENTS.map(|agent| {
        let step = json!({
            "id": agent,
            "agent": agent,
            "action": "pass it on",
            "dependencies": before.into_iter().collect::<Vec<_>>(),
        });
        before = Some(agent);
        step
    });
    json!({
        "execution_plan": steps,
        "resources": {"cpu": "10", "memory": "64", "gpu": false},
        "estimated_time": 1,
        "confidence": 1,
        "risks": [],
    })
}

/// Environment under which a program sees the clock on the wall that the file says, and no other clock changed.
fn clock_of_its_own(file: &Path) -> [(&'static str, String); 5] {
    [
        ("LD_PRELOAD", faketime().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

/// Where Debian has the library, on every architecture.
fn faketime() -> PathBuf {
    let architectures = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let mut files = architectures
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    files
        .find(|file| file.is_file())
        .expect("libfaketime is not installed: install with `make setup`")
}

async fn token(mesh: &Mesh) -> String {
    let file = mesh.file().display().to_string();
    let said = mesh.command(&["token", &file, "--ttl", "2h"]).await;
    assert!(said.status.success(), "token: {said:?}");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// Every effect of every agent that tasks go to.
///
/// # Errors
/// A log cannot be read.
pub fn effects(stage: &Stage) -> std::io::Result<Vec<agent::Effect>> {
    let mut all = Vec::new();
    for agent in AGENTS {
        all.extend(agent::effects(&stage.log(agent))?);
    }
    Ok(all)
}
