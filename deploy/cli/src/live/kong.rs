//! Kong without a database, by its admin API: read entity by entity, applied whole by `POST /config`.
//!
//! A Kong without a database holds one configuration and no more, so all of it is the mesh's. What Kong fills in is no
//! difference: its own schemas say what the defaults are, of entities and of each plugin's configuration.

mod normal;
mod schema;

use super::http::Api;
use super::resource::{Key, Part, Resources, text};
use anyhow::{Context, bail};
use normal::{Entity, Flat};
use reqwest::Method;
use schema::Schema;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Entities of one page.
const PAGE: &str = "1000";
/// Most pages of one kind: a million entities.
const MAX_PAGES: usize = 1000;

/// Kinds of entities: where they are listed, and the name of their schema.
const KINDS: [(&str, &str); 7] = [
    ("certificates", "certificates"),
    ("upstreams", "upstreams"),
    ("services", "services"),
    ("routes", "routes"),
    ("consumers", "consumers"),
    ("plugins", "plugins"),
    ("filter-chains", "filter_chains"),
];

/// Kinds that mesh.yaml has no word for: where they are listed, and what one is called. What there is of them goes with
/// the configuration, so it is shown; what it holds may be secret, so that is not.
const OTHERS: [(&str, &str); 11] = [
    ("ca_certificates", "ca certificate"),
    ("vaults", "vault"),
    ("key-sets", "key set"),
    ("keys", "key"),
    ("consumer_groups", "consumer group"),
    ("acls", "acl group"),
    ("basic-auths", "basic-auth credential"),
    ("hmac-auths", "hmac-auth credential"),
    ("jwts", "jwt credential"),
    ("key-auths", "key-auth credential"),
    ("oauth2", "oauth2 credential"),
];

/// A Kong, and what it should hold.
pub struct Kong {
    api: Api,
    /// kong.yml with the values of secrets, as JSON and as it is sent.
    wanted: Value,
    yaml: String,
}

impl Kong {
    pub fn new(api: Api, wanted: Value, yaml: String) -> Self {
        Self { api, wanted, yaml }
    }

    /// Reads what is there: what is wanted and what is held, in the same form.
    pub async fn read(&mut self) -> anyhow::Result<(Resources, Resources)> {
        let info = self.api.get(&[], &[]).await?.unwrap_or_default();
        let database = info
            .pointer("/configuration/database")
            .and_then(Value::as_str);
        match database {
            Some("off") => {}
            None => bail!(
                "what answers there is no admin API of Kong: it names no configuration.database"
            ),
            Some(database) => bail!(
                "this Kong keeps its configuration in a database ({database}); mesh diff and mesh apply are for one without (KONG_DATABASE=off), which takes a configuration whole"
            ),
        }
        let wanted = Flat::of_config(&self.wanted);
        let held = Flat::of_entities(self.entities().await?);
        let mut schemas = BTreeMap::new();
        for entity in wanted.entities.iter().chain(&held.entities) {
            let name = entity.schema();
            if let Entry::Vacant(place) = schemas.entry(name) {
                let path: Vec<&str> = std::iter::once("schemas")
                    .chain(place.key().split('/'))
                    .collect();
                let answer = self.api.get(&path, &[]).await?;
                place.insert(answer.map(Schema::new));
            }
        }
        let schema = |entity: &Entity| schemas.get(&entity.schema())?.as_ref();
        // A field that Kong adds beyond its schema (old names of new fields) counts where mesh.yaml says it.
        let said: BTreeMap<&str, &Value> = wanted
            .entities
            .iter()
            .map(|e| (&*e.name, &e.body))
            .collect();
        let mut out = (Resources::new(), Resources::new());
        for entity in &wanted.entities {
            let body = normal::plain(&entity.body, schema(entity), Some(&entity.body));
            out.0.insert(key(entity), body);
        }
        for entity in &held.entities {
            let body = normal::plain(
                &entity.body,
                schema(entity),
                said.get(&*entity.name).copied(),
            );
            out.1.insert(key(entity), body);
        }
        for (place, (list, shown)) in OTHERS.iter().enumerate() {
            // Behind all that mesh.yaml has.
            let rank = u8::try_from(KINDS.len() + 1 + place).unwrap_or(u8::MAX);
            for other in self.pages(&[list]).await? {
                let id = text(&other, "id");
                let key = Key::new(Part::Kong, (rank, *shown), id);
                out.1.insert(key, json!({"id": id}));
            }
        }
        Ok(out)
    }

