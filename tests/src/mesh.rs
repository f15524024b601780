//! A whole mesh as processes, over a Consul of its own, RabbitMQ and Redis.
//!
//! The programs are those that users run, and what they read is what `mesh render` writes: a mesh.yaml goes
//! in, the harness adds nothing behind its back. Each program can be killed and started again by its name:
//! `gateway`, `orchestrator`, `agent ID`, `sidecar ID`, `sidecar gateway`, `sidecar orchestrator`; further
//! instances of an agent are called `ID-2` and so on, further orchestrators `orchestrator-2`.

mod description;
mod process;

pub use description::Setup;

use crate::binary::binary;
use crate::consul::{self, Consul};
use crate::server::{directory, target_directories};
use crate::{GENEROUS, rabbitmq, redis};
use description::{Instance, Place};
use process::Process;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// By name; before the directory, whose files they use.
    processes: BTreeMap<String, Process>,
    /// Its registry and certificate authority.
    pub consul: Consul,
    broker: String,
    place: Place,
    home: TempDir,
    client: Client,
}

impl Mesh {
    /// Starts a mesh; returns when every part says that it is ready.
    pub async fn start(setup: Setup) -> Self {
        let broker = async {
            match &setup.broker {
                Some(url) => url.clone(),
                None => rabbitmq::shared().await.vhost().await,
            }
        };
        let store = async {
            match &setup.store {
                Some(url) => url.clone(),
                None => redis::shared().await.database(),
            }
        };
        let (consul, broker, store) = tokio::join!(consul::start(), broker, store);
        let home = directory("mesh");
        let base = home.path();
        std::fs::create_dir(base.join("secrets")).expect("make a directory");
        std::fs::write(base.join("secrets/broker"), &broker).expect("write a secret");
        std::fs::write(base.join("secrets/store"), &store).expect("write a secret");
        let place = Place::new(&setup);
        // An agent that runs twice runs on two machines: each has a mesh.yaml with its own addresses.
        for machine in 1..=setup.machines() {
            let text = setup.mesh_yaml(&place, machine, &consul.url(), base);
            std::fs::write(mesh_yaml(base, machine), text).expect("write mesh.yaml");
        }
        let mut mesh = Self {
            processes: BTreeMap::new(),
            consul,
            broker,
            place,
            home,
            client: Client::builder().no_proxy().build().expect("a client"),
        };
        for machine in 1..=setup.machines() {
            for part in ["kong", "orchestrator", "sidecar"] {
                mesh.render(part, machine).await;
            }
        }
        mesh.describe(&setup);
        // Sidecars first and agents last: nothing may depend on what comes later being there already.
        for name in mesh.names().iter().rev() {
            mesh.launch(name);
        }
        mesh.all_ready().await;
        mesh
    }

    async fn render(&self, part: &str, machine: usize) {
        let out = rendered(self.home.path(), machine).display().to_string();
        let file = mesh_yaml(self.home.path(), machine).display().to_string();
        let arguments = ["render", part, &file, "--out", &out, "--secrets"];
        let written = self.command(&arguments).await;
        assert!(written.status.success(), "render {part}: {written:?}");
    }

