//! The checked mesh. Everything beyond `compile` sees this and never the raw file.

use crate::broker::Broker;
use crate::container::Container;
use crate::deploy::Deploy;
use crate::filters::Filters;
use crate::fronted::{Extras, Service};
use crate::secret::Source;
use crate::telemetry::Telemetry;
use crate::trust::{Consul, IdentitySource, Sidecar, Trust};
use mesh_bus::QueueKind;
use mesh_orchestrator::config::{Limits, Ollama, OnFailure};
use mesh_orchestrator::resources::Amounts;
use mesh_policy::config::{Algorithm, JwksUrl};
use mesh_protocol::AgentId;
use mesh_sidecar::config::{Delivery, Health, Settings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// Directory beside mesh.yaml that holds a development mesh's keys.
pub const KEYS_DIR: &str = ".mesh";
/// File of the key that signs development tokens.
pub const TOKEN_KEY: &str = ".mesh/token.key";
/// File of the key that signs a development gateway's assertions.
pub const ASSERTION_KEY: &str = ".mesh/assertion.key";
/// `iss` of the tokens that `mesh token` writes.
pub const DEVELOPMENT_ISSUER: &str = "urn:agent-mesh:development";
/// Name of the key that signs development tokens.
pub const DEVELOPMENT_KID: &str = "development";
/// Name of a gateway and of its assertion key.
pub const GATEWAY: &str = "gateway";

/// A mesh that can be rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// Name; also the audience of tokens and assertions.
    pub name: String,
    /// First 16 hexadecimal digits of the SHA-256 of mesh.yaml.
    pub revision: String,
    /// Where clients come in.
    pub gateway: Gateway,
    /// What plans and runs tasks.
    pub orchestrator: Orchestrator,
    /// How steps travel.
    pub messaging: Messaging,
    /// Where runs are kept.
    pub store: Store,
    /// Who is who, and who may call whom.
    pub trust: Trust,
    /// How it lies in containers.
    pub deploy: Deploy,
    /// What Prometheus and Grafana are told.
    pub telemetry: Telemetry,
    /// Who does the work; ids are unique. None in a mesh that is a gateway before services and no more.
    pub agents: Vec<Agent>,
    /// What the mesh fronts or leans on; names are unique.
    pub services: Vec<Service>,
}

/// Where clients come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Where it listens; loopback when `auth` is [`Auth::Development`].
    pub listen: SocketAddr,
    /// Who may come in.
    pub auth: Auth,
    /// The key that signs assertions.
    pub assertion_key: Source,
    /// How long an assertion is valid.
    pub assertion_lifetime: Duration,
    /// What leads where; names are unique.
    pub routes: Vec<Route>,
    /// The sidecar beside it: its outbound listener is where every route leads.
    pub sidecar: Sidecar,
    /// What its filters do, where a route does not say otherwise.
    pub filters: Filters,
    /// Base URL of Kong's admin API, where a Kong is the gateway.
    pub admin: Option<Url>,
    /// Directory of the filters' modules on the machine or in the container of a Kong.
    pub filters_path: String,
    /// What it has beside the mesh's own routes.
    pub extras: Extras,
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// Whoever holds a token of `mesh token`.
    Development,
    /// Whoever holds a token of one of these.
    Issuers(Vec<Issuer>),
}

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// Accepted `aud`.
    pub audiences: Vec<String>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// Where more of its keys are fetched.
    pub jwks_url: Option<JwksUrl>,
}

/// One key of an issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// The one algorithm it verifies.
    pub algorithm: Algorithm,
    /// The secret (HS256) or the public key as PEM (others).
    pub source: Source,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Destination {
    /// To the orchestrator.
    #[default]
    Orchestrator,
    /// To the agent that the filter agent_router chooses.
    Agents,
}

impl Destination {
    /// Names in mesh.yaml.
    pub const ALL: [(&'static str, Self); 2] = [
        ("orchestrator", Self::Orchestrator),
        ("agents", Self::Agents),
    ];
}

/// One way through the gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name.
    pub name: String,
    /// Prefixes of the path.
    pub paths: Vec<String>,
    /// Methods; all when empty.
    pub methods: Vec<String>,
    /// Whether the prefix is taken off.
    pub strip_path: bool,
    /// Where it leads.
    pub to: Destination,
    /// What the filters do here otherwise than in the gateway.
    pub filters: Filters,
}

/// What plans and runs tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Orchestrator {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The sidecar beside it.
    pub sidecar: Sidecar,
    /// How much there is of what steps share.
    pub resources: Amounts,
    /// Task type to agents.
    pub rules: BTreeMap<String, Vec<String>>,
    /// Takes what nothing else covers.
    pub general_agent: Option<AgentId>,
    /// The model that is asked first.
    pub ollama: Option<Ollama>,
    /// Most steps of a plan.
    pub max_steps: usize,
    /// Most steps of a plan at the same time.
    pub max_width: usize,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// Time budget of a step.
    pub step_timeout: Duration,
    /// What a failed step does to its task.
    pub on_failure: OnFailure,
}

