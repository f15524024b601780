//! The normal form of Kong's entities: flat, by name, without what Kong fills in.
//!
//! A configuration nests (routes in services, targets in upstreams), the admin API lists; a configuration names what it
//! refers to, the admin API gives ids. Both become a list of entities that refer by name.

use super::schema::{Field, Schema};
use crate::live::resource::text;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What Kong adds to every entity.
const ADDED: [&str; 4] = ["id", "created_at", "updated_at", "ws_id"];
/// Fields that refer to another entity, with its kind.
const REFERENCES: [(&str, &str); 4] = [
    ("service", "services"),
    ("route", "routes"),
    ("consumer", "consumers"),
    ("upstream", "upstreams"),
];

/// One entity; references are names.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    pub kind: &'static str,
    pub name: String,
    pub body: Value,
}

/// All entities.
#[derive(Debug, Default)]
pub struct Flat {
    pub entities: Vec<Entity>,
}

impl Entity {
    fn new(kind: &'static str, body: Value) -> Self {
        Self {
            kind,
            name: name(kind, &body),
            body,
        }
    }

    /// The path of its schema.
    pub fn schema(&self) -> String {
        match self.kind {
            "plugins" => format!("plugins/{}", text(&self.body, "name")),
            kind => kind.to_owned(),
        }
    }
}

impl Flat {
    /// The entities of a declarative configuration.
    pub fn of_config(config: &Value) -> Self {
        let mut flat = Self::default();
        for certificate in list(config, "certificates") {
            flat.push("certificates", certificate);
        }
        for mut upstream in list(config, "upstreams") {
            let targets = taken(&mut upstream, "targets");
            let of = text(&upstream, "name").to_owned();
            flat.push("upstreams", upstream);
            for target in targets {
                flat.nested("targets", target, "upstream", &of);
            }
        }
        for mut service in list(config, "services") {
            let (routes, plugins) = (
                taken(&mut service, "routes"),
                taken(&mut service, "plugins"),
            );
            let of = text(&service, "name").to_owned();
            flat.push("services", spread(service));
            for route in routes {
                flat.route(with(route, "service", &of));
            }
            for plugin in plugins {
                flat.nested("plugins", plugin, "service", &of);
            }
        }
        for route in list(config, "routes") {
            flat.route(route);
        }
        for (kind, field) in [
            ("consumers", "consumers"),
            ("plugins", "plugins"),
            ("filter_chains", "filter_chains"),
        ] {
            for entity in list(config, field) {
                flat.push(kind, entity);
            }
        }
        flat
    }