    /// Says how each part is started.
    fn describe(&mut self, setup: &Setup) {
        let base = self.home.path().to_owned();
        let config = |machine: usize, name: &str, kind: &str| {
            let file = rendered(&base, machine).join(format!("{name}.secret.{kind}"));
            ["--config".to_owned(), file.display().to_string()]
        };
        let place = self.place.clone();
        let mut add = |name: String, process: Process| {
            let of_all = setup.environment.iter().cloned();
            let of_it = setup.environment_of.iter().filter(|(of, ..)| *of == name);
            let of_it = of_it.map(|(_, variable, value)| (*variable, value.clone()));
            let process = process.in_environment(of_all.chain(of_it).collect());
            self.processes.insert(name, process);
        };
        let mut gateway = config(1, "kong", "yml").to_vec();
        gateway.extend([
            format!("--filters={}", filters().display()),
            format!("--listen=127.0.0.1:{}", place.gateway),
            format!("--status=127.0.0.1:{}", place.gateway_status),
            "--workers=1".to_owned(),
        ]);
        // Guarded like everything behind it: its refusal is the proof that its filters run.
        let asked = format!("http://127.0.0.1:{}/agents", place.gateway);
        let refuses = StatusCode::UNAUTHORIZED;
        add(
            "gateway".to_owned(),
            Process::new("gateway", gateway, asked, refuses),
        );
        let ready = |port: u16| format!("http://127.0.0.1:{port}/ready");
        let sidecar = |machine, service: &str, admin| {
            let file = config(machine, &format!("sidecar-{service}"), "json").to_vec();
            Process::new("sidecar", file, ready(admin), StatusCode::OK)
        };
        add(
            "sidecar gateway".to_owned(),
            sidecar(1, "gateway", place.gateway_admin),
        );
        for (machine, orchestrator) in (1..).zip(&place.orchestrators) {
            let name = description::numbered("orchestrator", machine);
            let file = config(machine, "orchestrator", "json").to_vec();
            let asked = ready(orchestrator.api);
            let program = Process::new("orchestrator", file, asked, StatusCode::OK);
            let beside = sidecar(machine, "orchestrator", orchestrator.admin);
            add(format!("sidecar {name}"), beside);
            add(name, program);
        }
        for instance in &place.instances {
            let name = instance.name();
            if !instance.served {
                let arguments = vec![
                    instance.agent.to_owned(),
                    format!("--listen=127.0.0.1:{}", instance.endpoint),
                ];
                let health = format!("http://127.0.0.1:{}/health", instance.endpoint);
                let agent = Process::new("agent", arguments, health, StatusCode::OK);
                add(format!("agent {name}"), agent);
            }
            let sidecar = sidecar(instance.machine, instance.agent, instance.admin);
            add(format!("sidecar {name}"), sidecar);
        }
    }

    /// The names of all parts.
    pub fn names(&self) -> Vec<String> {
        self.processes.keys().cloned().collect()
    }

    /// The names of the sidecars.
    pub fn sidecars(&self) -> Vec<String> {
        let names = self.processes.keys();
        names
            .filter(|name| name.starts_with("sidecar "))
            .cloned()
            .collect()
    }

    fn process(&mut self, name: &str) -> &mut Process {
        let process = self.processes.get_mut(name);
        process.unwrap_or_else(|| panic!("this mesh has no {name}"))
    }

    /// Starts a part that is not running, and does not wait for it.
    pub fn launch(&mut self, name: &str) {
        self.process(name).launch();
    }

    /// Kills a part (`kill -9`) and waits until it is gone.
    pub async fn kill(&mut self, name: &str) {
        self.process(name).kill().await;
    }

    /// Ends every part in an orderly way, those first that send to others.
    pub async fn stop(mut self) {
        self.process("gateway").stop().await;
        let orchestrators = self.processes.iter_mut();
        for (_, process) in orchestrators.filter(|(name, _)| name.starts_with("orchestrator")) {
            process.stop().await;
        }
        for process in self.processes.values_mut().rev() {
            process.stop().await;
        }
    }

    /// Waits until every part says that it is ready.
    ///
    /// # Panics
    /// With what the part says and the end of its log, when that takes too long.
    pub async fn all_ready(&self) {
        for (name, process) in &self.processes {
            process.ready(name, &self.client).await;
        }
    }

    /// What a part has logged, its last lines.
    pub fn log(&self, name: &str) -> String {
        self.processes
            .get(name)
            .map(Process::log)
            .unwrap_or_default()
    }

    /// The file that describes it.
    pub fn file(&self) -> PathBuf {
        mesh_yaml(self.home.path(), 1)
    }

    /// The URL of its RabbitMQ.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The URL of the gateway.
    pub fn gateway(&self) -> String {
        format!("http://127.0.0.1:{}", self.place.gateway)
    }

    /// Where the gateway's metrics are, as `ADDRESS:PORT`.
    pub fn gateway_status(&self) -> String {
        format!("127.0.0.1:{}", self.place.gateway_status)
    }

    /// Where the first orchestrator is, as `ADDRESS:PORT`.
    pub fn orchestrator(&self) -> String {
        format!("127.0.0.1:{}", self.place.first_orchestrator().api)
    }