/// How steps travel.
#[derive(Debug, Clone, PartialEq)]
pub struct Messaging {
    /// URL of RabbitMQ; within the process when there is none.
    pub rabbitmq: Option<Source>,
    /// How queues are declared, but for those of agents that say otherwise.
    pub queue_kind: QueueKind,
    /// Most messages that wait in an agent's queue, where it is bounded.
    pub max_length: Option<u32>,
    /// How long the broker waits for an acknowledgement.
    pub consumer_timeout: Duration,
    /// Directory, relative to mesh.yaml, in which sidecars keep what agents answered.
    pub state_dir: Option<String>,
    /// The broker itself.
    pub broker: Broker,
}

/// Where runs are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// URL of Redis; within the process when there is none.
    pub redis: Option<Source>,
    /// How long a finished task can be asked for.
    pub retention: Duration,
}

/// One agent and its sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Name.
    pub id: AgentId,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// For planners and people.
    pub description: String,
    /// Base URL; a builtin without one gets a free port.
    pub endpoint: Option<Url>,
    /// How `mesh up` starts it; it runs elsewhere when absent.
    pub run: Option<Run>,
    /// Most steps at the agent at the same time.
    pub concurrency: u16,
    /// Time limit of one call.
    pub timeout: Duration,
    /// Most calls for one step.
    pub attempts: u32,
    /// Pause before the second call.
    pub pause: Duration,
    /// How its queue is declared.
    pub queue_kind: QueueKind,
    /// What becomes of a step whose calls all failed.
    pub delivery: Delivery,
    /// The sidecar beside it.
    pub sidecar: Sidecar,
    /// How its health is found out.
    pub health: Health,
    /// How it is called.
    pub traffic: Settings,
    /// What one of its steps takes.
    pub resources: Amounts,
    /// What holds it where it runs in a container.
    pub container: Option<Container>,
}

/// How `mesh up` starts an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// One of the project's own agents, in the same process.
    Builtin(Builtin),
    /// A child process, in a directory relative to mesh.yaml.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Working directory.
        dir: Option<String>,
    },
}

/// The project's own agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// Reads the machine's load and says what to change.
    HardwareOptimizer,
    /// Grants leases on the machine's capacity.
    ResourceArbitrator,
    /// Column statistics of CSV and JSON.
    DataProcessor,
    /// Answers whatever no other agent covers.
    GeneralAgent,
}

impl Builtin {
    /// Names in mesh.yaml.
    pub const ALL: [(&'static str, Self); 4] = [
        ("hardware-optimizer", Self::HardwareOptimizer),
        ("resource-arbitrator", Self::ResourceArbitrator),
        ("data-processor", Self::DataProcessor),
        ("general-agent", Self::GeneralAgent),
    ];
}

/// What the environment changes about a mesh.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `RABBITMQ_URL`: steps travel through this broker.
    pub rabbitmq_url: Option<String>,
    /// `REDIS_URL`: runs are kept there.
    pub redis_url: Option<String>,
    /// `OLLAMA_URL`: a model plans.
    pub ollama_url: Option<String>,
    /// `OLLAMA_MODEL`: the model that is asked, where mesh.yaml names none.
    pub ollama_model: Option<String>,
    /// `PORT`: port of the orchestrator.
    pub port: Option<String>,
    /// `CONSUL_URL`: services are found there.
    pub consul_url: Option<String>,
}

impl Overrides {
    /// Reads the variables that the plan's own installation uses; an empty one counts as unset.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| environment(name).filter(|v| !v.trim().is_empty());
        Self {
            rabbitmq_url: get("RABBITMQ_URL"),
            redis_url: get("REDIS_URL"),
            ollama_url: get("OLLAMA_URL"),
            ollama_model: get("OLLAMA_MODEL"),
            port: get("PORT"),
            consul_url: get("CONSUL_URL"),
        }
    }
}

/// A variable of the environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment: {variable} is {problem}")]
pub struct OverrideError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong; without the value.
    pub problem: &'static str,
}

