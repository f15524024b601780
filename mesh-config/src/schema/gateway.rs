//! `gateway:` as it is written.

use super::filters::{Filters, Setting, filters, setting_of};
use super::kong::{Plugin, Tls, plugin, tls, upstream};
use super::reader::{At, Reader, Spot};
use super::services::{Sidecar, Ways, sidecar};
use super::values;
use crate::finding::Finding;
use crate::guard::check_name;
use crate::mesh::Destination;
use crate::secret::Source;
use mesh_declarative::{PathError, Upstream};
use mesh_policy::config::Algorithm;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub listen: Option<At<SocketAddr>>,
    pub auth: Option<At<Auth>>,
    pub routes: Option<At<Vec<At<Route>>>>,
    pub sidecar: Option<At<Sidecar>>,
    pub filters: Option<At<Filters>>,
    pub admin: Option<At<Url>>,
    pub plugins: Option<At<Vec<At<Plugin>>>>,
    pub upstreams: Option<At<Vec<At<Upstream>>>>,
    pub tls: Option<At<Tls>>,
}

#[derive(Debug, Default)]
pub(crate) struct Auth {
    pub development: Option<At<bool>>,
    pub issuers: Option<At<Vec<At<Issuer>>>>,
    pub assertion_key: Option<At<Source>>,
    pub assertion_lifetime: Option<At<Duration>>,
}

#[derive(Debug)]
pub(crate) struct Issuer {
    pub issuer: Option<At<String>>,
    pub audiences: Vec<At<String>>,
    pub keys: Vec<At<Key>>,
    pub jwks_url: Option<At<Setting>>,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub id: Option<At<String>>,
    pub algorithm: Option<At<Algorithm>>,
    pub secret: Option<At<Source>>,
    pub public_key: Option<At<Source>>,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub name: Option<At<String>>,
    pub paths: Vec<At<String>>,
    pub methods: Vec<At<String>>,
    pub strip_path: Option<At<bool>>,
    pub to: Option<At<Destination>>,
    pub filters: Option<At<Filters>>,
}

/// `guarded`: whether there are routes of the mesh's own, or agents that they lead to.
pub(super) fn gateway(reader: &mut Reader<'_>, spot: Spot<'_>, guarded: bool) -> Option<Gateway> {
    let mut f = reader.fields(spot)?;
    let gateway = Gateway {
        listen: f.optional(reader, "listen", values::listen),
        auth: if guarded {
            f.required(reader, "auth", "{development: true}", auth)
        } else {
            f.optional(reader, "auth", auth)
        },
        routes: f.optional(reader, "routes", |r, s| r.list(s, route)),
        sidecar: f.optional(reader, "sidecar", sidecar(Ways::Out)),
        filters: f.optional(reader, "filters", filters),
        admin: f
            .optional(reader, "admin", admin)
            .map(|at| at.map(|url| url.value)),
        plugins: f.optional(reader, "plugins", |r, s| r.list(s, plugin)),
        upstreams: f.optional(reader, "upstreams", |r, s| r.list(s, upstream)),
        tls: f.optional(reader, "tls", tls),
    };
    f.finish(reader);
    Some(gateway)
}

