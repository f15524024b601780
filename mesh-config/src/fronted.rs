//! The checked side of `services:` and of what the gateway has beside the mesh's own routes.
//!
//! What Kong reads is held in Kong's own types, so that nothing it can say is lost between mesh.yaml and
//! kong.yml. A secret in it stays a reference, `{"env": "NAME"}` or `{"file": "PATH"}`, until it is rendered.

use crate::container::Container;
use crate::secret::{Source, Vault};
use mesh_declarative::{Plugin, Upstream};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Kong's port for clients that speak TLS, where mesh.yaml names none.
pub const TLS_PORT: u16 = 8443;

/// A service that the mesh fronts or leans on, and does not run as an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Where others reach it: http, https, grpc, grpcs or tcp, always with a host.
    pub url: Option<Url>,
    /// Its id in Consul.
    pub id: String,
    /// Its tags in Consul.
    pub tags: Vec<String>,
    /// How Consul finds out its health.
    pub check: Option<Check>,
    /// What the gateway has of it; none when the gateway does not know it. Its plugins may hold references.
    pub gateway: Option<mesh_declarative::Service>,
    /// What Prometheus reads of it.
    pub metrics: Option<Metrics>,
    /// How it is run as a container.
    pub container: Option<Container>,
}

impl Service {
    /// The host of its URL; the name of its container where it has no URL.
    pub fn host(&self) -> &str {
        self.url
            .as_ref()
            .and_then(Url::host_str)
            .unwrap_or(&self.name)
    }

    /// The port of its URL, or that of the URL's scheme.
    pub fn port(&self) -> Option<u16> {
        let url = self.url.as_ref()?;
        url.port_or_known_default().or(match url.scheme() {
            "grpc" => Some(80),
            "grpcs" => Some(443),
            _ => None,
        })
    }
}

/// How Consul finds out a service's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub ask: Ask,
    /// Time between two questions.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A GET of this URL; 2xx is healthy.
    Http(Url),
    /// A connection to `HOST:PORT`.
    Tcp(String),
}

/// One target of a Prometheus job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The job; services may share one.
    pub job: String,
    /// The path.
    pub path: String,
    /// The port; that of the service's URL when none.
    pub port: Option<u16>,
    /// `http` or `https`.
    pub scheme: String,
    /// Arguments of the question.
    pub params: BTreeMap<String, Vec<String>>,
    /// Time between two questions; Prometheus' own when none.
    pub interval: Option<Duration>,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificates, by the names that clients ask for.
    pub certificates: Vec<Certificate>,
}

/// One certificate with its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// The names that it is for.
    pub snis: Vec<String>,
    /// The certificate, PEM.
    pub cert: Source,
    /// Its private key, PEM; never inline.
    pub key: Source,
    /// Kong's tags.
    pub tags: Vec<String>,
}

/// What stands in the gateway beside the mesh's own routes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras {
    /// Kong's plugins of every route; their configurations may hold references.
    pub plugins: Vec<Plugin>,
    /// Pools of targets.
    pub upstreams: Vec<Upstream>,
    /// TLS towards clients.
    pub tls: Option<Tls>,
    /// Every secret that plugins stand on, those of services among them, with its field.
    pub secrets: Vec<(String, Source)>,
    /// Where secrets of `{vault: ...}` among them are, as far as mesh.yaml says.
    pub vault: Option<Arc<Vault>>,
}

impl Extras {
    /// The secret that a value of a plugin's configuration stands for, with where it is.
    pub fn reference(&self, value: &Value) -> Option<Source> {
        match reference(value)? {
            Source::Vault { path, field, .. } => Some(Source::Vault {
                path,
                field,
                server: self.vault.clone(),
            }),
            source => Some(source),
        }
    }
}

/// The secret that a value of a plugin's configuration stands for.
///
/// A mapping with the one key `file`, or with the one key `env` and a name in upper case: Kong's own
/// configurations have mappings with a key `env` (attributes of a trace), whose values are words. Or one with
/// the one key `vault`, and `path` and `field` in that; which Vault is not known here.
pub fn reference(value: &Value) -> Option<Source> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let (key, text) = object.iter().next()?;
    if key == "vault" {
        let kept = text.as_object().filter(|kept| kept.len() == 2)?;
        let named = |name: &str| kept.get(name).and_then(Value::as_str).map(str::to_owned);
        return Some(Source::Vault {
            path: named("path")?,
            field: named("field")?,
            server: None,
        });
    }
    let text = text.as_str().filter(|text| !text.is_empty())?;
    match key.as_str() {
        "env" if is_variable(text) => Some(Source::Env(text.to_owned())),
        "file" => Some(Source::File(text.into())),
        _ => None,
    }
}

/// Whether a text is the name of a variable as people write them: upper case, digits and `_`.
pub(crate) fn is_variable(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && text.bytes().all(legal)
}

/// Every secret that a plugin's configuration stands on, with its path within.
pub(crate) fn references(
    value: &Value,
    path: &str,
    extras: &Extras,
    out: &mut Vec<(String, Source)>,
) {
    if let Some(source) = extras.reference(value) {
        out.push((path.to_owned(), source));
        return;
    }
    match value {
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                references(item, &format!("{path}[{number}]"), extras, out);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                references(value, &crate::schema::reader::join(path, key), extras, out);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_is_told_from_an_attribute() {
        let env = |name: &str| Some(Source::Env(name.to_owned()));
        assert_eq!(
            reference(&json!({"env": "REDIS_PASSWORD"})),
            env("REDIS_PASSWORD")
        );
        assert_eq!(reference(&json!({"env": "production"})), None);
        assert_eq!(reference(&json!({"env": "A", "file": "b"})), None);
        assert_eq!(reference(&json!({"env": 7})), None);
        assert_eq!(reference(&json!({"file": ""})), None);
        assert_eq!(reference(&json!("REDIS_PASSWORD")), None);
        let kept = json!({"vault": {"path": "secret/data/a", "field": "b"}});
        assert!(matches!(reference(&kept), Some(Source::Vault { .. })));
        // Kong's own, of plugin acme.
        assert_eq!(reference(&json!({"vault": {"host": "a", "port": 1}})), None);
        let mut found = Vec::new();
        let config = json!({"redis": {"password": {"env": "P"}}, "list": [1, {"file": "k.pem"}]});
        references(&config, "config", &Extras::default(), &mut found);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["config.list[1]", "config.redis.password"]);
    }
}
