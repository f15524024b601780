//! Who may come in, with which keys, and by which routes.

use super::filters::filter_fault;
use super::{error, warning};
use crate::compile::default_routes;
use crate::finding::{Finding, Place};
use crate::guard::{check_jwks_url, check_key, is_symmetric};
use crate::schema::{At, Auth, File, Issuer, Key, Route};
use crate::secret::Source;
use std::net::SocketAddr;

/// Every finding about `gateway:` as a whole.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let raw = &file.gateway;
    if let Some(auth) = &raw.auth {
        authentication(auth, raw.listen.as_ref(), out);
    } else if raw.listen.is_none() && raw.routes.is_none() && !file.fronts_only {
        let message = "gateway.auth is missing: who may come in?";
        out.push(
            Finding::error("missing", Place::default(), "gateway.auth", message)
                .hint("add `gateway: {auth: {development: true}}` for tokens of `mesh token`"),
        );
    }
    routes(raw.routes.iter().flat_map(|r| &r.value), out);
    if let Some(routes) = &raw.routes
        && routes.value.is_empty()
        && !file.fronts_only
        && file.services.is_empty()
    {
        let names: Vec<_> = default_routes().into_iter().map(|r| r.name).collect();
        let message = "the gateway has no routes, so nobody can come in";
        out.push(warning("no_routes", routes, message).hint(format!(
            "leave `routes` out for the usual ones: {}",
            names.join(", ")
        )));
    }
}

/// Names are unique, and no route takes what another one takes before it.
fn routes<'a>(routes: impl Iterator<Item = &'a At<Route>>, out: &mut Vec<Finding>) {
    let mut names: Vec<&At<String>> = Vec::new();
    let mut taken: Vec<(&At<String>, &[At<String>])> = Vec::new();
    for route in routes {
        if let Some(name) = &route.value.name {
            if names.iter().any(|n| n.value == name.value) {
                let message = format!("route {} stands twice", name.value);
                out.push(error("duplicate_route", name, message));
            }
            names.push(name);
        }
        let methods = route.value.methods.as_slice();
        for path in &route.value.paths {
            let first = taken.iter().find(|(other, theirs)| {
                // A route with methods goes before one without, which then takes the rest.
                let meet = if methods.is_empty() || theirs.is_empty() {
                    methods.is_empty() && theirs.is_empty()
                } else {
                    methods
                        .iter()
                        .any(|m| theirs.iter().any(|t| t.value == m.value))
                };
                other.value == path.value && meet
            });
            if let Some((other, _)) = first {
                let message = format!("{} already takes {}", other.path, path.value);
                out.push(
                    error("duplicate_path", path, message)
                        .hint("a request takes one route: give each its own paths or methods"),
                );
            }
            taken.push((path, methods));
        }
    }
}

fn authentication(auth: &At<Auth>, listen: Option<&At<SocketAddr>>, out: &mut Vec<Finding>) {
    let raw = &auth.value;
    let development = raw.development.as_ref().filter(|d| d.value);
    let issuers = raw.issuers.as_ref().filter(|i| !i.value.is_empty());
    match (development, issuers) {
        (Some(development), Some(_)) => out.push(
            error(
                "conflict",
                development,
                "development tokens and issuers cannot both be accepted",
            )
            .hint("remove `development`"),
        ),
        (None, None) => out.push(
            error("missing", auth, format!("{} accepts nobody", auth.path))
                .hint("add `development: true`, or `issuers`"),
        ),
        (Some(_), None) => {
            if let Some(listen) = listen
                && !listen.value.ip().is_loopback()
            {
                let message = format!(
                    "{} is open to other machines, and whoever can read this directory can make a development token",
                    listen.path
                );
                out.push(
                    error("development_not_loopback", listen, message)
                        .hint("listen on 127.0.0.1, or name real issuers"),
                );
            }
        }
        (None, Some(issuers)) => {
            if raw.assertion_key.is_none() {
                let path = format!("{}.assertion.key", auth.path);
                let message = format!("{path} is missing: with what does the gateway sign?");
                out.push(Finding::error("missing", auth.place, path, message).hint(
                    "add `assertion: {key: {file: PATH}}`; make one with `openssl genpkey -algorithm ed25519`",
                ));
            }
            issuer_keys(&issuers.value, out);
        }
    }
    if let Some(key) = &raw.assertion_key
        && matches!(key.value, Source::Inline(_))
    {
        let message = format!(
            "{} is a private key and does not belong in this file",
            key.path
        );
        out.push(error("inline_secret", key, message).hint("write {file: PATH} or {env: NAME}"));
    }
}

fn issuer_keys(issuers: &[At<Issuer>], out: &mut Vec<Finding>) {
    let mut names: Vec<&str> = Vec::new();
    for issuer in issuers {
        if let Some(name) = &issuer.value.issuer {
            if names.contains(&name.value.as_str()) {
                let message = format!("issuer {} stands twice", name.value);
                out.push(error("duplicate_issuer", name, message).hint("put its keys together"));
            }
            names.push(&name.value);
        }
        if issuer.value.keys.is_empty() && issuer.value.jwks_url.is_none() {
            let message = format!("{} has no keys", issuer.path);
            out.push(
                error("missing", issuer, message)
                    .hint("add `keys`, or `jwks_url` for keys that are fetched"),
            );
        }
        if let Some(url) = &issuer.value.jwks_url
            && let Some(config) = &url.value.config
        {
            let faults = check_jwks_url(&serde_json::Value::Object(config.clone()));
            out.extend(faults.iter().map(|fault| filter_fault(url, fault)));
        }
        let mut ids: Vec<Option<&str>> = Vec::new();
        for key in &issuer.value.keys {
            let id = key.value.id.as_ref().map(|id| id.value.as_str());
            if ids.contains(&id) {
                let message = match id {
                    Some(id) => format!("key {id} stands twice"),
                    None => "two keys of one issuer have no id".to_owned(),
                };
                out.push(
                    error("duplicate_key_id", key, message)
                        .hint("the id chooses the key; give each its own"),
                );
            }
            ids.push(id);
            key_material(key, out);
        }
    }
}

/// Exactly what the algorithm needs.
fn key_material(at: &At<Key>, out: &mut Vec<Finding>) {
    let key = &at.value;
    let Some(algorithm) = &key.algorithm else {
        return;
    };
    let symmetric = is_symmetric(algorithm.value);
    let (right, wrong, name) = if symmetric {
        (&key.secret, &key.public_key, "secret")
    } else {
        (&key.public_key, &key.secret, "public_key")
    };
    if let Some(wrong) = wrong {
        let message = format!("{} does not go with {:?}", wrong.path, algorithm.value);
        out.push(
            error("wrong_key", wrong, message)
                .hint(format!("{:?} needs `{name}`", algorithm.value)),
        );
    }
    let Some(right) = right else {
        if wrong.is_none() {
            let message = format!("{}.{name} is missing", at.path);
            out.push(error("missing", at, message).hint(format!(
                "add `{name}: {{file: PATH}}` or `{name}: {{env: NAME}}`"
            )));
        }
        return;
    };
    if let Source::Inline(text) = &right.value {
        if let Err(problem) = check_key(algorithm.value, text) {
            out.push(error(
                "wrong_key",
                right,
                format!("{}: {problem}", right.path),
            ));
        } else if symmetric {
            let message = format!("{} is a secret and stands in the open", right.path);
            out.push(
                warning("inline_secret", right, message).hint("write {file: PATH} or {env: NAME}"),
            );
        }
    }
}
