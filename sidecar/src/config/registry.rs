//! Where services are found, and what is said there of this one.

use super::Faults;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where services are found, and what is said there of this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Consul; within the process when there is none. `CONSUL_URL` in the environment overrides its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul: Option<Consul>,
    /// What is said of this service.
    pub registration: Registration,
}

/// The agent of Consul on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consul {
    /// Base URL, such as `http://127.0.0.1:8500`.
    pub url: String,
    /// ACL token. `CONSUL_HTTP_TOKEN` in the environment overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// PEM of the authorities that signed Consul's certificate; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Longest wait of a blocking query, in milliseconds.
    #[serde(default = "wait_ms")]
    pub wait_ms: u64,
    /// Time limit of any other request, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn wait_ms() -> u64 {
    60_000
}

fn timeout_ms() -> u64 {
    5_000
}

/// What is said of this service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registration {
    /// Distinguishes instances of one service; made of its name and address when absent.
    pub id: Option<String>,
    /// Where others find it, when it listens on every address of its machine. `MESH_ADVERTISE` in the
    /// environment overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Advertised>,
    /// Tags.
    pub tags: Vec<String>,
    /// What the agent can do; in the meta as `capabilities`, separated by commas.
    pub capabilities: Vec<String>,
    /// Its version; in the meta as `version`.
    pub version: Option<String>,
    /// Further meta.
    pub meta: BTreeMap<String, String>,
    /// Its share of requests, against those of the others.
    pub weight: u16,
    /// Without a word for this long it counts as gone, in milliseconds.
    pub ttl_ms: u64,
    /// Gone for this long it is forgotten, in milliseconds.
    pub forget_after_ms: u64,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            id: None,
            address: None,
            tags: Vec::new(),
            capabilities: Vec::new(),
            version: None,
            meta: BTreeMap::new(),
            weight: 1,
            ttl_ms: 6_000,
            // Consul's least.
            forget_after_ms: 60_000,
        }
    }
}

/// An address that is known, or that is found out at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Advertised {
    /// From where this machine reaches Consul: who comes from there is found there. A container learns its
    /// address no other way.
    Auto,
    /// This one.
    Address(IpAddr),
}

impl TryFrom<String> for Advertised {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() => Ok(Self::Address(address)),
            _ => Err("neither `auto` nor an address that peers can connect to"),
        }
    }
}

impl From<Advertised> for String {
    fn from(advertised: Advertised) -> Self {
        match advertised {
            Advertised::Auto => "auto".to_owned(),
            Advertised::Address(address) => address.to_string(),
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Registry {
    /// How Consul is reached, where it is the registry.
    pub fn consul(&self) -> Option<&Consul> {
        self.consul.as_ref()
    }

    pub(super) fn consul_mut(&mut self) -> Option<&mut Consul> {
        self.consul.as_mut()
    }

    /// Makes Consul at `url` the registry, with what else is configured of it.
    pub(super) fn use_consul_at(&mut self, url: String) {
        match &mut self.consul {
            Some(consul) => consul.url = url,
            None => self.consul = Some(Consul::at(url)),
        }
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        let registration = &self.registration;
        faults.some("registry.registration.weight", registration.weight.into());
        faults.millis("registry.registration.ttl_ms", registration.ttl_ms, false);
        if registration.ttl_ms < 1_000 {
            faults.push("registry.registration.ttl_ms must be at least 1000");
        }
        faults.millis(
            "registry.registration.forget_after_ms",
            registration.forget_after_ms,
            false,
        );
        let Some(consul) = &self.consul else { return };
        registration.check_meta(faults);
        let url = url::Url::parse(&consul.url);
        let good = url.is_ok_and(|u| {
            matches!(u.scheme(), "http" | "https")
                && u.has_host()
                && u.username().is_empty()
                && u.password().is_none()
                && u.query().is_none()
        });
        if !good {
            faults.push(
                "registry.consul.url must be an http:// or https:// URL without credentials and query, such as http://127.0.0.1:8500",
            );
        }
        if consul.token.is_some() && consul.token_file.is_some() {
            faults.push("registry.consul has both token and token_file: give one");
        }
        faults.millis("registry.consul.wait_ms", consul.wait_ms, false);
        faults.millis("registry.consul.timeout_ms", consul.timeout_ms, false);
    }
}

/// What Consul takes as a service's meta (its `agent/structs/structs.go`); what is beyond it refuses the whole service.
const MAX_META: usize = 64;
const MAX_META_KEY: usize = 128;
const MAX_META_VALUE: usize = 512;
/// Meta that a sidecar adds itself.
const OWN_META: usize = 4;

impl Registration {
    fn check_meta(&self, faults: &mut Faults) {
        const AT: &str = "registry.registration";
        if self.meta.len() > MAX_META - OWN_META {
            let most = MAX_META - OWN_META;
            faults.push(format!("{AT}.meta may have at most {most} entries"));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        for (key, value) in &self.meta {
            let good = (1..=MAX_META_KEY).contains(&key.len())
                && key.bytes().all(legal)
                && !key.starts_with("consul-");
            if !good {
                faults.push(format!(
                    "{AT}.meta: `{key}` must be 1 to {MAX_META_KEY} letters, digits, `-` and `_`, and not begin with consul-"
                ));
            }
            if value.len() > MAX_META_VALUE {
                faults.push(format!(
                    "{AT}.meta.{key} may be at most {MAX_META_VALUE} bytes long"
                ));
            }
        }
        let capabilities = self.capabilities.join(",").len();
        if capabilities > MAX_META_VALUE {
            faults.push(format!(
                "{AT}.capabilities are {capabilities} bytes long with commas between them, and Consul takes {MAX_META_VALUE}"
            ));
        }
        if self
            .version
            .as_ref()
            .is_some_and(|v| v.len() > MAX_META_VALUE)
        {
            faults.push(format!(
                "{AT}.version may be at most {MAX_META_VALUE} bytes long"
            ));
        }
    }
}

impl Consul {
    /// Consul at `url`, with the usual patience.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            token_file: None,
            ca_file: None,
            wait_ms: wait_ms(),
            timeout_ms: timeout_ms(),
        }
    }
}
