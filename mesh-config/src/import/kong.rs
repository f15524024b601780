//! Kong's declarative configuration: services and their routes, and everything beside them.
//!
//! Read into Kong's own types, as mesh.yaml holds them. A plugin or a route that names its owner from
//! elsewhere in the file is put where it belongs, by name or by id (`kong config db_export` writes ids).

use super::ImportError;
use super::cursor::Cursor;
use super::found::{Entity, Found};
use super::kong_parts::{self, Scope};
use super::written::{File, Service, Tls};
use mesh_declarative::Route;
use serde_json::{Map, Value as Json};
use std::collections::{HashMap, HashSet};

/// What says something about the file and nothing about the gateway.
const QUIET: [&str; 3] = ["_format_version", "_comment", "_ignore"];
/// Times and ids are Kong's own: it gives each entity new ones.
pub(super) const OWN: &str = "Kong gives ids and times itself";

/// Where services and routes are in what is written.
#[derive(Default)]
struct Names {
    services: HashMap<String, usize>,
    routes: HashMap<String, (usize, usize)>,
    taken: HashSet<String>,
}

pub(super) fn read(root: &Cursor<'_>, found: &mut Found<'_>) -> Result<File, ImportError> {
    version(root, found)?;
    let Some(mut top) = Entity::of(root, found) else {
        let problem = "a kong.yml holds a mapping";
        return Err(ImportError::Form(problem.to_owned()));
    };
    for name in QUIET {
        top.take(name);
    }
    if let Some(transform) = top.take("_transform")
        && found.scalar(&transform).as_deref() == Some("false")
    {
        found.lose(
            &transform,
            "credentials are not carried over, so nothing is transformed",
        );
    }
    let mut file = File {
        version: 1,
        ..File::default()
    };
    let mut names = Names::default();
    for at in top.take_list("services", found) {
        service(&at, &mut file, &mut names, found);
    }
    for at in top.take_list("routes", found) {
        let Some(mut entity) = Entity::of(&at, found) else {
            continue;
        };
        let owner = entity.take("service");
        let owner = owner.and_then(|owner| owner_of(&owner, found));
        match owner.and_then(|owner| names.services.get(&owner).copied()) {
            Some(number) => route(entity, number, &mut file, &mut names, found),
            None => found.lose(&at, "it leads to no service of this file"),
        }
    }
    let mut upstreams = HashMap::new();
    for at in top.take_list("upstreams", found) {
        if let Some((upstream, id)) = kong_parts::upstream(&at, found) {
            for key in id.into_iter().chain([upstream.name.clone()]) {
                upstreams.insert(key, file.gateway.upstreams.len());
            }
            file.gateway.upstreams.push(upstream);
        }
    }
    for at in top.take_list("targets", found) {
        let Some(mut entity) = Entity::of(&at, found) else {
            continue;
        };
        let owner = entity.take("upstream");
        let owner = owner.and_then(|owner| owner_of(&owner, found));
        let number = owner.and_then(|owner| upstreams.get(&owner).copied());
        let upstream = number.and_then(|number| file.gateway.upstreams.get_mut(number));
        match (upstream, kong_parts::target(entity, found)) {
            (Some(upstream), Some(target)) => upstream.targets.push(target),
            (None, _) => found.lose(&at, "it belongs to no upstream of this file"),
            (_, None) => {}
        }
    }
    for at in top.take_list("plugins", found) {
        plugin(&at, &mut file, &names, found);
    }
    let certificates = top.take_list("certificates", found);
    let certificates: Vec<_> = certificates
        .iter()
        .filter_map(|at| kong_parts::certificate(at, found))
        .collect();
    if !certificates.is_empty() {
        file.gateway.tls = Some(Tls { certificates });
        found.note("gateway.tls.listen: say where clients with TLS are to connect; without it, port 8443 beside gateway.listen");
    }
    top.finish(found, &|name| {
        Some(match name {
            "consumers" | "consumer_groups" | "acls" | "jwt_secrets" | "keyauth_credentials"
            | "basicauth_credentials" | "hmacauth_credentials" => {
                "who may call the mesh's own routes is said by gateway.auth; consumers are not carried over"
            }
            "filter_chains" => "filters follow from gateway.filters; write them there",
            "ca_certificates" | "snis" => "certificates of clients and names without a certificate have no place",
            "_info" => "it is for the tool that wrote the file",
            _ => return None,
        })
    });
    if !file.services.is_empty() {
        found.note("gateway.listen: say where clients connect; without it, 127.0.0.1:10005");
    }
    Ok(file)
}

fn version(root: &Cursor<'_>, found: &Found<'_>) -> Result<(), ImportError> {
    let version = root.get("_format_version").and_then(|at| found.scalar(&at));
    match version.as_deref() {
        Some("3.0") => Ok(()),
        None => Err(ImportError::Form(
            "a kong.yml says its version: add `_format_version: \"3.0\"` if it is one of Kong 3".to_owned(),
        )),
        Some(_) => Err(ImportError::Form(
            "only _format_version \"3.0\" is read: its paths mean something else in others; `deck file convert --from kong-gateway-2.x --to kong-gateway-3.x` makes one".to_owned(),
        )),
    }
}

/// The name or id by which an entity refers to another.
fn owner_of(at: &Cursor<'_>, found: &Found<'_>) -> Option<String> {
    let named = at.get("name").or_else(|| at.get("id"));
    found.scalar(&named.unwrap_or_else(|| at.clone()))
}

