//! mesh.yaml as it is written: every field optional until it is checked, every value with its place.
//!
//! Single values are checked here (a port is a port); what concerns two of them is `compile`'s.

mod agents;
mod broker;
mod container;
mod delivery;
mod deploy;
pub(crate) mod filters;
mod fronted;
mod gateway;
mod kong;
mod ollama;
mod orchestrator;
pub(crate) mod reader;
mod resources;
mod services;
mod telemetry;
pub(crate) mod tree;
mod trust;
pub(crate) mod values;

pub(crate) use agents::{Agent, Run};
pub(crate) use broker::{
    Broker, Exchange as BrokerExchange, Policy as BrokerPolicy, Queue as BrokerQueue,
};
pub(crate) use container::{Build, Container, Healthcheck};
pub(crate) use delivery::{Delivery, Overflow};
pub(crate) use deploy::Deploy;
pub(crate) use filters::{Filters, Setting};
pub(crate) use fronted::{Fronted, FrontedRoute};
pub(crate) use gateway::{Auth, Gateway, Issuer, Key, Route};
pub(crate) use kong::{Plugin as KongPlugin, Tls, nearest_place};
pub(crate) use ollama::{Budget, Ollama};
pub(crate) use orchestrator::{Messaging, Orchestrator, Store};
pub(crate) use reader::At;
pub(crate) use resources::Amount;
pub(crate) use services::{Sidecar, Traffic};
pub(crate) use telemetry::{Job, Relabel, Telemetry};
pub(crate) use trust::{Identity, Intention, Registry, Services, Traces};

use crate::finding::Finding;
use crate::snippet::Tokens;
use reader::{Reader, Spot};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub mesh: Option<At<String>>,
    pub gateway: Gateway,
    pub orchestrator: Orchestrator,
    pub messaging: Messaging,
    pub store: Store,
    pub identity: Option<At<Identity>>,
    pub registry: Registry,
    pub intentions: Option<At<Vec<At<Intention>>>>,
    pub identity_headers: Option<At<BTreeMap<String, String>>>,
    pub audit: Option<At<String>>,
    pub traces: Option<At<Traces>>,
    pub traffic: Traffic,
    pub deploy: Option<At<Deploy>>,
    pub telemetry: Telemetry,
    pub services: Vec<At<Fronted>>,
    /// Whether this is a gateway or a broker without anybody of the mesh behind it.
    pub fronts_only: bool,
    /// Whether there is a list of agents, be it empty.
    pub agents_listed: bool,
    pub agents: Vec<At<Agent>>,
}

/// What was read, what could not be read, and what of it may be shown.
pub(crate) struct Read {
    pub file: File,
    pub findings: Vec<Finding>,
    /// None for a text that is no YAML.
    pub tokens: Option<Tokens>,
}

/// Reads the file as far as it can be read, and reports everything that cannot.
pub(crate) fn read(text: &str) -> Read {
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(finding) => {
            return Read {
                file: File::default(),
                findings: vec![finding],
                tokens: None,
            };
        }
    };
    let mut reader = Reader::new(text);
    let file = file(&mut reader, &root).unwrap_or_default();
    Read {
        file,
        tokens: Some(Tokens::of(&root, &reader.open)),
        findings: reader.findings,
    }
}

