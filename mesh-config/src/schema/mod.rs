//! mesh.yaml as it is written: every field optional until it is checked, every value with its place.
//!
//! Single values are checked here (a port is a port); what concerns two of them is `compile`'s.

mod agents;
mod broker;
mod container;
mod delivery;
mod deploy;
pub(crate) mod describe;
pub(crate) mod filters;
mod fronted;
mod gateway;
mod kong;
mod ollama;
mod orchestrator;
pub(crate) mod reader;
pub(crate) mod reference;
mod resources;
mod secrets;
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
use crate::load::{self, Loaded};
use crate::secret::Vault;
use crate::snippet::{Tokens, at};
use reader::{Reader, Spot};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Where secrets of `{vault: ...}` are, as far as the file says.
    pub vault: Option<Arc<Vault>>,
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
    /// None for a text that is no YAML, and where nothing was found.
    pub tokens: Option<Tokens>,
    /// Whether everything that was written could be read, so that what is missing is missing.
    pub whole: bool,
    /// What else than the texts decided what the mesh is.
    pub decided: Vec<String>,
    /// Values that no message may quote, each with what stands for it.
    pub hidden: Vec<(String, String)>,
}

/// Reads the tree as far as it can be read, and reports everything that cannot.
pub(crate) fn read(loaded: &Loaded) -> Read {
    let Some(root) = &loaded.root else {
        return Read {
            file: File::default(),
            findings: Vec::new(),
            tokens: None,
            whole: false,
            decided: Vec::new(),
            hidden: Vec::new(),
        };
    };
    let mut reader = Reader::new(&loaded.sources);
    reader.open.extend(&loaded.open);
    let spot = Spot {
        node: root,
        path: "",
    };
    let file = file(&mut reader, spot).unwrap_or_default();
    let said = load::said(root, &reader.secret);
    let whole = loaded.whole && said.places.is_empty();
    // The default of a variable that is a secret is one, too.
    for finding in &said.findings {
        if finding.code == "variable_in_the_open" {
            reader.open.remove(&at(finding.place));
        }
    }
    // Of a value that nobody knows, nothing else is true.
    let known = |finding: &Finding| !said.places.contains(&finding.place);
    let mut findings: Vec<Finding> = reader.findings.into_iter().filter(known).collect();
    findings.extend(said.findings);
    Read {
        file,
        tokens: Some(Tokens::of(&loaded.standing, &reader.open)),
        findings,
        whole,
        decided: said.decided,
        hidden: said.hidden,
    }
}

fn file(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<File> {
    let root = spot.node;
    if !matches!(root.value, tree::Value::Map(_)) && !reader.describes() {
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
    f.optional(reader, "include", includes);
    f.optional(reader, "environments", environments);
    let secrets = f.optional(reader, "secrets", secrets::secrets);
    reader.vault = secrets.and_then(|secrets| secrets.value);
    // The schema cannot say it: there, nothing of it must be.
    let fronts_only = reader.describes() || fronts_only(spot.node);
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
        vault: reader.vault.clone(),
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
    fn field<'n>(node: &'n tree::Node, name: &str) -> Option<&'n tree::Node> {
        let tree::Value::Map(entries) = &node.value else {
            return None;
        };
        let named = entries.iter().find(|(key, _)| key.text == name);
        named.map(|(_, node)| node)
    }
    let none = |node: Option<&tree::Node>| match node.map(|node| &node.value) {
        None | Some(tree::Value::Null) => true,
        Some(tree::Value::List(items)) => items.is_empty(),
        Some(_) => false,
    };
    let gateway = field(root, "gateway");
    let messaging = field(root, "messaging");
    let listed = |name: &str| {
        let list = messaging.and_then(|node| field(node, name));
        !none(list)
    };
    let something = !none(field(root, "services")) || listed("queues") || listed("exchanges");
    something
        && none(field(root, "agents"))
        && none(gateway.and_then(|gateway| field(gateway, "routes")))
}

/// The version of mesh.yaml that this program reads.
pub const VERSION: u32 = 1;

fn version(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<()> {
    reader.say(|| json!({"type": "integer", "enum": [VERSION]}));
    let Some(found) = values::whole(spot.node) else {
        reader.wrong_type(spot, &format!("the number {VERSION}"));
        return None;
    };
    reader.open(spot.node);
    if found == i128::from(VERSION) {
        return Some(());
    }
    let message = format!("this program reads version {VERSION} of mesh.yaml, and not {found}");
    let finding = Finding::error("unknown_version", spot.node.place, spot.path, message);
    reader.push(finding.hint(if found > i128::from(VERSION) {
        format!(
            "a newer program reads it: install the mesh that wrote it (this is {})",
            env!("CARGO_PKG_VERSION")
        )
    } else {
        "`mesh migrate FILE` shows what has to change, and writes it with --write".to_owned()
    }));
    None
}

/// Files that were read already, or were reported.
fn includes(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<()> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| json!({"type": "string"})),
                &|reader, spot| {
                    reader.list(spot, values::text);
                },
            ],
        );
    } else if matches!(spot.node.value, tree::Value::Text(_)) {
        values::text(reader, spot);
    } else {
        reader.list(spot, values::text);
    }
    None
}

/// What is laid over the rest; that of the one that was asked for is part of the tree already.
fn environments(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<()> {
    reader.entries(spot, "^[a-z0-9][a-z0-9_-]*$", |reader, key, spot| {
        reader.open_at(key.place);
        let top = ["include", "environments", "version"];
        reader.say(|| json!({"type": ["object", "null"], "propertyNames": {"not": {"enum": top}}}));
        if !matches!(spot.node.value, tree::Value::Map(_) | tree::Value::Null) {
            reader.wrong_type(spot, "a mapping, of what is otherwise there");
        }
        if let tree::Value::Map(entries) = &spot.node.value {
            let named = |key: &&(tree::Key, tree::Node)| top.contains(&&*key.0.text);
            for (key, _) in entries.iter().filter(named) {
                reader.open_at(key.place);
                let path = reader::join(spot.path, &key.text);
                let message = format!("unknown key `{}` in {}", key.text, spot.path);
                let finding = Finding::error("unknown_key", key.place, path, message);
                reader.push(
                    finding.hint("it stands at the top of the file, and not in an environment"),
                );
            }
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !key.text.bytes().all(legal) || key.text.starts_with(['-', '_']) {
            let message = format!("`{}` cannot be an environment", key.text);
            let finding = Finding::error("invalid_name", key.place, spot.path, message);
            reader.push(finding.hint("lower-case letters, digits, - and _, such as staging"));
        }
        Some(())
    });
    None
}

fn mesh_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let name = values::text(reader, spot);
    reader.say(|| json!({"type": ["string", "integer"], "pattern": "^[a-z0-9-]{1,63}$"}));
    let name = name?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.len() <= 63 && name.bytes().all(legal) {
        return Some(name);
    }
    let message = format!("{}: `{name}` cannot be an audience of tokens", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 63 lower-case letters, digits and hyphens"));
    None
}
