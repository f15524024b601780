//! Consul by the API of one agent.
//!
//! What is the mesh's: services, config entries and intentions whose meta says `mesh=NAME`, those that mesh.yaml renders,
//! and every intention that leads to a service of the mesh (mesh.yaml says who may call it, and nobody else does).
//! Sidecars register themselves while they run, and only they know when; their registrations are not compared.
//!
//! Consul tells nobody what a check asks. So a check says it in its notes, and by them it is compared.

mod normal;
mod rights;

use super::http::{Answer, Api};
use super::resource::{Action, Change, Key, Part, Resources, pruned, text};
use anyhow::{Context, bail};
use mesh_config::render::consul::{
    OWNER, ServiceDefaults, ServiceDefinition, ServiceIntentions, Way,
};
use normal::{config_entry, has_service_intentions, register, service_body, wanted_check};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DEFAULTS: (u8, &str) = (0, "service-defaults");
const SERVICE: (u8, &str) = (1, "service");
const INTENTION: (u8, &str) = (2, "intention");
const INTENTIONS: (u8, &str) = (2, "service-intentions");

/// A Consul, and what it should hold.
pub struct Consul {
    api: Api,
    mesh: String,
    services: Vec<ServiceDefinition>,
    defaults: Vec<ServiceDefaults>,
    intentions: Vec<ServiceIntentions>,
    /// Whether it has config entries of kind `service-intentions`.
    modern: bool,
    /// Ids of intentions, before 1.9.
    ids: BTreeMap<Key, String>,
    /// The mesh that a resource of another mesh belongs to.
    others: BTreeMap<Key, String>,
}