    /// The URL at which the program beside the sidecar of `name` (`gateway`, or an instance of an agent) sends
    /// its requests.
    ///
    /// # Panics
    /// When there is none.
    pub fn outbound(&self, name: &str) -> String {
        let port = match name {
            "gateway" => self.place.gateway_outbound,
            name => self.instance(name).outbound,
        };
        format!("http://127.0.0.1:{port}")
    }

    /// The URL of health and metrics of the sidecar of `name` (`gateway`, `orchestrator`, or an instance).
    ///
    /// # Panics
    /// When there is none.
    pub fn admin(&self, name: &str) -> String {
        let port = match name {
            "gateway" => self.place.gateway_admin,
            "orchestrator" => self.place.first_orchestrator().admin,
            name => self.instance(name).admin,
        };
        format!("http://127.0.0.1:{port}")
    }

    fn instance(&self, name: &str) -> &Instance {
        let instance = self.place.instances.iter().find(|i| i.name() == name);
        instance.unwrap_or_else(|| panic!("this mesh has no {name}"))
    }

    /// A token of its development issuer.
    pub async fn token(&self, sub: &str, scope: &str) -> String {
        let file = self.file().display().to_string();
        let arguments = ["token", &file, "--sub", sub, "--scope", scope];
        let said = self.command(&arguments).await;
        assert!(said.status.success(), "token: {said:?}");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// The token with which filters ask the orchestrator, as the rendered files have it.
    pub fn internal_token(&self) -> String {
        let file = rendered(self.home.path(), 1).join("orchestrator.secret.json");
        let text = std::fs::read_to_string(file).expect("read a rendered file");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        config["internal_token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// What `mesh` does with `arguments`, in the directory of mesh.yaml.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("mesh"));
        command.args(arguments).current_dir(self.home.path());
        let run = tokio::task::spawn_blocking(move || command.output());
        run.await.expect("wait for mesh").expect("run mesh")
    }

    /// A task of `task_type`, sent through the gateway by the owner of `token`, who waits for its end.
    pub fn task(&self, token: &str, task_type: &str) -> RequestBuilder {
        task(&self.client, &self.gateway(), token, task_type)
    }

    /// A request to an agent, by its id, sent through the gateway by the owner of `token`.
    pub fn direct(&self, token: &str, agent: &str) -> RequestBuilder {
        direct(&self.client, &self.gateway(), token, agent)
    }

    /// A client for further requests.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every refusal that was written down, by all sidecars.
    pub fn audited(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(audit(self.home.path())).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}

/// As [`Mesh::task`], with another client, for the gateway at `gateway`.
pub fn task(client: &Client, gateway: &str, token: &str, task_type: &str) -> RequestBuilder {
    client
        .post(format!("{gateway}/ai/orchestrate"))
        .bearer_auth(token)
        .header("prefer", "wait=30")
        .timeout(GENEROUS)
        .json(&json!({"task_type": task_type, "payload": payload(), "timeout": 30}))
}

/// As [`Mesh::direct`], with another client, for the gateway at `gateway`.
pub fn direct(client: &Client, gateway: &str, token: &str, agent: &str) -> RequestBuilder {
    client
        .post(format!("{gateway}/agent/process"))
        .bearer_auth(token)
        .header("x-agent", agent)
        .timeout(GENEROUS)
        .json(&json!({"action": "look", "payload": payload()}))
}

/// What each of our agents can do something with.
fn payload() -> Value {
    json!({"text": "One line.", "csv": "n\n1\n2\n"})
}

fn mesh_yaml(base: &Path, machine: usize) -> PathBuf {
    base.join(format!("mesh-{machine}.yaml"))
}

fn rendered(base: &Path, machine: usize) -> PathBuf {
    base.join(format!("rendered-{machine}"))
}

fn audit(base: &Path) -> PathBuf {
    base.join("audit.jsonl")
}

/// Where `make filters` puts the modules.
fn filters() -> PathBuf {
    target_directories()
        .map(|target| target.join("filters"))
        .into_iter()
        .find(|directory| directory.join("jwt_auth.wasm").is_file())
        .expect("the filters are not built: run `make filters`")
}
