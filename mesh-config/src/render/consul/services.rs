//! Definitions of services, in the spelling of Consul's configuration files.

use super::OWNER;
use crate::fronted::{self, Ask, Service};
use crate::mesh::Mesh;
use mesh_sidecar::registry::Registered;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A service as an agent registers it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ServiceDefinition {
    /// Distinguishes instances on one agent.
    pub id: String,
    /// The service.
    pub name: String,
    /// Host name or address; the node's when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Port.
    pub port: u16,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// Its share of requests; Consul's own default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// How its health is found out.
    pub checks: Vec<Check>,
}

/// Shares of requests, by health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// While it passes.
    pub passing: u16,
    /// While it warns.
    pub warning: u16,
}

/// One check: exactly one of `http`, `tcp` and `ttl` is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Check {
    /// Id, unique on the agent.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it asks, in words. Consul tells nobody what a check asks but by this.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// URL that is asked; 2xx is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// `HOST:PORT` that is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Time within which the service itself has to say that it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Time between two questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Longest wait for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What it is until it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    /// Critical for so long, the service is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deregister_critical_service_after: Option<String>,
}

/// What mesh.yaml lists under `services`.
pub(super) fn fronted(mesh: &Mesh) -> Vec<ServiceDefinition> {
    // What has no port is nowhere to be found.
    let listed = mesh.services.iter();
    let placed = listed.filter_map(|service| Some((service, service.port()?)));
    let definition = |(service, port): (&Service, u16)| ServiceDefinition {
        id: service.id.clone(),
        name: service.name.clone(),
        // An address of the sixth version stands in brackets in a URL alone.
        address: service.host().trim_matches(['[', ']']).to_owned(),
        port,
        tags: service.tags.clone(),
        meta: BTreeMap::from([(OWNER.to_owned(), mesh.name.clone())]),
        weights: None,
        checks: service.check.iter().map(|c| check(service, c)).collect(),
    };
    placed.map(definition).collect()
}

fn check(service: &Service, check: &fronted::Check) -> Check {
    let (http, tcp, asks) = match &check.ask {
        Ask::Http(url) => (Some(url.to_string()), None, format!("GET {url}")),
        Ask::Tcp(place) => (None, Some(place.clone()), format!("connect to {place}")),
    };
    let (interval, timeout) = (millis(check.interval), millis(check.timeout));
    Check {
        id: format!("service:{}", service.id),
        name: format!("whether {} is well", service.name),
        notes: format!("{asks} every {interval}, for {timeout} at most"),
        http,
        tcp,
        interval: Some(interval),
        timeout: Some(timeout),
        ..Check::default()
    }
}

/// A sidecar as it registers itself.
pub(super) fn sidecar(registered: &Registered) -> ServiceDefinition {
    let (id, name) = registered.check();
    ServiceDefinition {
        id: registered.id.clone(),
        name: registered.service.as_str().to_owned(),
        address: registered.address.ip().to_string(),
        port: registered.address.port(),
        tags: registered.tags.clone(),
        meta: registered.meta.clone(),
        weights: Some(Weights {
            passing: registered.weight,
            warning: 1,
        }),
        checks: vec![Check {
            id,
            name: name.to_owned(),
            ttl: Some(millis(registered.ttl)),
            status: Some("critical"),
            deregister_critical_service_after: Some(millis(registered.forget_after)),
            ..Check::default()
        }],
    }
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
