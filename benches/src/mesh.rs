//! Our own binaries, configured from one mesh.yaml as a user would do it, for one measurement.

use crate::consul::Consul;
use crate::load::{self, Call};
use crate::process::{Process, free_address, free_port};
use crate::rows::Bench;
use anyhow::{Context, Result, ensure};
use mesh_bus::{BrokerUrl, BusConfig, Topology};
use mesh_protocol::AgentId;
use mesh_protocol::names::ORCHESTRATOR;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For any part to start and be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What a mesh of a measurement looks like.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// The agents and how long a step takes each, in milliseconds.
    pub agents: Vec<(&'static str, u64)>,
    /// Agents never answer.
    pub hold: bool,
    /// Steps that each agent is given at the same time; as many as is usual when none is said.
    pub concurrency: Option<u16>,
    /// Most steps of a plan, and most of them side by side; as many as is usual when none are said.
    pub bounds: Option<(usize, usize)>,
    /// URL of RabbitMQ; memory when there is none.
    pub rabbitmq: Option<String>,
    /// URL of Redis; memory when there is none.
    pub redis: Option<String>,
    /// URL of the model that is asked first.
    pub ollama: Option<String>,
    /// Whether there is a Consul, in which gateway, orchestrator and agents find each other as processes.
    pub consul: bool,
}

/// A mesh that is described and whose agents run.
pub struct Laid {
    /// Where its gateway listens.
    pub gateway: SocketAddr,
    /// Where its orchestrator listens.
    pub orchestrator: SocketAddr,
    /// Where its agents listen, in the order of the sketch.
    pub endpoints: Vec<SocketAddr>,
    home: PathBuf,
    agents: Vec<&'static str>,
    _consul: Option<Consul>,
    /// Mostly held for their end.
    _agents: Vec<Process>,
}

impl Sketch {
    /// Starts the agents, writes mesh.yaml and what is rendered from it into `<scratch>/<name>`.
    ///
    /// # Errors
    /// When a part of it fails.
    pub async fn lay(&self, bench: &Bench, name: &str) -> Result<Laid> {
        let home = bench.scratch.path().join(name);
        fs::create_dir_all(&home)?;
        let mut agents = Vec::new();
        let mut ports = Vec::new();
        for (agent, delay_ms) in &self.agents {
            let port = free_port()?;
            let (port_text, delay) = (port.to_string(), delay_ms.to_string());
            let arguments = ["agent", "--port", &port_text, "--delay-ms", &delay];
            let hold = self.hold.then_some("--hold");
            let mut process = Process::part(agent, &home, arguments.into_iter().chain(hold))?;
            process
                .listening(([127, 0, 0, 1], port).into(), START_LIMIT)
                .await?;
            agents.push(process);
            ports.push(port);
        }
        let (gateway, orchestrator) = (free_address()?, free_address()?);
        let file = home.join("mesh.yaml");
        let consul = if self.consul {
            Some(Consul::start(&home).await?)
        } else {
            None
        };
        let text = self.yaml(gateway, orchestrator, consul.as_ref(), &ports)?;
        fs::write(&file, text)?;
        // Makes the development keys, which rendering needs.
        said(
            ours(&bench.binary("mesh"))
                .arg("token")
                .arg(&file)
                .current_dir(&home),
        )?;
        for part in ["kong", "orchestrator", "sidecar"] {
            let mut render = ours(&bench.binary("mesh"));
            render.arg("render").arg(part).arg(&file);
            render.arg("--out").arg(&home).arg("--secrets");
            said(&mut render)?;
        }
        Ok(Laid {
            gateway,
            orchestrator,
            endpoints: ports
                .iter()
                .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
                .collect(),
            home,
            agents: self.agents.iter().map(|(agent, _)| *agent).collect(),
            _consul: consul,
            _agents: agents,
        })
    }

    fn yaml(
        &self,
        gateway: SocketAddr,
        orchestrator: SocketAddr,
        consul: Option<&Consul>,
        ports: &[u16],
    ) -> Result<String> {
        let (out, way_in) = (free_address()?, free_address()?);
        let admin = || free_address().map(|address| format!("admin_listen: \"{address}\""));
        let (beside_gateway, beside_orchestrator) = (admin()?, admin()?);
        let (steps, width) = self.bounds.unwrap_or((100, 16));
        let mut text = format!(
            "version: 1\nmesh: bench\n\
             gateway:\n  listen: {gateway}\n  auth: {{development: true}}\n  \
               sidecar: {{outbound: \"{out}\", {beside_gateway}}}\n\
             orchestrator:\n  listen: {orchestrator}\n  \
               sidecar: {{listen: \"{way_in}\", {beside_orchestrator}}}\n  \
               planner:\n    max_steps: {steps}\n    max_width: {width}\n"
        );
        if let Some(url) = &self.ollama {
            writeln!(
                text,
                "    ollama: {{url: \"{url}\", model: double, num_predict: 32768, cache: {{entries: 0}}}}"
            )?;
        }
        if let Some(consul) = consul {
            let url = consul.url();
            writeln!(text, "registry: {{backend: consul, url: \"{url}\"}}")?;
        }
        if let Some(url) = &self.rabbitmq {
            writeln!(text, "messaging: {{backend: rabbitmq, url: \"{url}\"}}")?;
        }
        if let Some(url) = &self.redis {
            writeln!(text, "store: {{backend: redis, url: \"{url}\"}}")?;
        }
        let concurrency = self
            .concurrency
            .map(|steps| format!("concurrency: {steps}, "));
        let concurrency = concurrency.unwrap_or_default();
        text.push_str("agents:\n");
        for ((agent, _), port) in self.agents.iter().zip(ports) {
            writeln!(
                text,
                "  - {{id: {agent}, capabilities: [work], endpoint: \"http://127.0.0.1:{port}\", {concurrency}\
                 sidecar: {{listen: \"{}\", {}}}}}",
                free_address()?,
                admin()?
            )?;
        }
        Ok(text)
    }
}

