//! An orchestrator over the memory bus, with agents that are loops in the test.

use ed25519_dalek::SigningKey;
use mesh_bus::memory::MemoryBus;
use mesh_bus::{Bus, Message, Topology};
use mesh_orchestrator::config::{Agent, Config};
use mesh_orchestrator::coordination::hub::{Bounds, Hub, MemoryHub};
use mesh_orchestrator::quota::{MemoryQuota, Quota};
use mesh_orchestrator::store::{MemoryStore, RunStore};
use mesh_orchestrator::{Deps, build};
use mesh_protocol::assertion::{Claims, public_half, sign};
use mesh_protocol::message::StepTask;
use mesh_protocol::names::{EXCHANGE_COORDINATION, ORCHESTRATOR};
use mesh_protocol::outcome::{Outcome, StepError, StepResult};
use mesh_protocol::{AgentId, Timestamp};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the agents of a test share.
pub struct Ground {
    pub bus: Arc<MemoryBus>,
    pub store: Arc<dyn RunStore>,
    pub quota: Arc<dyn Quota>,
    pub hub: Arc<dyn Hub>,
}

impl Ground {
    pub fn new() -> Self {
        Self {
            bus: Arc::new(MemoryBus::new()),
            store: Arc::new(MemoryStore::new(Duration::from_secs(3600))),
            quota: Arc::new(MemoryQuota::new()),
            hub: Arc::new(MemoryHub::new(Bounds::default())),
        }
    }
}

/// A running orchestrator.
pub struct Mesh {
    pub address: SocketAddr,
    pub ground: Ground,
    stop: CancellationToken,
    running: JoinHandle<()>,
    pub client: reqwest::Client,
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The plan's agents, except those that its table names and this mesh lacks.
pub fn config() -> Config {
    serde_json::from_value(json!({
        "listen": "127.0.0.1:0",
        "agents": [
            {"id": "hardware-optimizer", "capabilities": ["system_optimization"]},
            {"id": "resource-arbitrator"},
            {"id": "data-processor", "capabilities": ["data_processing"], "description": "statistics"},
            {"id": "general-agent"},
        ],
        "planner": {"general_agent": "general-agent"},
        "bus": {"backend": "memory"},
        "store": {"backend": "memory"},
        "assertions": {"audience": "mesh", "keys": [{"kid": "g1", "x": public_half(&key())}]},
    }))
    .unwrap()
}

/// What filters bring to `/internal/…`.
pub const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyz-_ABCDEF";

/// [`config`] with [`TOKEN`].
pub fn config_with_token() -> Config {
    Config {
        internal_token: Some(TOKEN.to_owned().try_into().unwrap()),
        ..config()
    }
}

/// The assertion of a gateway for `sub`.
pub fn assertion(sub: &str, scope: &str) -> String {
    assertion_of(Timestamp::now().seconds(), sub, scope)
}

/// One that was made at `now`, in seconds since 1970.
pub fn assertion_of(now: u64, sub: &str, scope: &str) -> String {
    let claims = Claims {
        iss: "gateway".into(),
        aud: "mesh".into(),
        sub: sub.into(),
        origin: "https://issuer.example".into(),
        scope: scope.into(),
        claims: Default::default(),
        iat: now,
        exp: now + 60,
    };
    sign(&claims, "g1", &key())
}

impl Mesh {
    /// With agents that answer every step at once.
    pub async fn start(config: Config) -> Self {
        let mesh = Self::without_agents(config, Ground::new()).await;
        for agent in mesh_agents() {
            mesh.agent(&agent, answer_well).await;
        }
        mesh
    }

    pub async fn without_agents(config: Config, ground: Ground) -> Self {
        let bus = ground.bus.clone();
        Self::on_bus(config, bus, ground).await
    }