    /// Every entity by its kind, targets among them.
    async fn entities(&self) -> anyhow::Result<Vec<(&'static str, Value)>> {
        let mut all = Vec::new();
        for (list, kind) in KINDS {
            let found = self.pages(&[list]).await?;
            if kind == "upstreams" {
                for upstream in &found {
                    let targets = self
                        .pages(&["upstreams", text(upstream, "id"), "targets"])
                        .await?;
                    all.extend(targets.into_iter().map(|target| ("targets", target)));
                }
            }
            all.extend(found.into_iter().map(|entity| (kind, entity)));
        }
        Ok(all)
    }

    async fn pages(&self, path: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut offset: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("size", PAGE)];
            query.extend(offset.as_deref().map(|offset| ("offset", offset)));
            // Without Proxy-Wasm there are no filter chains, without a plugin none of its credentials.
            let Some(page) = self.api.get(path, &query).await? else {
                return Ok(all);
            };
            let data = page.get("data").and_then(Value::as_array).cloned();
            all.extend(data.with_context(|| format!("Kong's {} are no list", path.join("/")))?);
            offset = page
                .get("offset")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if offset.is_none() {
                return Ok(all);
            }
        }
        bail!("Kong's {} do not end", path.join("/"))
    }

    /// Replaces the whole configuration.
    pub async fn replace(&self) -> anyhow::Result<()> {
        let body = json!({"config": self.yaml});
        let query = [("flatten_errors", "1")];
        let answer = self
            .api
            .send(Method::POST, &["config"], &query, Some(&body))
            .await?;
        if answer.is_success() {
            return Ok(());
        }
        let read: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let errors = read.get("flattened_errors").and_then(Value::as_array);
        let lines: Vec<String> = errors.into_iter().flatten().flat_map(refusals).collect();
        if lines.is_empty() {
            bail!("Kong {}", answer.words());
        }
        bail!(
            "Kong refuses the configuration, and keeps the one it has:\n  {}",
            lines.join("\n  ")
        )
    }
}

fn key(entity: &Entity) -> Key {
    let order = [
        "certificates",
        "upstreams",
        "targets",
        "services",
        "routes",
        "consumers",
        "plugins",
        "filter_chains",
    ];
    let shown = [
        "certificate",
        "upstream",
        "target",
        "service",
        "route",
        "consumer",
        "plugin",
        "filter chain",
    ];
    let place = order
        .iter()
        .position(|kind| *kind == entity.kind)
        .unwrap_or(0);
    let rank = u8::try_from(place).unwrap_or(u8::MAX);
    Key::new(
        Part::Kong,
        (rank, shown.get(place).copied().unwrap_or("entity")),
        entity.name.clone(),
    )
}

/// What Kong says of one entity, without the entity itself: it may hold secrets.
fn refusals(entity: &Value) -> Vec<String> {
    let who = [text(entity, "entity_type"), text(entity, "entity_name")];
    let who = who.join(" ");
    let errors = entity.get("errors").and_then(Value::as_array);
    let said = errors.into_iter().flatten().map(|error| {
        let field = text(error, "field");
        let message = error
            .get("message")
            .map(Value::to_string)
            .unwrap_or_default();
        let message = message.trim_matches('"');
        format!(
            "{}: {field}{}{message}",
            who.trim(),
            if field.is_empty() { "" } else { ": " }
        )
    });
    said.collect()
}