impl Mesh {
    /// Applies what the environment says; it wins over the file.
    ///
    /// # Errors
    /// The first variable that cannot be used.
    pub fn apply(&mut self, overrides: &Overrides) -> Result<(), OverrideError> {
        let refuse = |variable, problem| OverrideError { variable, problem };
        if let Some(url) = &overrides.rabbitmq_url {
            if mesh_bus::BrokerUrl::try_from(url.clone()).is_err() {
                return Err(refuse("RABBITMQ_URL", "no amqp:// or amqps:// URL"));
            }
            self.messaging.rabbitmq = Some(Source::Env("RABBITMQ_URL".to_owned()));
        }
        if let Some(url) = &overrides.redis_url {
            if mesh_orchestrator::config::StoreUrl::try_from(url.clone()).is_err() {
                return Err(refuse("REDIS_URL", "no redis:// or rediss:// URL"));
            }
            self.store.redis = Some(Source::Env("REDIS_URL".to_owned()));
        }
        if let Some(text) = &overrides.ollama_url {
            let url = Url::parse(text)
                .ok()
                .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
                .ok_or_else(|| refuse("OLLAMA_URL", "no http:// or https:// URL"))?;
            if crate::schema::values::bare(&url).is_err() {
                let problem = "a URL with more than scheme, host, port and path: it is written into files that anyone may read, so it must hold no user, password, query or fragment";
                return Err(refuse("OLLAMA_URL", problem));
            }
            let url = url.as_str().trim_end_matches('/').to_owned();
            // The plan's own default.
            let ollama = self
                .orchestrator
                .ollama
                .get_or_insert_with(|| Ollama::new(url.clone(), "tinyllama"));
            ollama.url = url;
        }
        if let (Some(model), Some(ollama)) =
            (&overrides.ollama_model, &mut self.orchestrator.ollama)
        {
            ollama.model.clone_from(model);
        }
        if let Some(text) = &overrides.consul_url {
            let url = Url::parse(text)
                .ok()
                .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
                .filter(|u| crate::schema::values::bare(u).is_ok())
                .ok_or_else(|| refuse("CONSUL_URL", "no http:// or https:// URL without more"))?;
            let consul = self.trust.registry.consul.get_or_insert_with(|| Consul {
                url: url.clone(),
                token: None,
                ca: None,
            });
            consul.url = url;
        }
        if let Some(port) = &overrides.port {
            let port = port
                .trim()
                .parse()
                .map_err(|_| refuse("PORT", "no port number"))?;
            self.orchestrator.listen.set_port(port);
        }
        Ok(())
    }

    /// Every value that renderers need and that is not in the open, with its field.
    pub fn sources(&self) -> Vec<(String, &Source)> {
        let mut all = vec![(
            "gateway.assertion.key".to_owned(),
            &self.gateway.assertion_key,
        )];
        if let Auth::Issuers(issuers) = &self.gateway.auth {
            for (i, issuer) in issuers.iter().enumerate() {
                for (k, key) in issuer.keys.iter().enumerate() {
                    let path = format!("gateway.auth.issuers[{i}].keys[{k}]");
                    all.push((path, &key.source));
                }
            }
        }
        let rabbitmq = self.messaging.rabbitmq.iter();
        all.extend(rabbitmq.map(|s| ("messaging.url".to_owned(), s)));
        let management = self.messaging.broker.management.iter();
        let management = management.filter_map(|m| m.credentials.as_ref());
        all.extend(management.map(|s| ("messaging.management.credentials".to_owned(), s)));
        let redis = self.store.redis.iter();
        all.extend(redis.map(|s| ("store.url".to_owned(), s)));
        let consul = self.trust.registry.consul.iter();
        let consul = consul.filter_map(|consul| consul.token.as_ref());
        all.extend(consul.map(|s| ("registry.token".to_owned(), s)));
        if let IdentitySource::Vault { token, .. } = &self.trust.identity.source {
            all.push(("identity.token".to_owned(), token));
        }
        let extras = &self.gateway.extras;
        all.extend(extras.secrets.iter().map(|(path, s)| (path.clone(), s)));
        for (number, certificate) in extras
            .tls
            .iter()
            .flat_map(|t| t.certificates.iter().enumerate())
        {
            let path = format!("gateway.tls.certificates[{number}]");
            all.push((format!("{path}.cert"), &certificate.cert));
            all.push((format!("{path}.key"), &certificate.key));
        }
        all
    }

    /// What containers beside the mesh's own parts need of secrets, with its field.
    pub fn container_sources(&self) -> Vec<(String, &Source)> {
        let named = |name: &str, secrets: &'_ BTreeMap<String, Source>| -> Vec<String> {
            secrets
                .keys()
                .map(|key| format!("secrets.{key} of {name}"))
                .collect()
        };
        let parts = self
            .deploy
            .parts
            .values()
            .map(|part| (part.name.as_str(), &part.secrets));
        let agents = self
            .agents
            .iter()
            .filter_map(|agent| Some((agent.id.as_str(), &agent.container.as_ref()?.secrets)));
        let services = self.services.iter().filter_map(|service| {
            Some((service.name.as_str(), &service.container.as_ref()?.secrets))
        });
        let all = parts.chain(agents).chain(services);
        all.flat_map(|(name, secrets)| named(name, secrets).into_iter().zip(secrets.values()))
            .collect()
    }

    /// Whether there is an orchestrator: agents to hand tasks to, or a way that leads to it.
    pub fn has_orchestrator(&self) -> bool {
        !self.agents.is_empty() || !self.gateway.routes.is_empty()
    }

    /// The agent of this name.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == *id)
    }
}