    /// On another bus than that of the ground, with no agents.
    pub async fn on_bus(config: Config, bus: Arc<dyn Bus>, ground: Ground) -> Self {
        let deps = Deps {
            bus,
            store: Arc::clone(&ground.store),
            quota: Arc::clone(&ground.quota),
            hub: Arc::clone(&ground.hub),
            arbiter: mesh_orchestrator::resources::connect(&config).unwrap(),
            tracer: mesh_trace::Tracer::off(),
            metrics: prometheus::Registry::new(),
        };
        let bound = build(config, deps).await.unwrap();
        let address = bound.address();
        let stop = CancellationToken::new();
        let running = tokio::spawn(bound.run(stop.clone()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            address,
            ground,
            stop,
            running,
            client,
        }
    }

    /// Stops as a signal would; what it leaves behind can be started on again.
    pub async fn stop(self) -> Ground {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap();
        self.ground
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.post_with(body, &[]).await
    }

    pub async fn post_with(&self, body: &Value, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.post(self.url("/orchestrate"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_string()).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// The id of a task that was accepted.
    pub async fn submit(&self, body: &Value) -> String {
        let response = self.post(body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        answer["task_id"].as_str().unwrap().to_owned()
    }

    /// The task, once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.until(&format!("/task/{id}"), |task| {
            ["completed", "failed", "cancelled"].contains(&task["status"].as_str().unwrap())
        })
        .await
    }

    /// The JSON at `path`, once `wanted` holds for it.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let value: Value = self.get(path).await.json().await.unwrap();
                if wanted(&value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the wanted state never came")
    }

    /// A metric's line, once it has that value.
    pub async fn metric(&self, line: &str) {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let text = self.get("/metrics").await.text().await.unwrap();
                if text.lines().any(|l| l == line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never: {line}"));
    }

    /// An agent whose sidecar answers each step with what `answer` says; `None` is silence.
    /// Returns the steps that it was given, with the message's properties.
    pub async fn agent(
        &self,
        id: &str,
        answer: impl Fn(&StepTask) -> Option<Outcome> + Send + Sync + 'static,
    ) -> Given {
        agent_on(self.ground.bus.clone(), id, answer).await
    }

    pub async fn publish_result(&self, result: &StepResult) {
        publish_result(&*self.ground.bus, serde_json::to_vec(result).unwrap()).await;
    }
}

pub type Given = Arc<Mutex<Vec<(StepTask, mesh_bus::Properties)>>>;

pub fn mesh_agents() -> Vec<String> {
    config()
        .agents
        .into_iter()
        .map(|a: Agent| a.id.to_string())
        .collect()
}

pub fn answer_well(step: &StepTask) -> Option<Outcome> {
    Some(Outcome::Completed {
        result: json!({"done": step.action, "by": step.agent, "incoming": step.incoming_data}),
    })
}

pub fn answer_badly(_step: &StepTask) -> Option<Outcome> {
    Some(Outcome::Failed {
        error: StepError::new("agent_status", "the agent answered 500"),
    })
}

pub fn silence(_step: &StepTask) -> Option<Outcome> {
    None
}

pub fn result_of(step: &StepTask, outcome: Outcome) -> StepResult {
    StepResult {
        task_id: step.task_id.clone(),
        step_id: step.step_id.clone(),
        agent: step.agent.clone(),
        outcome,
        attempts: 1,
        started_at: Timestamp::now(),
        finished_at: Timestamp::now(),
    }
}

pub async fn publish_result(bus: &dyn Bus, body: Vec<u8>) {
    bus.publish(result_message(body)).await.unwrap();
}

pub fn result_message(body: Vec<u8>) -> Message {
    Message {
        exchange: EXCHANGE_COORDINATION.to_owned(),
        routing_key: ORCHESTRATOR.to_owned(),
        body: body.into(),
        mandatory: true,
        ..Message::default()
    }
}

async fn agent_on(
    bus: Arc<MemoryBus>,
    id: &str,
    answer: impl Fn(&StepTask) -> Option<Outcome> + Send + Sync + 'static,
) -> Given {
    let id: AgentId = id.parse().unwrap();
    let kind = mesh_bus::QueueKind::default();
    bus.declare(&Topology::exchanges().with_agent(&id, kind))
        .await
        .unwrap();
    let mut deliveries = bus.consume(&id.task_queue(), 100).await.unwrap();
    let given = Given::default();
    let log = Arc::clone(&given);
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.next().await {
            let step = StepTask::from_json(&delivery.message.body, &id).unwrap();
            log.lock()
                .unwrap()
                .push((step.clone(), delivery.message.properties.clone()));
            if let Some(outcome) = answer(&step) {
                let result = result_of(&step, outcome);
                publish_result(&*bus, serde_json::to_vec(&result).unwrap()).await;
            }
            delivery.ack().await.unwrap();
        }
    });
    given
}