    /// The entities as the admin API lists them, by kind.
    pub fn of_entities(all: Vec<(&'static str, Value)>) -> Self {
        let names: BTreeMap<(&str, &str), String> = all
            .iter()
            .map(|(kind, entity)| ((*kind, text(entity, "id")), own_name(kind, entity)))
            .collect();
        let named = all.iter().map(|(kind, entity)| {
            let mut entity = entity.clone();
            for (field, of) in REFERENCES {
                let id = entity
                    .pointer(&format!("/{field}/id"))
                    .and_then(Value::as_str);
                if let Some(name) = id.and_then(|id| names.get(&(of, id))).cloned() {
                    entity = with(entity, field, &name);
                }
            }
            Entity::new(kind, entity)
        });
        Self {
            entities: named.collect(),
        }
    }

    fn push(&mut self, kind: &'static str, body: Value) {
        self.entities.push(Entity::new(kind, body));
    }

    fn nested(&mut self, kind: &'static str, body: Value, field: &str, of: &str) {
        self.push(kind, with(body, field, of));
    }

    fn route(&mut self, mut route: Value) {
        let plugins = taken(&mut route, "plugins");
        let of = text(&route, "name").to_owned();
        self.push("routes", route);
        for plugin in plugins {
            self.nested("plugins", plugin, "route", &of);
        }
    }
}

fn list(value: &Value, field: &str) -> Vec<Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn taken(value: &mut Value, field: &str) -> Vec<Value> {
    let taken = value
        .as_object_mut()
        .and_then(|fields| fields.remove(field));
    match taken {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn with(mut value: Value, field: &str, name: &str) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(field.to_owned(), name.into());
    }
    value
}

/// `url` of a service is short for four fields, which are what Kong keeps.
fn spread(mut service: Value) -> Value {
    let url = service
        .get("url")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let Some(text) = url else { return service };
    let (Ok(url), Some(fields)) = (reqwest::Url::parse(&text), service.as_object_mut()) else {
        return service;
    };
    fields.remove("url");
    fields.insert("protocol".to_owned(), url.scheme().into());
    fields.insert("host".to_owned(), url.host_str().unwrap_or_default().into());
    let usual = if matches!(url.scheme(), "https" | "grpcs") {
        443
    } else {
        80
    };
    fields.insert("port".to_owned(), url.port().unwrap_or(usual).into());
    // `http://host` and `http://host/` are different to Kong, and the same to this parser.
    let bare = text
        .split_once("://")
        .is_some_and(|(_, rest)| !rest.contains('/'));
    if !bare {
        fields.insert("path".to_owned(), url.path().into());
    }
    service
}

/// The name that an entity itself has.
fn own_name(kind: &str, body: &Value) -> String {
    let of = |field: &str| text(body, field).to_owned();
    match kind {
        "consumers" => of("username"),
        "certificates" => snis(body).join(", "),
        _ => of("name"),
    }
}

/// The name by which an entity is known among all: those that have none are known by where they are.
fn name(kind: &str, body: &Value) -> String {
    let place = ["route", "service", "consumer"]
        .iter()
        .filter_map(|field| Some(format!("{field} {}", body.get(field)?.as_str()?)));
    let place: Vec<String> = place.collect();
    let place = if place.is_empty() {
        "everywhere".to_owned()
    } else {
        place.join(", ")
    };
    match kind {
        "targets" => format!("{} of {}", address(body), text(body, "upstream")),
        "plugins" => format!("{} ({place})", text(body, "name")),
        "filter_chains" => format!("({place})"),
        kind => own_name(kind, body),
    }
}

/// A target's address; its port is 8000 where none is said.
fn address(target: &Value) -> String {
    let text = text(target, "target");
    let behind = text.rsplit(']').next().unwrap_or_default();
    if behind.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:8000")
    }
}

/// The names of a certificate: mappings in a configuration, plain in the admin API.
fn snis(certificate: &Value) -> Vec<String> {
    let each = list(certificate, "snis").into_iter().map(|sni| match sni {
        Value::String(name) => name,
        other => text(&other, "name").to_owned(),
    });
    let mut all: Vec<String> = each.collect();
    all.sort();
    all
}

/// The normal form of an entity; `said` is what mesh.yaml says of it.
pub fn plain(body: &Value, schema: Option<&Schema>, said: Option<&Value>) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        for field in ADDED {
            fields.remove(field);
        }
        if fields.contains_key("target") {
            let address = address(&Value::Object(fields.clone()));
            fields.insert("target".to_owned(), address.into());
        }
        if fields.contains_key("snis") && fields.contains_key("cert") {
            let names = snis(&Value::Object(fields.clone()));
            fields.insert("snis".to_owned(), names.into());
        }
    }
    let plain = match schema {
        Some(schema) => stripped(&body, schema.root(), said),
        None => body,
    };
    nothing_less(plain).unwrap_or_else(|| json!({}))
}

/// Without null, at any depth.
fn nothing_less(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let kept = fields.filter_map(|(name, value)| Some((name, nothing_less(value)?)));
            Some(Value::Object(kept.collect()))
        }
        other => Some(other),
    }
}

/// `value` without the defaults of `field`.
fn stripped(value: &Value, field: Field<'_>, said: Option<&Value>) -> Value {
    match value {
        Value::Object(fields) if field.is_record() => {
            let mut out = Map::new();
            for (name, value) in fields {
                let said = said.and_then(|said| said.get(name));
                let Some(field) = field.of(name) else {
                    if said.is_some() {
                        out.insert(name.clone(), value.clone());
                    }
                    continue;
                };
                let value = stripped(value, field, said);
                let usual = field.default().map(|usual| stripped(usual, field, None));
                let empty = field.is_record() && value.as_object().is_some_and(Map::is_empty);
                if !value.is_null() && !empty && usual.as_ref() != Some(&value) {
                    out.insert(name.clone(), value);
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let elements = field.elements();
            let said = said.and_then(Value::as_array);
            let each = items.iter().enumerate().map(|(n, item)| match elements {
                Some(elements) => stripped(item, elements, said.and_then(|said| said.get(n))),
                None => item.clone(),
            });
            let mut all: Vec<Value> = each.collect();
            if field.is_set() {
                all.sort_by_key(Value::to_string);
            }
            Value::Array(all)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