impl Consul {
    pub fn new(
        api: Api,
        mesh: &str,
        services: Vec<ServiceDefinition>,
        defaults: Vec<ServiceDefaults>,
        intentions: Vec<ServiceIntentions>,
    ) -> Self {
        Self {
            api,
            mesh: mesh.to_owned(),
            services,
            defaults,
            intentions,
            modern: true,
            ids: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// Reads what is there: what is wanted and what is held, in the same form.
    pub async fn read(&mut self) -> anyhow::Result<(Resources, Resources)> {
        let own = self.api.get(&["v1", "agent", "self"], &[]).await?;
        let version = own
            .as_ref()
            .and_then(|own| own.pointer("/Config/Version")?.as_str());
        self.modern = has_service_intentions(version.context("Consul does not say its version")?);
        let wanted = self.wanted();
        let mut held = Resources::new();
        self.read_defaults(&wanted, &mut held).await?;
        self.read_services(&wanted, &mut held).await?;
        if self.modern {
            self.read_intentions(&wanted, &mut held).await?;
        } else {
            self.read_ways(&wanted, &mut held).await?;
        }
        let missing = wanted.keys().filter(|key| !held.contains_key(key));
        let missing = missing.map(|key| self.right(key)).collect();
        rights::to_read(&self.api, missing).await?;
        Ok((wanted, held))
    }

    /// What a token has to be allowed to see a resource: its kind in Consul's rules, and the name that they go by.
    fn right<'k>(&'k self, key: &'k Key) -> (&'static str, &'k str) {
        let name = key.name.as_str();
        if key.kind == INTENTION.1 {
            let to = name.split_once(ARROW).map_or(name, |(_, to)| to);
            return (INTENTION.1, to);
        }
        if key.kind == INTENTIONS.1 {
            return (INTENTION.1, name);
        }
        // A service is known by its id here.
        let service = self.services.iter().find(|service| service.id == name);
        let service = service.filter(|_| key.kind == SERVICE.1);
        (SERVICE.1, service.map_or(name, |service| &service.name))
    }

    /// What is to be known about a change before it is made.
    pub fn note(&self, change: &Change) -> Option<String> {
        let other = self.others.get(&change.key)?;
        Some(format!(
            "it belongs to the mesh {other}, so this is refused"
        ))
    }

    fn wanted(&self) -> Resources {
        let mut out = Resources::new();
        for entry in &self.defaults {
            out.insert(key(DEFAULTS, &entry.name), config_entry(json!(entry)));
        }
        for service in &self.services {
            let checks = service.checks.iter().map(wanted_check).collect();
            let mut body = register(service);
            // The agent's own default.
            let usual = json!({"Passing": 1, "Warning": 1});
            let weights = body.get("Weights").cloned().unwrap_or(usual);
            if let Some(body) = body.as_object_mut() {
                body.insert("Weights".to_owned(), weights);
            }
            out.insert(
                key(SERVICE, &service.id),
                service_body(&body, "Name", checks),
            );
        }
        for callee in &self.intentions {
            if self.modern {
                let body = config_entry(json!(callee));
                out.insert(key(INTENTIONS, &callee.name), body);
                continue;
            }
            for way in callee.ways() {
                out.insert(way_key(&way.source, &way.destination), self.way(&way));
            }
        }
        out
    }

    fn way(&self, way: &Way) -> Value {
        let action = if way.open { "allow" } else { "deny" };
        json!({"Action": action, "Meta": {OWNER: self.mesh}})
    }

    /// Takes in what is there, if it is the mesh's.
    fn take(&mut self, wanted: &Resources, held: &mut Resources, key: Key, body: Value) {
        let owner = owner(&body);
        let mine = owner == Some(self.mesh.as_str());
        if mine || wanted.contains_key(&key) {
            if let Some(other) = owner.filter(|_| !mine) {
                self.others.insert(key.clone(), other.to_owned());
            }
            held.insert(key, body);
        }
    }

    async fn list(&self, path: &[&str]) -> anyhow::Result<Vec<Value>> {
        let found = self.api.get(path, &[]).await?.unwrap_or(Value::Null);
        Ok(match found {
            Value::Array(items) => items,
            Value::Object(entries) => entries.into_iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        })
    }

    async fn read_defaults(
        &mut self,
        wanted: &Resources,
        held: &mut Resources,
    ) -> anyhow::Result<()> {
        for entry in self.list(&["v1", "config", DEFAULTS.1]).await? {
            let key = key(DEFAULTS, text(&entry, "Name"));
            self.take(wanted, held, key, config_entry(entry));
        }
        Ok(())
    }

    async fn read_services(
        &mut self,
        wanted: &Resources,
        held: &mut Resources,
    ) -> anyhow::Result<()> {
        let mut checks: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for check in self.list(&["v1", "agent", "checks"]).await? {
            let body = pruned(json!({
                "CheckID": check.get("CheckID"),
                "Name": check.get("Name"),
                "Notes": check.get("Notes"),
                "Type": check.get("Type"),
            }));
            let of = text(&check, "ServiceID").to_owned();
            checks.entry(of).or_default().push(body);
        }
        for service in self.list(&["v1", "agent", "services"]).await? {
            let id = text(&service, "ID");
            let checks = checks.remove(id).unwrap_or_default();
            let body = service_body(&service, "Service", checks);
            self.take(wanted, held, key(SERVICE, id), body);
        }
        Ok(())
    }

    async fn read_ways(&mut self, wanted: &Resources, held: &mut Resources) -> anyhow::Result<()> {
        let callees: BTreeSet<String> = self.intentions.iter().map(|i| i.name.clone()).collect();
        for way in self.list(&["v1", "connect", "intentions"]).await? {
            let (from, to) = (text(&way, "SourceName"), text(&way, "DestinationName"));
            let key = way_key(from, to);
            let body = pruned(json!({
                "Action": way.get("Action"),
                "Description": way.get("Description"),
                "Meta": way.get("Meta"),
            }));
            self.ids.insert(key.clone(), text(&way, "ID").to_owned());
            if callees.contains(to) && !wanted.contains_key(&key) {
                if let Some(other) = owner(&body).filter(|owner| *owner != self.mesh) {
                    self.others.insert(key.clone(), other.to_owned());
                }
                held.insert(key, body);
            } else {
                self.take(wanted, held, key, body);
            }
        }
        Ok(())
    }

    async fn read_intentions(
        &mut self,
        wanted: &Resources,
        held: &mut Resources,
    ) -> anyhow::Result<()> {
        for entry in self.list(&["v1", "config", INTENTIONS.1]).await? {
            let key = key(INTENTIONS, text(&entry, "Name"));
            self.take(wanted, held, key, config_entry(entry));
        }
        Ok(())
    }

    /// Makes one change; it can be made again.
    pub async fn change(&self, change: &Change) -> anyhow::Result<()> {
        let key = &change.key;
        if let Some(other) = self.others.get(key) {
            bail!(
                "refused: {} {} belongs to the mesh {other}; two meshes that share a Consul need names of their own",
                key.kind,
                key.name
            );
        }
        let deleted = change.action == Action::Deleted;
        let name = key.name.as_str();
        match key.kind {
            kind if kind == SERVICE.1 && deleted => {
                let path = ["v1", "agent", "service", "deregister", name];
                // 1.8 answers 200 for one that it does not know, some later ones 500.
                let answer = self.api.send(Method::PUT, &path, &[], None).await?;
                let unknown = answer.words().contains("Unknown service");
                done(answer, unknown)
            }
            kind if kind == SERVICE.1 => {
                let service = self.services.iter().find(|service| service.id == name);
                let body = register(service.context("the service is not rendered")?);
                let path = ["v1", "agent", "service", "register"];
                let query = [("replace-existing-checks", "true")];
                self.api
                    .change(Method::PUT, &path, &query, Some(&body))
                    .await?;
                Ok(())
            }
            kind if kind == INTENTION.1 => self.change_way(change).await,
            kind if deleted => {
                let path = ["v1", "config", kind, name];
                self.api.change(Method::DELETE, &path, &[], None).await?;
                Ok(())
            }
            kind => {
                let entry = if kind == DEFAULTS.1 {
                    self.defaults
                        .iter()
                        .find(|entry| entry.name == name)
                        .map(|e| json!(e))
                } else {
                    self.intentions
                        .iter()
                        .find(|entry| entry.name == name)
                        .map(|e| json!(e))
                };
                let entry = entry.context("the entry is not rendered")?;
                let path = ["v1", "config"];
                self.api
                    .change(Method::PUT, &path, &[], Some(&entry))
                    .await?;
                Ok(())
            }
        }
    }

    async fn change_way(&self, change: &Change) -> anyhow::Result<()> {
        let id = self.ids.get(&change.key).map(String::as_str);
        let path = ["v1", "connect", "intentions"];
        let Some(after) = &change.after else {
            let path = [&path[..], &[id.unwrap_or_default()]].concat();
            self.api.change(Method::DELETE, &path, &[], None).await?;
            return Ok(());
        };
        let (from, to) = change.key.name.split_once(ARROW).unwrap_or_default();
        let mut body = after.clone();
        if let Some(body) = body.as_object_mut() {
            body.insert("SourceName".to_owned(), from.into());
            body.insert("DestinationName".to_owned(), to.into());
            body.insert("SourceType".to_owned(), "consul".into());
        }
        match id {
            Some(id) if change.action == Action::Updated => {
                let path = [&path[..], &[id]].concat();
                self.api
                    .change(Method::PUT, &path, &[], Some(&body))
                    .await?;
            }
            _ => {
                self.api
                    .change(Method::POST, &path, &[], Some(&body))
                    .await?;
            }
        }
        Ok(())
    }
}

const ARROW: &str = " -> ";

/// The mesh that a resource says it belongs to.
fn owner(body: &Value) -> Option<&str> {
    body.get("Meta")?.get(OWNER)?.as_str()
}

fn key(kind: (u8, &'static str), name: &str) -> Key {
    Key::new(Part::Consul, kind, name)
}

fn way_key(from: &str, to: &str) -> Key {
    key(INTENTION, &format!("{from}{ARROW}{to}"))
}

fn done(answer: Answer, all_the_same: bool) -> anyhow::Result<()> {
    if answer.is_success() || all_the_same {
        return Ok(());
    }
    bail!("Consul {}", answer.words())
}
