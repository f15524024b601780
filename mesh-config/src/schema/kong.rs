//! What stands in mesh.yaml as Kong has it: plugins, upstreams, certificates.
//!
//! A plugin's configuration is Kong's own and any JSON; what is in it is not shown beside a finding, since
//! it may hold a secret. Which secrets it names is found out where it is checked.

use super::filters::{Numbers, json};
use super::reader::{At, Fields, Reader, Spot};
use super::tree::Value;
use super::values;
use crate::finding::{Finding, Place};
use crate::secret::Source;
use mesh_declarative::Upstream;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One of Kong's plugins.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub name: Option<At<String>>,
    pub config: Option<At<Config>>,
    pub enabled: Option<At<bool>>,
    pub protocols: Vec<At<String>>,
    pub instance_name: Option<At<String>>,
    pub tags: Vec<At<String>>,
}

/// Its configuration.
#[derive(Clone)]
pub(crate) struct Config {
    pub json: Map<String, Json>,
    /// Where each value stands, by its path within the configuration.
    pub places: BTreeMap<String, Place>,
}

// Configurations hold keys and passwords: they stay out of Debug.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({})", self.json.len())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tls {
    pub listen: Option<At<SocketAddr>>,
    pub certificates: Vec<At<Certificate>>,
}

#[derive(Debug)]
pub(crate) struct Certificate {
    pub snis: Vec<At<String>>,
    pub cert: Option<At<Source>>,
    pub key: Option<At<Source>>,
    pub tags: Vec<At<String>>,
}

pub(super) fn plugin(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Plugin> {
    let mut f = reader.fields(spot)?;
    let plugin = Plugin {
        name: f.required(reader, "name", "rate-limiting", values::text),
        config: f.optional(reader, "config", config),
        enabled: f.optional(reader, "enabled", values::boolean),
        protocols: names(&mut f, reader, "protocols", values::text),
        instance_name: f.optional(reader, "instance_name", values::text),
        tags: names(&mut f, reader, "tags", values::text),
    };
    f.finish(reader);
    Some(plugin)
}

fn config(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Config> {
    reader.say(|| serde_json::json!({"type": "object"}));
    if !matches!(spot.node.value, Value::Map(_)) {
        reader.wrong_type(spot, "a mapping");
        return None;
    }
    let (json, places) = tree(reader, spot)?;
    Some(Config { json, places })
}

/// A mapping as JSON, with the places of its values; none after a fault.
fn tree(
    reader: &mut Reader<'_>,
    spot: Spot<'_>,
) -> Option<(Map<String, Json>, BTreeMap<String, Place>)> {
    let before = reader.findings.len();
    let mut places = BTreeMap::new();
    let read = json(reader, spot.node, spot.path, "", &mut places, Numbers::All)?;
    match read {
        Json::Object(map) if reader.findings.len() == before => Some((map, places)),
        _ => None,
    }
}

/// A list that is empty when it is left out.
pub(super) fn names<T>(
    f: &mut Fields<'_>,
    reader: &mut Reader<'_>,
    name: &'static str,
    read: impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<T>,
) -> Vec<At<T>> {
    f.optional(reader, name, |r, s| r.list(s, read))
        .map_or_else(Vec::new, |list| list.value)
}

/// Any mapping, as JSON: what a part of another program has and this one only hands on.
pub(super) fn foreign(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Map<String, Json>> {
    reader.say(|| serde_json::json!({"type": "object"}));
    if !matches!(spot.node.value, Value::Map(_)) {
        reader.wrong_type(spot, "a mapping");
        return None;
    }
    tree(reader, spot).map(|(map, _)| map)
}

pub(super) fn upstream(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Upstream> {
    reader.say(|| serde_json::json!({"type": "object", "required": ["name"]}));
    if reader.shape.is_none() && !matches!(spot.node.value, Value::Map(_)) {
        reader.wrong_type(spot, "a mapping");
        return None;
    }
    let (map, places) = tree(reader, spot)?;
    let upstream: Upstream = match serde_path_to_error::deserialize(Json::Object(map)) {
        Ok(upstream) => upstream,
        Err(error) => {
            let within = error.path().to_string();
            let within = if within == "." { "" } else { &within };
            let place = nearest_place(&places, within).unwrap_or(spot.node.place);
            let path = match within {
                "" => spot.path.to_owned(),
                within => super::reader::join(spot.path, within),
            };
            let what = crate::filters::said(&error.into_inner().to_string());
            let message = format!("{path} {what}");
            let finding = Finding::error("kong_config", place, path, message);
            reader.push(finding.hint("write it as Kong's own configuration has it"));
            return None;
        }
    };
    if !mesh_declarative::is_name(&upstream.name) {
        let message = format!("{}.name cannot name an upstream", spot.path);
        let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
        reader.push(finding.hint("letters, digits, '.', '_', '~' and '-'"));
        return None;
    }
    for (number, target) in upstream.targets.iter().enumerate() {
        if is_target(&target.target) {
            continue;
        }
        let within = format!("targets[{number}].target");
        let place = nearest_place(&places, &within).unwrap_or(spot.node.place);
        let path = super::reader::join(spot.path, &within);
        let message = format!("{path} is no host and port");
        let finding = Finding::error("invalid_address", place, path, message);
        reader.push(finding.hint("write HOST:PORT, such as coordinator:8587"));
        return None;
    }
    Some(upstream)
}

/// `HOST[:PORT]`; IPv6 in brackets.
fn is_target(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let plain = !host.is_empty() && !host.contains(['/', ' ', '@', '?', '#', '{', '$']);
    plain && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The place of `path`, or of the nearest value around it.
pub(crate) fn nearest_place(places: &BTreeMap<String, Place>, path: &str) -> Option<Place> {
    let mut path = path;
    loop {
        if let Some(place) = places.get(path) {
            return Some(*place);
        }
        path = path
            .rfind(['.', '['])
            .map_or("", |end| path.get(..end).unwrap_or_default());
        if path.is_empty() {
            return places.get("").copied();
        }
    }
}

pub(super) fn tls(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Tls> {
    let mut f = reader.fields(spot)?;
    let tls = Tls {
        listen: f.optional(reader, "listen", values::listen),
        certificates: f
            .required(
                reader,
                "certificates",
                "[{cert: {file: tls/cert.pem}, key: {file: tls/key.pem}}]",
                |r, s| super::gateway::filled(r, s, certificate),
            )
            .map_or_else(Vec::new, |list| list.value),
    };
    f.finish(reader);
    Some(tls)
}

fn certificate(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Certificate> {
    let mut f = reader.fields(spot)?;
    let certificate = Certificate {
        snis: names(&mut f, reader, "snis", values::text),
        cert: f.required(reader, "cert", "{file: tls/cert.pem}", values::source),
        key: f.required(reader, "key", "{file: tls/key.pem}", values::source),
        tags: names(&mut f, reader, "tags", values::text),
    };
    f.finish(reader);
    Some(certificate)
}