fn file(reader: &mut Reader<'_>, root: &tree::Node) -> Option<File> {
    let spot = Spot {
        node: root,
        path: "",
    };
    if !matches!(root.value, tree::Value::Map(_)) {
        let finding = Finding::error(
            "not_a_mesh",
            root.place,
            "",
            format!("the file holds {}, not a mesh", root.value.kind()),
        );
        reader.push(finding.hint("begin with `version: 1` and `mesh: NAME`"));
        return None;
    }
    let mut f = reader.fields(spot)?;
    f.required(reader, "version", "1", version);
    let mesh = f.required(reader, "mesh", "my-mesh", mesh_name);
    let fronts_only = fronts_only(root);
    let gateway = f.optional(reader, "gateway", |r, s| {
        gateway::gateway(r, s, !fronts_only)
    });
    let orchestrator = f.optional(reader, "orchestrator", orchestrator::orchestrator);
    let messaging = f.optional(reader, "messaging", orchestrator::messaging);
    let store = f.optional(reader, "store", orchestrator::store);
    let identity = f.optional(reader, "identity", trust::identity);
    let registry = f.optional(reader, "registry", trust::registry);
    let intentions = f.optional(reader, "intentions", |r, s| r.list(s, trust::intention));
    let identity_headers = f.optional(reader, "identity_headers", trust::texts);
    let audit = f.optional(reader, "audit", values::text);
    let traces = f.optional(reader, "traces", trust::traces);
    let traffic = f.optional(reader, "traffic", services::traffic);
    let deploy = f.optional(reader, "deploy", deploy::deploy);
    let telemetry = f.optional(reader, "telemetry", telemetry::telemetry);
    let services = f.optional(reader, "services", |r, s| r.list(s, fronted::fronted));
    let list = |r: &mut Reader<'_>, s: Spot<'_>| r.list(s, agents::agent);
    let agents = if fronts_only {
        f.optional(reader, "agents", list)
    } else {
        f.required(reader, "agents", "[...]", list)
    };
    f.finish(reader);
    Some(File {
        mesh,
        gateway: gateway.map(|g| g.value).unwrap_or_default(),
        orchestrator: orchestrator.map(|o| o.value).unwrap_or_default(),
        messaging: messaging.map(|m| m.value).unwrap_or_default(),
        store: store.map(|s| s.value).unwrap_or_default(),
        identity,
        registry: registry.map(|r| r.value).unwrap_or_default(),
        intentions,
        identity_headers,
        audit,
        traces,
        traffic: traffic.map(|t| t.value).unwrap_or_default(),
        deploy,
        telemetry: telemetry.map(|t| t.value).unwrap_or_default(),
        services: services.map(|s| s.value).unwrap_or_default(),
        fronts_only,
        agents_listed: agents.is_some(),
        agents: agents.map(|a| a.value).unwrap_or_default(),
    })
}

/// Whether this is a gateway before services, or a broker, and no more: nobody comes in for an agent, so
/// nobody has to be told from anybody else.
fn fronts_only(root: &tree::Node) -> bool {
    let field = |node: &tree::Node, name: &str| match &node.value {
        tree::Value::Map(entries) => {
            let mut named = entries.iter().filter(|(key, _)| key.text == name);
            named.next().map(|(_, node)| node.clone())
        }
        _ => None,
    };
    let none = |node: Option<tree::Node>| match node.map(|node| node.value) {
        None | Some(tree::Value::Null) => true,
        Some(tree::Value::List(items)) => items.is_empty(),
        Some(_) => false,
    };
    let gateway = field(root, "gateway");
    let messaging = field(root, "messaging");
    let listed = |name: &str| {
        let list = messaging.as_ref().and_then(|node| field(node, name));
        !none(list)
    };
    let something = !none(field(root, "services")) || listed("queues") || listed("exchanges");
    something
        && none(field(root, "agents"))
        && none(gateway.and_then(|gateway| field(&gateway, "routes")))
}

fn version(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<()> {
    if matches!(spot.node.value, tree::Value::Int(_)) {
        reader.open(spot.node);
    }
    if matches!(spot.node.value, tree::Value::Int(1)) {
        return Some(());
    }
    let message = "this program reads version 1 of mesh.yaml".to_owned();
    let finding = Finding::error("unknown_version", spot.node.place, spot.path, message);
    reader.push(finding.hint("write `version: 1`"));
    None
}

fn mesh_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let name = values::text(reader, spot)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.len() <= 63 && name.bytes().all(legal) {
        return Some(name);
    }
    let message = format!("{}: `{name}` cannot be an audience of tokens", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 63 lower-case letters, digits and hyphens"));
    None
}