/// Where Kong's admin API is.
fn admin(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<At<Url>> {
    const EXAMPLE: &str = "http://127.0.0.1:8001";
    let mut f = reader.fields(spot)?;
    let url = values::open_url(&["http", "https"], EXAMPLE);
    let url = f.required(reader, "url", EXAMPLE, url);
    f.finish(reader);
    url
}

fn auth(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Auth> {
    let mut f = reader.fields(spot)?;
    let mut auth = Auth {
        development: f.optional(reader, "development", values::boolean),
        issuers: f.optional(reader, "issuers", |r, s| r.list(s, issuer)),
        ..Auth::default()
    };
    let assertion = f.optional(reader, "assertion", |reader, spot| {
        let mut f = reader.fields(spot)?;
        let key = f.optional(reader, "key", values::source);
        // An assertion is made anew for every request; a long one only serves a thief.
        let bounds = Duration::from_secs(5)..=Duration::from_secs(600);
        let lifetime = f.optional(reader, "lifetime", values::duration(bounds));
        f.finish(reader);
        Some((key, lifetime))
    });
    f.finish(reader);
    if let Some(assertion) = assertion {
        (auth.assertion_key, auth.assertion_lifetime) = assertion.value;
    }
    Some(auth)
}

fn issuer(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Issuer> {
    let mut f = reader.fields(spot)?;
    let issuer = Issuer {
        issuer: f.required(reader, "issuer", "https://issuer.example", token_name),
        audiences: f
            .required(reader, "audiences", "[my-mesh]", |r, s| {
                filled(r, s, token_name)
            })
            .map(|a| a.value)
            .unwrap_or_default(),
        keys: f
            .optional(reader, "keys", |r, s| filled(r, s, key))
            .map(|k| k.value)
            .unwrap_or_default(),
        jwks_url: f.optional(reader, "jwks_url", setting_of("jwks_url")),
    };
    f.finish(reader);
    Some(issuer)
}

fn key(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Key> {
    let mut f = reader.fields(spot)?;
    let key = Key {
        id: f.optional(reader, "id", token_name),
        algorithm: f.required(
            reader,
            "algorithm",
            "ES256",
            values::choice(&Algorithm::NAMED),
        ),
        secret: f.optional(reader, "secret", values::source),
        public_key: f.optional(reader, "public_key", values::source),
    };
    f.finish(reader);
    Some(key)
}

fn route(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Route> {
    let mut f = reader.fields(spot)?;
    let route = Route {
        name: f.required(reader, "name", "orchestrate", route_name),
        paths: f
            .required(reader, "paths", "[/ai/orchestrate]", |r, s| {
                filled(r, s, path)
            })
            .map(|p| p.value)
            .unwrap_or_default(),
        methods: f
            .optional(reader, "methods", |r, s| r.list(s, method))
            .map(|m| m.value)
            .unwrap_or_default(),
        strip_path: f.optional(reader, "strip_path", values::boolean),
        to: f.optional(reader, "to", values::choice(&Destination::ALL)),
        filters: f.optional(reader, "filters", filters),
    };
    f.finish(reader);
    Some(route)
}

pub(super) fn route_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if mesh_declarative::is_name(&text) {
        return Some(text);
    }
    let message = format!("{}: `{text}` cannot name a route", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("letters, digits, '.', '_', '~' and '-'"));
    None
}

pub(super) fn path(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let Err(problem) = mesh_declarative::check_path(&text) else {
        return Some(text);
    };
    let message = format!("{}: `{text}` {problem}", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader.push(match problem {
        PathError::NotNormal(normal) => finding.hint(format!("write {normal}")),
        PathError::Expression => finding.hint("write a prefix, such as /ai"),
        PathError::Character('?' | '#') => finding.hint("write the path alone"),
        PathError::Character(_) => finding.hint("write it percent-encoded, such as %20"),
        PathError::Escape => finding.hint("write % as %25"),
        PathError::Relative => finding.hint("begin with /, such as /ai"),
    });
    None
}

/// A name that tokens are compared with, as the filter takes it.
fn token_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if let Err(problem) = check_name(&text) {
        let message = format!("{} {problem}", spot.path);
        let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
        reader.push(finding.hint("write it as the tokens have it, in printable characters"));
        return None;
    }
    Some(text)
}

pub(super) fn method(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    const METHODS: &[(&str, &str)] = &[
        ("GET", "GET"),
        ("HEAD", "HEAD"),
        ("POST", "POST"),
        ("PUT", "PUT"),
        ("PATCH", "PATCH"),
        ("DELETE", "DELETE"),
        ("OPTIONS", "OPTIONS"),
    ];
    values::choice(METHODS)(reader, spot).map(str::to_owned)
}

/// A list with at least one item.
pub(super) fn filled<T>(
    reader: &mut Reader<'_>,
    spot: Spot<'_>,
    read: impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<T>,
) -> Option<Vec<At<T>>> {
    reader.say(|| serde_json::json!({"minItems": 1}));
    if matches!(&spot.node.value, super::tree::Value::List(items) if items.is_empty()) {
        let message = format!("{} is empty", spot.path);
        let finding = Finding::error("empty", spot.node.place, spot.path, message);
        reader.push(finding.hint("write at least one, or leave the key out where it may be"));
        return None;
    }
    reader.list(spot, read)
}
