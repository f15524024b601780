//! RabbitMQ by its management API.
//!
//! What is the mesh's: exchanges, queues and policies that mesh.yaml renders, and those that an earlier `mesh apply`
//! made and noted in the broker's own global parameter `mesh:MESH:VHOST` (so a queue that mesh.yaml no longer has is
//! known to be one that may go). A binding is its queue's. Everything else is somebody else's, and never looked at.

mod change;

use super::http::Api;
use super::resource::{Key, Part, Resources, text};
use anyhow::Context;
use mesh_bus::BusConfig;
use mesh_config::render::rabbitmq::Definitions;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const VHOST: (u8, &str) = (0, "vhost");
// Before the queues: what it says of replicas counts when a queue is made.
const POLICY: (u8, &str) = (1, "policy");
const EXCHANGE: (u8, &str) = (2, "exchange");
const QUEUE: (u8, &str) = (3, "queue");
const BINDING: (u8, &str) = (4, "binding");

/// A broker, and what it should hold.
pub struct Rabbit {
    api: Api,
    bus: BusConfig,
    /// Who uses the virtual host.
    user: String,
    wanted: Definitions,
    vhost: String,
    /// Name of the global parameter.
    ledger: String,
    /// Whether a queue may go with what is in it.
    force: bool,
    held: Held,
}

/// What was read.
#[derive(Default)]
struct Held {
    ledger: Option<Value>,
    resources: Resources,
    /// How a binding is called where it is deleted.
    properties: BTreeMap<Key, String>,
    /// Bindings between an exchange of the mesh and what is not the mesh's.
    foreign: BTreeMap<String, Vec<String>>,
    /// What other meshes have noted as theirs: field of the ledger and name.
    others: BTreeSet<(String, String)>,
    /// Messages and consumers, as the broker's statistics have them.
    busy: BTreeMap<String, (u64, u64)>,
}

/// Kinds that are noted in the ledger.
const LEDGER: [(&str, (u8, &str)); 3] = [
    ("exchanges", EXCHANGE),
    ("queues", QUEUE),
    ("policies", POLICY),
];

impl Rabbit {
    pub fn new(
        api: Api,
        bus: BusConfig,
        user: String,
        mesh: &str,
        wanted: Definitions,
        force: bool,
    ) -> Self {
        let vhost = wanted.vhosts.first().map(|vhost| vhost.name.clone());
        let vhost = vhost.unwrap_or_else(|| "/".to_owned());
        Self {
            api,
            bus,
            user,
            ledger: format!("mesh:{mesh}:{vhost}"),
            wanted,
            vhost,
            force,
            held: Held::default(),
        }
    }

    /// Reads what is there: what is wanted and what is held, in the same form.
    pub async fn read(&mut self) -> anyhow::Result<(Resources, Resources)> {
        // The list is for everybody who may see one of them, a single one for administrators alone.
        let vhosts = self.api.get(&["api", "vhosts"], &[]).await?;
        let vhosts = vhosts.as_ref().and_then(Value::as_array).context(
            "what answers there is no management API of RabbitMQ: it lists no virtual hosts",
        )?;
        let vhost = vhosts.iter().find(|v| text(v, "name") == self.vhost);
        if vhost.is_none() {
            self.sees_all_vhosts().await?;
        }
        let kind = vhost.map_or("", |v| text(v, "default_queue_type"));
        let wanted = self.wanted(match kind {
            "" | "undefined" => "classic",
            kind => kind,
        });
        let ledger = ["api", "global-parameters", &self.ledger];
        let ledger = self.api.get(&ledger, &[]).await?;
        let mut held = Held {
            ledger: ledger.and_then(|l| l.get("value").cloned()),
            others: self.others().await?,
            ..Held::default()
        };
        if vhost.is_some() {
            held.resources
                .insert(self.key(VHOST, &self.vhost), json!({}));
            self.read_all(&wanted, &mut held).await?;
        }
        self.held = held;
        Ok((wanted, self.held.resources.clone()))
    }

    /// What is to be known about a change before it is made.
    pub fn note(&self, change: &super::resource::Change) -> Option<String> {
        use super::resource::Action;
        if change.key.kind != QUEUE.1 || change.action == Action::Created {
            return None;
        }
        let what = match change.action {
            Action::Deleted => "it is deleted",
            _ => "it is deleted and declared anew: no queue changes its arguments",
        };
        let (messages, consumers) = self.held.busy.get(&change.key.name).copied()?;
        Some(match (messages, consumers) {
            (0, 0) => what.to_owned(),
            _ => format!(
                "{what}; it holds {messages} messages and has {consumers} consumers{}",
                if self.force {
                    ""
                } else {
                    ", so it is refused without --delete-queues-with-messages"
                }
            ),
        })
    }

