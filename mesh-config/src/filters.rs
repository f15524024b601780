//! The filters' configurations: what mesh.yaml says, completed with what the mesh knows.
//!
//! An operator writes what is theirs to decide. Keys, addresses, tokens and the list of agents follow from
//! the rest of mesh.yaml and are put in here, the same way for the check (with stand-ins) and for the
//! rendering (with the real ones), so that a configuration which passed the check runs.

use mesh_policy::config::{AgentRouter, JwtAuth, RateLimit, TaskAdmission};
use mesh_policy::{ConfigError, Filter};
use mesh_protocol::names::ORCHESTRATOR;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What mesh.yaml says of each filter; none where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// `jwt_auth`, beside `gateway.auth`.
    pub jwt_auth: Setting,
    /// `rate_limit`.
    pub rate_limit: Setting,
    /// `task_admission`.
    pub task_admission: Setting,
    /// `agent_router`.
    pub agent_router: Setting,
}

/// What mesh.yaml says of one filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Setting {
    /// Nothing.
    #[default]
    Unsaid,
    /// That it does not run.
    Off,
    /// Its configuration, without what the mesh knows.
    On(Map<String, Value>),
}

impl Setting {
    /// What a route says over what the gateway says: field by field, or that the filter does not run.
    #[must_use]
    pub fn over(&self, outer: &Self) -> Self {
        match (self, outer) {
            (Self::Unsaid, outer) => outer.clone(),
            (Self::Off, _) => Self::Off,
            (Self::On(inner), Self::On(outer)) => {
                let mut all = outer.clone();
                all.extend(inner.clone());
                Self::On(all)
            }
            (Self::On(inner), _) => Self::On(inner.clone()),
        }
    }
}

impl Filters {
    /// What a route says over what the gateway says.
    #[must_use]
    pub fn over(&self, outer: &Self) -> Self {
        Self {
            jwt_auth: self.jwt_auth.over(&outer.jwt_auth),
            rate_limit: self.rate_limit.over(&outer.rate_limit),
            task_admission: self.task_admission.over(&outer.task_admission),
            agent_router: self.agent_router.over(&outer.agent_router),
        }
    }
}

/// What the mesh knows and filters need.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub revision: String,
    /// `issuers` and `assertion` of jwt_auth.
    pub issuers: Value,
    pub assertion: Value,
    /// `table_key` of rate_limit.
    pub table_key: String,
    /// Outbound listener of the sidecar beside the gateway, and the token of the orchestrator's inner paths.
    pub sidecar: String,
    pub token: String,
    /// `agents` of agent_router.
    pub agents: Value,
    /// Longest body that the orchestrator takes, in bytes.
    pub max_body: u64,
}

impl Known {
    /// Stand-ins of the right form, for checks.
    pub fn stand_in(agents: Value) -> Self {
        const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self {
            revision: "check".to_owned(),
            issuers: json!([{
                "issuer": "check",
                "audiences": ["check"],
                "keys": [{"algorithm": "HS256", "secret": KEY}],
            }]),
            assertion: json!({
                "issuer": "gateway", "audience": "check", "kid": "check", "signing_key": KEY,
            }),
            table_key: KEY.to_owned(),
            sidecar: "127.0.0.1:1".to_owned(),
            token: "check".to_owned(),
            agents,
            max_body: 1 << 20,
        }
    }

    /// `said`, with what is known of `jwt_auth`.
    pub fn jwt_auth(&self, said: &Map<String, Value>) -> Result<JwtAuth, Vec<ConfigError>> {
        let mut whole = Whole::of(said);
        whole.put("issuers", self.issuers.clone());
        whole.put("assertion", self.assertion.clone());
        whole.read(&self.revision)
    }