fn service(at: &Cursor<'_>, file: &mut File, names: &mut Names, found: &mut Found<'_>) {
    let Some(mut entity) = Entity::of(at, found) else {
        return;
    };
    let Some(name) = entity.take_text("name", found) else {
        found.lose(at, "a service without a name is not carried over");
        return;
    };
    if names.services.contains_key(&name) {
        found.lose(at, format!("service {name} stands there twice"));
        return;
    }
    let url = match url(&mut entity, found) {
        Ok(url) => url,
        Err(problem) => {
            found.lose(at, format!("service {name}: {problem}"));
            return;
        }
    };
    let number = file.services.len();
    if let Some(id) = entity.take("id") {
        if let Some(text) = found.scalar(&id) {
            names.services.insert(text, number);
        }
        found.note(OWN);
    }
    names.services.insert(name.clone(), number);
    let routes = entity.take_list("routes", found);
    let plugins = entity.take_list("plugins", found);
    let mut only = Map::new();
    for key in [
        "retries",
        "connect_timeout",
        "write_timeout",
        "read_timeout",
        "tls_verify",
        "tls_verify_depth",
        "enabled",
        "tags",
    ] {
        if let Some(at) = entity.take(key)
            && let Some(value) = found.json(&at)
        {
            // What is as Kong has it anyhow need not be said.
            let usual = match key {
                "retries" => Json::from(5),
                "connect_timeout" | "write_timeout" | "read_timeout" => Json::from(60_000),
                "enabled" => Json::from(true),
                "tags" => Json::Array(Vec::new()),
                _ => Json::Null,
            };
            if value != usual {
                only.insert(key.to_owned(), value);
            }
        }
    }
    kong_parts::finish(entity, found);
    file.services.push(Service {
        name: name.clone(),
        url: Some(url),
        routes: Some(Vec::new()),
        plugins: kong_parts::plugins(plugins, &Scope::new(&[&name]), found),
        kong: only,
        container: None,
    });
    for at in routes {
        if let Some(entity) = Entity::of(&at, found) {
            route(entity, number, file, names, found);
        }
    }
}

/// Where a service is, as one URL.
fn url(entity: &mut Entity<'_>, found: &mut Found<'_>) -> Result<String, String> {
    let mut text = |name: &str| entity.take_text(name, found);
    let (whole, protocol) = (text("url"), text("protocol"));
    let (host, port, path) = (text("host"), text("port"), text("path"));
    if let Some(url) = whole {
        if protocol.is_some() || host.is_some() || port.is_some() || path.is_some() {
            return Err("it says where it is by url and by parts".to_owned());
        }
        return Ok(url);
    }
    let host = host.ok_or("it says nowhere where it is")?;
    let protocol = protocol.unwrap_or_else(|| "http".to_owned());
    let port = match port {
        Some(port) => format!(":{port}"),
        // Kong's port, whatever the protocol is.
        None if protocol != "http" => ":80".to_owned(),
        None => String::new(),
    };
    Ok(format!(
        "{protocol}://{host}{port}{}",
        path.unwrap_or_default()
    ))
}

fn route(
    mut entity: Entity<'_>,
    service: usize,
    file: &mut File,
    names: &mut Names,
    found: &mut Found<'_>,
) {
    let at = entity.at.clone();
    let Some(owner) = file.services.get_mut(service) else {
        return;
    };
    let routes = owner.routes.get_or_insert_with(Vec::new);
    // Within its service it may name it all the same.
    entity.take("service");
    let id = entity.take("id").and_then(|id| found.scalar(&id));
    for key in ["created_at", "updated_at"] {
        if entity.take(key).is_some() {
            found.note(OWN);
        }
    }
    let plugins = entity.take_list("plugins", found);
    let mut object = Map::new();
    for (name, value) in entity.rest() {
        if let Some(json) = found.json(&value) {
            object.insert(name, json);
        }
    }
    if !object.contains_key("name") {
        let name = format!("{}-route-{}", owner.name, routes.len() + 1);
        found.lose(&at, format!("it has no name; it is {name} now"));
        object.insert("name".to_owned(), name.into());
    }
    let Some(mut route) = found.typed::<Route>(object, &at) else {
        return;
    };
    if !names.taken.insert(route.name.clone()) {
        found.lose(&at, format!("route {} stands there twice", route.name));
        return;
    }
    let scope = Scope::new(&[&owner.name, &route.name]);
    route.plugins = kong_parts::plugins(plugins, &scope, found);
    for key in id.into_iter().chain([route.name.clone()]) {
        names.routes.insert(key, (service, routes.len()));
    }
    routes.push(route);
}

/// A plugin beside the services: of a route, of a service, or of all.
fn plugin(at: &Cursor<'_>, file: &mut File, names: &Names, found: &mut Found<'_>) {
    let owner = |name: &str, found: &Found<'_>| at.get(name).map(|at| owner_of(&at, found));
    let (service, route) = (owner("service", found), owner("route", found));
    let place = match (service, route) {
        (None, None) => Some(&mut file.gateway.plugins),
        (Some(service), None) => service
            .and_then(|name| names.services.get(&name))
            .and_then(|number| file.services.get_mut(*number))
            .map(|service| &mut service.plugins),
        (None, Some(route)) => {
            route
                .and_then(|name| names.routes.get(&name))
                .and_then(|(service, route)| {
                    let routes = file.services.get_mut(*service)?.routes.as_mut()?;
                    routes.get_mut(*route).map(|route| &mut route.plugins)
                })
        }
        (Some(_), Some(_)) => {
            found.lose(at, "a plugin of a service and a route at once has no place");
            return;
        }
    };
    let Some(place) = place else {
        found.lose(at, "it belongs to nothing of this file");
        return;
    };
    if let Some(plugin) = kong_parts::plugin(at, &Scope::new(&[]), found) {
        place.push(plugin);
    }
}