    fn key(&self, kind: (u8, &'static str), name: &str) -> Key {
        Key::new(Part::Rabbitmq, kind, name)
    }

    fn wanted(&self, usual_kind: &str) -> Resources {
        let all = &self.wanted;
        let mut out = Resources::from([(self.key(VHOST, &self.vhost), json!({}))]);
        for p in &all.policies {
            let body = json!({"pattern": p.pattern, "apply-to": p.apply_to, "priority": p.priority, "definition": p.definition});
            out.insert(self.key(POLICY, &p.name), body);
        }
        for e in &all.exchanges {
            let body = json!({"type": e.kind, "durable": e.durable, "auto_delete": e.auto_delete, "internal": e.internal, "arguments": e.arguments});
            out.insert(self.key(EXCHANGE, &e.name), body);
        }
        for q in &all.queues {
            let body = queue(None, usual_kind, q.durable, q.auto_delete, &q.arguments);
            out.insert(self.key(QUEUE, &q.name), body);
        }
        for b in &all.bindings {
            let body = binding(&b.source, &b.destination, &b.routing_key, &b.arguments);
            out.insert(self.key(BINDING, &binding_name(&body)), body);
        }
        out
    }

    async fn read_all(&self, wanted: &Resources, held: &mut Held) -> anyhow::Result<()> {
        let owned = |kind: (u8, &'static str), name: &str| {
            if wanted.contains_key(&self.key(kind, name)) {
                return true;
            }
            let Some((field, _)) = LEDGER.iter().find(|(_, noted)| *noted == kind) else {
                return false;
            };
            let noted = held.ledger.as_ref().and_then(|ledger| ledger.get(field));
            let noted = noted.and_then(Value::as_array);
            // What this mesh has no more, and another one has, is the other's from now on.
            noted.is_some_and(|names| names.iter().any(|noted| noted == name))
                && !held
                    .others
                    .contains(&((*field).to_owned(), name.to_owned()))
        };
        let (mut resources, mut busy) = (Resources::new(), BTreeMap::new());
        let columns = "name,type,durable,auto_delete,exclusive,arguments,messages,consumers";
        for q in self.list("queues", columns).await? {
            let name = text(&q, "name");
            let flag = |field| q.get(field).and_then(Value::as_bool).unwrap_or(false);
            if !owned(QUEUE, name) || flag("exclusive") {
                continue;
            }
            let kind = Some(text(&q, "type")).filter(|kind| !kind.is_empty());
            let arguments = map(&q, "arguments");
            let body = queue(
                kind,
                "classic",
                flag("durable"),
                flag("auto_delete"),
                &arguments,
            );
            resources.insert(self.key(QUEUE, name), body);
            let count = |field| q.get(field).and_then(Value::as_u64).unwrap_or(0);
            busy.insert(name.to_owned(), (count("messages"), count("consumers")));
        }
        let columns = "name,type,durable,auto_delete,internal,arguments";
        for e in self.list("exchanges", columns).await? {
            let name = text(&e, "name");
            if owned(EXCHANGE, name) {
                let body = fields(
                    &e,
                    &["type", "durable", "auto_delete", "internal", "arguments"],
                );
                resources.insert(self.key(EXCHANGE, name), body);
            }
        }
        for p in self.list("policies", "").await? {
            let name = text(&p, "name");
            if owned(POLICY, name) {
                let body = fields(&p, &["pattern", "apply-to", "priority", "definition"]);
                resources.insert(self.key(POLICY, name), body);
            }
        }
        let (mut properties, mut foreign) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for b in self.list("bindings", "").await? {
            let (source, to) = (text(&b, "source"), text(&b, "destination"));
            // Every queue is bound to the default exchange, and nobody did that.
            if source.is_empty() {
                continue;
            }
            let to_queue = text(&b, "destination_type") == "queue";
            if !to_queue || !owned(QUEUE, to) {
                let mut led = |exchange: &str, other: &str| {
                    let all = foreign.entry(exchange.to_owned()).or_default();
                    all.push(other.to_owned());
                };
                led(source, &format!("it leads to {to}"));
                // An exchange that goes takes along what leads to it, too.
                if !to_queue {
                    led(to, &format!("{source} leads to it"));
                }
                continue;
            }
            let body = binding(source, to, text(&b, "routing_key"), &map(&b, "arguments"));
            let key = self.key(BINDING, &binding_name(&body));
            properties.insert(key.clone(), text(&b, "properties_key").to_owned());
            resources.insert(key, body);
        }
        held.resources.extend(resources);
        (held.busy, held.properties, held.foreign) = (busy, properties, foreign);
        Ok(())
    }

    async fn list(&self, what: &str, columns: &str) -> anyhow::Result<Vec<Value>> {
        let query = [("columns", columns)];
        let query = if columns.is_empty() { &[] } else { &query[..] };
        let found = self.api.get(&["api", what, &self.vhost], query).await?;
        let odd = || format!("RabbitMQ's {what} are no list");
        serde_json::from_value(found.with_context(odd)?).with_context(odd)
    }

    /// Only an administrator sees the virtual hosts that he may not use: to everybody else, one that is not in the
    /// list may be there all the same.
    async fn sees_all_vhosts(&self) -> anyhow::Result<()> {
        let whoami = self.api.get(&["api", "whoami"], &[]).await?;
        let whoami = whoami.unwrap_or_default();
        // A list; before 3.9, a text with commas.
        let tags = match whoami.get("tags") {
            Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(tags)) => tags.split(',').map(str::trim).collect(),
            _ => Vec::new(),
        };
        anyhow::ensure!(
            tags.contains(&"administrator"),
            "RabbitMQ shows {} no virtual host {}: it is not there, or the user has no permission in it; give it one (rabbitmqctl set_permissions), or the tag administrator, which makes virtual hosts",
            text(&whoami, "name"),
            self.vhost
        );
        Ok(())
    }

