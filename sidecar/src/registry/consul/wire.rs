//! Consul's JSON: what is written, and the part of its answers that is used. Version 1.8 to the current one.

use crate::registry::{Health, Instance, Registered};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Longest reason that is reported, in bytes; Consul cuts at 4096.
const MAX_OUTPUT: usize = 1024;

/// Body of `PUT /v1/agent/service/register`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Registration<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: String,
    port: u16,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    weights: Weights,
    check: Check,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    #[serde(default)]
    warning: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    name: &'static str,
    #[serde(rename = "TTL")]
    ttl: String,
    status: &'static str,
    deregister_critical_service_after: String,
}

/// What the check of an instance is called.
pub(super) const CHECK_NAME: &str = "the agent's health, as its sidecar finds it";

/// The check of an instance.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

impl<'a> Registration<'a> {
    pub(super) fn new(instance: &'a Registered) -> Self {
        let millis = |time: std::time::Duration| format!("{}ms", time.as_millis());
        Self {
            id: &instance.id,
            name: instance.service.as_str(),
            address: instance.address.ip().to_string(),
            port: instance.address.port(),
            tags: &instance.tags,
            meta: &instance.meta,
            weights: Weights {
                passing: u32::from(instance.weight.max(1)),
                warning: 1,
            },
            check: Check {
                id: check_id(&instance.id),
                name: CHECK_NAME,
                ttl: millis(instance.ttl),
                status: "critical",
                deregister_critical_service_after: millis(instance.forget_after),
            },
        }
    }
}

/// Body of `PUT /v1/agent/check/update/…`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report<'a> {
    status: &'static str,
    output: &'a str,
}

impl<'a> Report<'a> {
    pub(super) fn new(health: &'a Health) -> Self {
        match health {
            Health::Passing => Self {
                status: "passing",
                output: "",
            },
            Health::Critical(why) => Self {
                status: "critical",
                output: why
                    .get(..why.floor_char_boundary(MAX_OUTPUT))
                    .unwrap_or(why),
            },
        }
    }
}

/// An element of what `GET /v1/health/service/…` answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Node,
    service: Service,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
    meta: Option<BTreeMap<String, String>>,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u32,
    weights: Option<Weights>,
    meta: Option<BTreeMap<String, String>>,
    locality: Option<Locality>,
}

/// Consul 1.17 and later.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    #[serde(default)]
    region: String,
    #[serde(default)]
    zone: String,
}

impl Entry {
    /// Where an instance is: a service without an address is at its node's. Names are not resolved: a sidecar
    /// registers an address, and what others registered by name is none of the mesh's.
    fn address(&self) -> Option<SocketAddr> {
        let address = if self.service.address.is_empty() {
            &self.node.address
        } else {
            &self.service.address
        };
        let ip: IpAddr = address.parse().ok()?;
        let port = u16::try_from(self.service.port).ok()?;
        (port != 0).then(|| SocketAddr::new(ip, port))
    }

    /// The narrowest place that Consul names.
    fn zone(&self) -> Option<&str> {
        let meta = |name| self.node.meta.as_ref()?.get(name).map(String::as_str);
        let localities = [&self.service.locality, &self.node.locality];
        let zones = localities.map(|locality| Some(locality.as_ref()?.zone.as_str()));
        let regions = localities.map(|locality| Some(locality.as_ref()?.region.as_str()));
        zones
            .into_iter()
            .chain([meta("zone")])
            .chain(regions)
            .chain([meta("region"), Some(self.node.datacenter.as_str())])
            .flatten()
            .find(|zone| !zone.is_empty())
    }
}

/// The instances, in the order of their ids, each once; equal zones and equal meta are kept once.
pub(super) fn instances(entries: Vec<Entry>) -> Vec<Instance> {
    let mut zones: Vec<Arc<str>> = Vec::new();
    let mut metas: Vec<Arc<BTreeMap<String, String>>> = Vec::new();
    let mut list: Vec<Instance> = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let Some(address) = entry.address() else {
            tracing::debug!(id = entry.service.id, "instance has no IP address and port");
            continue;
        };
        let zone = entry.zone().map(|zone| {
            let known = zones.iter().find(|known| &***known == zone).cloned();
            known.unwrap_or_else(|| {
                let zone: Arc<str> = zone.into();
                zones.push(Arc::clone(&zone));
                zone
            })
        });
        let meta = entry.service.meta.take().unwrap_or_default();
        // The last few: a list whose meta all differ is not compared with itself.
        let meta = match metas.iter().rev().take(8).find(|known| ***known == meta) {
            Some(known) => Arc::clone(known),
            None => {
                let meta = Arc::new(meta);
                metas.push(Arc::clone(&meta));
                meta
            }
        };
        let weight = entry.service.weights.map_or(1, |weights| weights.passing);
        list.push(Instance {
            id: entry.service.id.into(),
            address,
            weight: u16::try_from(weight.max(1)).unwrap_or(u16::MAX),
            zone,
            meta,
        });
    }
    list.sort_by(|a, b| (&a.id, a.address).cmp(&(&b.id, b.address)));
    // Consul's ids are unique within a node only; a sidecar's hold its address.
    let mut last: Option<Arc<str>> = None;
    for instance in &mut list {
        if last.as_ref() == Some(&instance.id) {
            instance.id = format!("{}@{}", instance.id, instance.address).into();
        } else {
            last = Some(Arc::clone(&instance.id));
        }
    }
    list.sort_by(|a, b| a.id.cmp(&b.id));
    list.dedup_by(|a, b| a.id == b.id);
    list
}