    /// `said`, with what is known of `rate_limit`.
    pub fn rate_limit(&self, said: &Map<String, Value>) -> Result<RateLimit, Vec<ConfigError>> {
        let mut whole = Whole::of(said);
        whole.put("table_key", self.table_key.clone().into());
        let limits = said.get("limits").and_then(Value::as_array);
        let shared = limits.is_some_and(|limits| {
            limits
                .iter()
                .any(|limit| limit.get("shared") == Some(&Value::Bool(true)))
        });
        if shared && !said.contains_key("exchange") {
            whole.put("exchange", json!({}));
        }
        whole.reach("exchange", self);
        whole.read(&self.revision)
    }

    /// `said`, with what is known of `task_admission`.
    pub fn task_admission(
        &self,
        said: &Map<String, Value>,
    ) -> Result<TaskAdmission, Vec<ConfigError>> {
        let mut whole = Whole::of(said);
        if !said.contains_key("max_body_bytes") {
            whole.put("max_body_bytes", self.max_body.into());
        }
        whole.reach("load", self);
        whole.read(&self.revision)
    }

    /// `said`, with what is known of `agent_router`.
    pub fn agent_router(&self, said: &Map<String, Value>) -> Result<AgentRouter, Vec<ConfigError>> {
        let mut whole = Whole::of(said);
        whole.put("agents", self.agents.clone());
        whole.reach("load", self);
        whole.read(&self.revision)
    }
}

/// A configuration that is being completed.
struct Whole {
    config: Map<String, Value>,
    faults: Vec<ConfigError>,
}

impl Whole {
    fn of(said: &Map<String, Value>) -> Self {
        Self {
            config: said.clone(),
            faults: Vec::new(),
        }
    }

    fn put(&mut self, name: &str, value: Value) {
        put(&mut self.config, "", name, value, &mut self.faults);
    }

    /// Says where the orchestrator is, in the object `name`, if that is there.
    fn reach(&mut self, name: &str, known: &Known) {
        if let Some(Value::Object(object)) = self.config.get_mut(name) {
            let authority = known.sidecar.clone().into();
            put(object, name, "authority", authority, &mut self.faults);
            // By which the sidecar finds it.
            put(object, name, "host", ORCHESTRATOR.into(), &mut self.faults);
            let token = known.token.clone().into();
            put(object, name, "token", token, &mut self.faults);
        }
    }

    fn read<T: DeserializeOwned>(mut self, revision: &str) -> Result<T, Vec<ConfigError>> {
        self.put("revision", revision.into());
        let read = serde_path_to_error::deserialize(Value::Object(self.config));
        match read {
            Ok(config) if self.faults.is_empty() => Ok(config),
            Ok(_) => Err(self.faults),
            Err(error) => {
                let path = error.path().to_string();
                let what = said(&error.into_inner().to_string());
                self.faults.push(ConfigError::new(path, what));
                Err(self.faults)
            }
        }
    }
}

/// Puts in what is known; what mesh.yaml says about it cannot be meant.
fn put(
    object: &mut Map<String, Value>,
    within: &str,
    name: &str,
    value: Value,
    faults: &mut Vec<ConfigError>,
) {
    if object.insert(name.to_owned(), value).is_some() {
        let path = crate::schema::reader::join(within, name);
        let what = "follows from the rest of the file: leave it out";
        faults.push(ConfigError::new(path, what));
    }
}

/// What serde said, without the value that it quotes.
pub(crate) fn said(text: &str) -> String {
    if text.starts_with("missing field") {
        return text.to_owned();
    }
    if let Some((_, known)) = text.split_once(", expected one of ") {
        return format!("is not known; known are {known}");
    }
    if let Some((_, known)) = text.split_once(", expected ") {
        return format!("must be {known}");
    }
    "has the wrong form".to_owned()
}

/// Every fault of a configuration that mesh.yaml holds for the filter `F`.
pub(crate) fn faults<F: Filter>(config: Result<F::Config, Vec<ConfigError>>) -> Vec<ConfigError> {
    match config {
        Ok(config) => F::compile(&config).err().unwrap_or_default(),
        Err(faults) => faults,
    }
}