    /// What other meshes that use this virtual host have noted as theirs.
    async fn others(&self) -> anyhow::Result<BTreeSet<(String, String)>> {
        let all = self.api.get(&["api", "global-parameters"], &[]).await?;
        let all = all.as_ref().and_then(Value::as_array);
        let end = format!(":{}", self.vhost);
        let others = all.into_iter().flatten().filter(|parameter| {
            let name = text(parameter, "name");
            name != self.ledger && name.starts_with("mesh:") && name.ends_with(&end)
        });
        let mut out = BTreeSet::new();
        for ledger in others {
            for (field, _) in LEDGER {
                let names = ledger.get("value").and_then(|value| value.get(field));
                let names = names.and_then(Value::as_array);
                let names = names.into_iter().flatten().filter_map(Value::as_str);
                out.extend(names.map(|name| (field.to_owned(), name.to_owned())));
            }
        }
        Ok(out)
    }

    /// The names that the ledger holds once everything stands.
    fn to_note(&self) -> Value {
        let names = |kind: (u8, &str)| -> BTreeSet<&str> {
            let all = &self.wanted;
            match kind {
                EXCHANGE => all.exchanges.iter().map(|e| e.name.as_str()).collect(),
                QUEUE => all.queues.iter().map(|q| q.name.as_str()).collect(),
                _ => all.policies.iter().map(|p| p.name.as_str()).collect(),
            }
        };
        let all = LEDGER
            .iter()
            .map(|(field, kind)| ((*field).to_owned(), json!(names(*kind))));
        Value::Object(all.collect())
    }
}

/// A queue in its normal form: its type apart, wherever it was said.
fn queue(
    kind: Option<&str>,
    usual: &str,
    durable: bool,
    auto_delete: bool,
    arguments: &Map<String, Value>,
) -> Value {
    let mut arguments = arguments.clone();
    let said = arguments.remove("x-queue-type");
    let said = said.as_ref().and_then(Value::as_str);
    json!({
        "type": kind.or(said).unwrap_or(usual),
        "durable": durable,
        "auto_delete": auto_delete,
        "arguments": arguments,
    })
}

fn binding(source: &str, to: &str, key: &str, arguments: &Map<String, Value>) -> Value {
    json!({"source": source, "destination": to, "routing_key": key, "arguments": arguments})
}

/// A binding has no name, and no part that can change.
fn binding_name(body: &Value) -> String {
    let [source, to, key] = ["source", "destination", "routing_key"].map(|field| text(body, field));
    let arguments = body.get("arguments").and_then(Value::as_object);
    match arguments.filter(|arguments| !arguments.is_empty()) {
        Some(arguments) => format!(
            "{source} -> {to} ({key}, {})",
            Value::Object(arguments.clone())
        ),
        None => format!("{source} -> {to} ({key})"),
    }
}

fn fields(value: &Value, names: &[&str]) -> Value {
    let each = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), value.get(name)?.clone())));
    Value::Object(each.collect())
}

fn map(value: &Value, field: &str) -> Map<String, Value> {
    value
        .get(field)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}
