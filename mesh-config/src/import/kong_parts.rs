//! Kong's plugins, upstreams and certificates, one at a time.

use super::cursor::Cursor;
use super::found::{Entity, Found};
use super::kong::OWN;
use super::written::{Certificate, Text};
use crate::fronted::{Extras, references};
use crate::schema::tree::Value;
use crate::secret_names::each_in_the_clear;
use mesh_declarative::{Plugin, Upstream, UpstreamTarget};
use serde_json::{Map, Value as Json, json};

/// Whose a plugin is, for the names of its secrets.
pub(super) struct Scope(Vec<String>);

impl Scope {
    pub fn new(names: &[&str]) -> Self {
        Self(names.iter().map(|&name| name.to_owned()).collect())
    }
}

/// Names what is left of an entity.
pub(super) fn finish(mut entity: Entity<'_>, found: &mut Found<'_>) {
    for key in ["id", "created_at", "updated_at"] {
        if entity.take(key).is_some() {
            found.note(OWN);
        }
    }
    entity.finish(found, &|name| {
        Some(match name {
            "client_certificate" | "ca_certificates" => {
                "certificates towards services are the sidecars' in a mesh"
            }
            "ordering" => "the order of plugins is Kong's own here",
            "consumer" | "consumer_group" => "consumers are not carried over",
            _ => return None,
        })
    });
}

pub(super) fn plugins(list: Vec<Cursor<'_>>, scope: &Scope, found: &mut Found<'_>) -> Vec<Plugin> {
    let all = list.iter();
    all.filter_map(|at| plugin(at, scope, found)).collect()
}

pub(super) fn plugin(at: &Cursor<'_>, scope: &Scope, found: &mut Found<'_>) -> Option<Plugin> {
    let mut entity = Entity::of(at, found)?;
    let Some(name) = entity.take_text("name", found) else {
        found.lose(at, "a plugin without a name");
        return None;
    };
    // One that runs for some alone would run for all.
    for owner in ["consumer", "consumer_group"] {
        if entity.take(owner).is_some() {
            found.lose(
                at,
                format!("plugin {name} of a {owner}: consumers are not carried over"),
            );
            return None;
        }
    }
    entity.take("service");
    entity.take("route");
    let config = match entity.take("config") {
        None => Json::Null,
        Some(config) => {
            if !matches!(config.node.value, Value::Map(_)) {
                found.lose(
                    at,
                    format!("plugin {name}: its config is {}", config.kind()),
                );
                return None;
            }
            let mut json = Json::Object(found.object(&config));
            let mut mistaken = Vec::new();
            references(&json, "", &Extras::default(), &mut mistaken);
            if !mistaken.is_empty() {
                found.lose(
                    at,
                    format!(
                        "plugin {name}: mesh.yaml would take a part of its config for a reference"
                    ),
                );
                return None;
            }
            each_in_the_clear(&mut json, "", false, &mut |within, value| {
                let words: Vec<&str> = scope.0.iter().map(String::as_str).collect();
                let words = [words.as_slice(), &[&name, within]].concat();
                let path = crate::schema::reader::join(&config.path, within);
                *value = json!({"env": found.secret(&words, &path)});
            });
            json
        }
    };
    let mut object = Map::new();
    object.insert("name".to_owned(), name.into());
    for key in ["enabled", "tags", "protocols", "instance_name"] {
        if let Some(at) = entity.take(key)
            && let Some(value) = found.json(&at)
        {
            object.insert(key.to_owned(), value);
        }
    }
    finish(entity, found);
    let plugin: Plugin = found.typed(object, at)?;
    Some(Plugin { config, ..plugin })
}

/// An upstream, and its id where the file has one.
pub(super) fn upstream(
    at: &Cursor<'_>,
    found: &mut Found<'_>,
) -> Option<(Upstream, Option<String>)> {
    let mut entity = Entity::of(at, found)?;
    let id = entity.take("id").and_then(|id| found.scalar(&id));
    for key in ["created_at", "updated_at"] {
        if entity.take(key).is_some() {
            found.note(OWN);
        }
    }
    let targets = entity.take_list("targets", found);
    let mut object = Map::new();
    for (name, value) in entity.rest() {
        if let Some(json) = found.json(&value) {
            object.insert(name, json);
        }
    }
    let mut upstream: Upstream = found.typed(object, at)?;
    for at in targets {
        if let Some(entity) = Entity::of(&at, found)
            && let Some(target) = target(entity, found)
        {
            upstream.targets.push(target);
        }
    }
    Some((upstream, id))
}

pub(super) fn target(mut entity: Entity<'_>, found: &mut Found<'_>) -> Option<UpstreamTarget> {
    let at = entity.at.clone();
    let mut object = Map::new();
    for key in ["target", "weight", "tags"] {
        if let Some(at) = entity.take(key)
            && let Some(value) = found.json(&at)
        {
            object.insert(key.to_owned(), value);
        }
    }
    finish(entity, found);
    found.typed(object, &at)
}

pub(super) fn certificate(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<Certificate> {
    let mut entity = Entity::of(at, found)?;
    let cert = entity.take_text("cert", found);
    let key = entity.take("key");
    let (Some(cert), Some(key)) = (cert, key) else {
        found.lose(at, "a certificate without its key");
        return None;
    };
    let names = entity.take_list("snis", found);
    let snis: Vec<String> = names
        .iter()
        .filter_map(|name| {
            let at = name.get("name").unwrap_or_else(|| name.clone());
            let text = found.scalar(&at);
            if text.is_none() {
                found.lose(name, "a name that is none");
            }
            text
        })
        .collect();
    let words = snis.first().map_or("gateway", String::as_str);
    let of = |text: &str, what: &str, found: &mut Found<'_>, path: &str| match variable(text) {
        Some(name) => {
            found.refer(&name, path);
            Some(Text::Variable { env: name })
        }
        None if text.starts_with("{vault://") => None,
        None if what == "cert" => Some(Text::Plain(text.to_owned())),
        None => Some(Text::Variable {
            env: found.secret(&[words, "tls", what], path),
        }),
    };
    let text = found.scalar(&key).unwrap_or_default();
    let cert = of(&cert, "cert", found, &format!("{}.cert", at.path));
    let key = of(&text, "key", found, &key.path);
    let tags = entity.take_list("tags", found);
    let tags = tags.iter().filter_map(|at| found.scalar(at)).collect();
    finish(entity, found);
    let (Some(cert), Some(key)) = (cert, key) else {
        found.lose(at, "a certificate in another vault than Kong's environment");
        return None;
    };
    Some(Certificate {
        snis,
        cert,
        key,
        tags,
    })
}

/// The variable that one of Kong's references to its environment names.
fn variable(text: &str) -> Option<String> {
    let name = text.strip_prefix("{vault://env/")?.strip_suffix('}')?;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!name.is_empty() && name.chars().all(legal))
        .then(|| name.to_ascii_uppercase().replace('-', "_"))
}