impl Laid {
    /// Everything in one process.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn one_process(&self, bench: &Bench) -> Result<Vec<Process>> {
        let mut command = ours(&bench.binary("mesh"));
        command
            .arg("up")
            .arg(self.home.join("mesh.yaml"))
            .arg("--filters")
            .arg(bench.root.join("target/filters"));
        let mut mesh = Process::start("mesh", &self.home, command)?;
        mesh.listening(self.gateway, START_LIMIT).await?;
        mesh.listening(self.orchestrator, START_LIMIT).await?;
        Ok(vec![mesh])
    }

    /// Each part in its own process.
    ///
    /// # Errors
    /// When a part does not get ready.
    pub async fn processes(&self, bench: &Bench) -> Result<Vec<Process>> {
        let mut all = vec![self.orchestrator(bench).await?];
        for service in ["gateway", "orchestrator"].iter().chain(&self.agents) {
            all.push(self.sidecar(bench, service)?);
        }
        let mut command = ours(&bench.binary("gateway"));
        command
            .arg("--config")
            .arg(self.home.join("kong.secret.yml"))
            .arg("--listen")
            .arg(self.gateway.to_string())
            .arg("--filters")
            .arg(bench.root.join("target/filters"));
        let mut gateway = Process::start("gateway", &self.home, command)?;
        gateway.listening(self.gateway, START_LIMIT).await?;
        all.push(gateway);
        Ok(all)
    }

    /// The orchestrator alone.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn orchestrator(&self, bench: &Bench) -> Result<Process> {
        self.replica(bench, "orchestrator", self.orchestrator).await
    }

    /// A replica of the orchestrator that listens at `address`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn replica(&self, bench: &Bench, name: &str, address: SocketAddr) -> Result<Process> {
        let mut command = ours(&bench.binary("orchestrator"));
        command
            .arg("--config")
            .arg(self.home.join("orchestrator.secret.json"))
            .env("PORT", address.port().to_string());
        let mut orchestrator = Process::start(name, &self.home, command)?;
        orchestrator.listening(address, START_LIMIT).await?;
        load::until_right(&Call::get(address, "/ready"), START_LIMIT)
            .await
            .with_context(|| orchestrator.log_end())?;
        Ok(orchestrator)
    }

    /// The sidecars beside the agents, which take their steps.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn workers(&self, bench: &Bench) -> Result<Vec<Process>> {
        let agents = self.agents.iter();
        agents.map(|agent| self.sidecar(bench, agent)).collect()
    }

    fn sidecar(&self, bench: &Bench, service: &str) -> Result<Process> {
        let name = format!("sidecar-{service}");
        let mut command = ours(&bench.binary("sidecar"));
        command
            // Where the authority is that they share.
            .current_dir(&self.home)
            .arg("--config")
            .arg(self.home.join(format!("{name}.secret.json")));
        Process::start(&name, &self.home, command)
    }

    /// The queues of its steps and results.
    ///
    /// # Errors
    /// When an agent's name is none.
    pub fn queues(&self) -> Result<Vec<String>> {
        let mut queues = vec![format!("agent.{ORCHESTRATOR}.coordination")];
        for agent in &self.agents {
            queues.push(agent.parse::<AgentId>()?.task_queue());
        }
        Ok(queues)
    }

    /// A token that the gateway accepts, as the value of `Authorization`.
    ///
    /// # Errors
    /// When the `mesh` command fails.
    pub fn bearer(&self, bench: &Bench) -> Result<String> {
        let mut command = ours(&bench.binary("mesh"));
        command.arg("token").arg(self.home.join("mesh.yaml"));
        Ok(format!("Bearer {}", said(&mut command)?.trim()))
    }
}

/// Starts a sidecar with a configuration.
///
/// # Errors
/// When it cannot be started.
pub fn sidecar(
    binary: &Path,
    scratch: &Path,
    name: &str,
    config: &serde_json::Value,
) -> Result<Process> {
    let path = scratch.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_vec_pretty(config)?)?;
    let mut command = ours(binary);
    command.arg("--config").arg(path);
    Process::start(name, scratch, command)
}

/// Declares `topology` with the arguments that our parts use.
///
/// # Errors
/// When the broker refuses.
pub async fn declare(url: &str, topology: &Topology) -> Result<()> {
    let url = BrokerUrl::try_from(url.to_owned()).map_err(anyhow::Error::msg)?;
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url }).await?;
    bus.declare(topology).await?;
    bus.close().await;
    Ok(())
}

/// One of our binaries, which the caller's environment does not reconfigure.
pub(crate) fn ours(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for name in [
        "RABBITMQ_URL",
        "REDIS_URL",
        "OLLAMA_URL",
        "CONSUL_URL",
        "PORT",
    ] {
        command.env_remove(name);
    }
    // What a production log would hold; a line per step would be measured as well.
    command.env("RUST_LOG", "warn");
    command
}

/// What a command prints; it must end well.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?)
}
