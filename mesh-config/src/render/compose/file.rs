//! docker-compose.yml as Compose reads it: what we write of the Compose specification.
//!
//! Compose v2 and docker-compose 1.29 both take it; neither wants a `version`, and 1.29 refuses a `name`.

use crate::render::RenderError;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ComposeFile {
    /// Containers.
    pub services: BTreeMap<String, Service>,
    /// Networks.
    pub networks: BTreeMap<String, Network>,
    /// Named volumes.
    pub volumes: BTreeMap<String, Volume>,
    /// Files that are mounted under `/run/secrets`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretFile>,
    /// What mesh.yaml says in Compose's own words, by service; it goes over the rest.
    #[serde(skip)]
    pub own_words: BTreeMap<String, Map<String, Value>>,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Service {
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What it is built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Name of its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What is run instead of the image's own program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// What is run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// User and group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// `ADDRESS:HOST:CONTAINER[/udp]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Networks, with the names it has there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Names>,
    /// `service:NAME` shares that one's network, loopback among it; `none` has no network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Whom it waits for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Wait>,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Directories in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether its own files cannot be changed.
    pub read_only: bool,
    /// Capabilities that it has not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Capabilities that it has nevertheless.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// `no-new-privileges`.
    pub security_opt: Vec<String>,
    /// A process that reaps others.
    pub init: bool,
    /// What is done when it ends.
    pub restart: String,
    /// Time from SIGTERM to SIGKILL.
    pub stop_grace_period: String,
    /// Most memory, with its unit.
    pub mem_limit: String,
    /// Most processors.
    pub cpus: f64,
    /// Most processes.
    pub pids_limit: u32,
    /// Where its output goes.
    pub logging: Logging,
}

/// What an image is built from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Directory.
    pub context: String,
    /// File in it.
    pub dockerfile: String,
    /// Stage of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// How a container is known in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Names besides that of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// What another container must have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "condition", rename_all = "snake_case")]
pub enum Wait {
    /// It runs.
    ServiceStarted,
    /// Its health check passed.
    ServiceHealthy,
    /// It did what it was for.
    ServiceCompletedSuccessfully,
}

/// A secret as one container sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretUse {
    /// Which.
    pub source: String,
    /// Whole path of the file.
    pub target: String,
}

/// How a container is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// How often.
    pub interval: String,
    /// How long at most.
    pub timeout: String,
    /// So many failures are one.
    pub retries: u32,
    /// Failures before this are none.
    pub start_period: String,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// Who keeps it.
    pub driver: String,
    /// How much of it.
    pub options: BTreeMap<String, String>,
}

impl Default for Logging {
    /// At most 30 MB for each container: an unbounded log fills the disk that the broker lives on.
    fn default() -> Self {
        let options = [("max-file", "3"), ("max-size", "10m")];
        Self {
            driver: "json-file".to_owned(),
            options: options
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }
}

/// One network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// No way out of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// It is there already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Its name, where it is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One volume, as Docker keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Volume {}

/// A secret's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretFile {
    /// Path beside this file.
    pub file: String,
}

/// Bounds of `deploy.resources.limits`, each with the word that the mesh has for it.
const BOUNDS: [(&str, &str); 3] = [
    ("memory", "mem_limit"),
    ("cpus", "cpus"),
    ("pids", "pids_limit"),
];

impl ComposeFile {
    /// Renders it as YAML.
    ///
    /// # Errors
    /// [`RenderError::Write`] for a value that YAML cannot hold.
    pub fn to_yaml(&self) -> Result<String, RenderError> {
        const PART: &str = "docker-compose.yml";
        let failed = |error: serde_json::Error| RenderError::Write {
            part: PART,
            detail: error.to_string(),
        };
        let mut file = serde_json::to_value(self).map_err(failed)?;
        for (name, words) in &self.own_words {
            if let Some(Value::Object(service)) = file.pointer_mut(&format!("/services/{name}")) {
                // Compose refuses a bound that is said in both ways and not the same.
                for (within, usual) in BOUNDS {
                    let limits = words
                        .get("deploy")
                        .and_then(|d| d.pointer("/resources/limits"));
                    if limits.is_some_and(|limits| limits.get(within).is_some()) {
                        service.remove(usual);
                    }
                }
                service.extend(words.clone());
            }
        }
        crate::render::yaml(PART, &file)
    }
}
