//! `services:` as it is written: what the mesh fronts or leans on.

use super::container::{Container, container};
use super::gateway::{filled, method, path, route_name};
use super::kong::{Plugin, names, plugin};
use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::values;
use crate::finding::Finding;
use crate::fronted::Ask;
use mesh_declarative::{PathHandling, Protocol};
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Fronted {
    pub name: Option<At<String>>,
    pub url: Option<At<Url>>,
    /// Whether there is a URL, be it one that cannot be read.
    pub url_written: bool,
    pub id: Option<At<String>>,
    pub tags: Option<At<Vec<At<String>>>>,
    pub check: Option<At<Check>>,
    pub routes: Option<At<Vec<At<FrontedRoute>>>>,
    pub plugins: Option<At<Vec<At<Plugin>>>>,
    pub kong: Option<At<KongOnly>>,
    pub metrics: Option<At<Metrics>>,
    pub container: Option<At<Container>>,
}

#[derive(Debug, Default)]
pub(crate) struct Check {
    pub ask: Option<Ask>,
    pub interval: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
}

#[derive(Debug, Default)]
pub(crate) struct FrontedRoute {
    pub name: Option<At<String>>,
    /// Whether it says which requests it takes, be it in a way that cannot be read.
    pub conditioned: bool,
    pub paths: Vec<At<String>>,
    pub methods: Vec<At<String>>,
    pub hosts: Vec<At<String>>,
    pub headers: Option<At<BTreeMap<String, Vec<String>>>>,
    pub snis: Vec<At<String>>,
    pub protocols: Option<At<Vec<At<Protocol>>>>,
    pub strip_path: Option<At<bool>>,
    pub preserve_host: Option<At<bool>>,
    pub regex_priority: Option<At<i32>>,
    pub https_redirect_status_code: Option<At<u16>>,
    pub path_handling: Option<At<PathHandling>>,
    pub request_buffering: Option<At<bool>>,
    pub response_buffering: Option<At<bool>>,
    pub tags: Vec<At<String>>,
    pub plugins: Vec<At<Plugin>>,
}

/// What a service of Kong has beside address, routes and plugins, as Kong has it.
#[derive(Debug, Default)]
pub(crate) struct KongOnly {
    pub retries: Option<At<u32>>,
    pub connect_timeout: Option<At<u32>>,
    pub write_timeout: Option<At<u32>>,
    pub read_timeout: Option<At<u32>>,
    pub tls_verify: Option<At<bool>>,
    pub tls_verify_depth: Option<At<u8>>,
    pub enabled: Option<At<bool>>,
    pub tags: Vec<At<String>>,
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub job: Option<At<String>>,
    pub path: Option<At<String>>,
    pub port: Option<At<u16>>,
    pub scheme: Option<At<&'static str>>,
    pub params: Option<At<BTreeMap<String, Vec<String>>>>,
    pub interval: Option<At<Duration>>,
}

pub(super) fn fronted(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Fronted> {
    const SCHEMES: &[&str] = &["http", "https", "grpc", "grpcs", "tcp"];
    let mut f = reader.fields(spot)?;
    let fronted = Fronted {
        name: f.required(reader, "name", "backend-api", service_name),
        url_written: f.names().any(|key| key.text == "url"),
        url: f.optional(
            reader,
            "url",
            values::open_url(SCHEMES, "http://backend:8000"),
        ),
        id: f.optional(reader, "id", values::text),
        tags: f.optional(reader, "tags", |r, s| r.list(s, values::text)),
        check: f.optional(reader, "check", check),
        routes: f.optional(reader, "routes", |r, s| r.list(s, route)),
        plugins: f.optional(reader, "plugins", |r, s| r.list(s, plugin)),
        kong: f.optional(reader, "kong", kong_only),
        metrics: f.optional(reader, "metrics", metrics),
        container: f.optional(reader, "container", container),
    };
    f.finish(reader);
    Some(fronted)
}

/// As Kong takes it, and short enough to be a label of a host's name.
fn service_name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if mesh_declarative::is_name(&text) && text.len() <= 63 {
        return Some(text);
    }
    let message = format!("{}: `{text}` cannot name a service", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 63 letters, digits and hyphens"));
    None
}

fn check(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Check> {
    let mut f = reader.fields(spot)?;
    let http = values::open_url(&["http", "https"], "http://backend:8000/health");
    let http = f.optional(reader, "http", http);
    let tcp = f.optional(reader, "tcp", authority);
    let times = || values::duration(Duration::from_millis(100)..=DAY);
    let check = Check {
        interval: f.optional(reader, "interval", times()),
        timeout: f.optional(reader, "timeout", times()),
        ask: match (&http, &tcp) {
            (Some(url), None) => Some(Ask::Http(url.value.clone())),
            (None, Some(tcp)) => Some(Ask::Tcp(tcp.value.clone())),
            _ => None,
        },
    };
    let named = f
        .names()
        .filter(|k| matches!(k.text.as_str(), "http" | "tcp"));
    let named = named.count();
    f.finish(reader);
    if named != 1 {
        let message = format!("{} must hold either http or tcp", spot.path);
        let finding = Finding::error("missing", spot.node.place, spot.path, message);
        reader.push(finding.hint("write {http: \"http://HOST:PORT/health\"} or {tcp: HOST:PORT}"));
        return None;
    }
    Some(check)
}

/// `HOST:PORT`.
fn authority(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let port = text.rsplit_once(':').map(|(host, port)| {
        let host = !host.is_empty() && !host.contains(['/', '@', ' ']);
        host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if port == Some(true) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no host and port", spot.path);
    let finding = Finding::error("invalid_address", spot.node.place, spot.path, message);
    reader.push(finding.hint("write HOST:PORT, such as redis:6379"));
    None
}

fn route(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<FrontedRoute> {
    const PROTOCOLS: &[(&str, Protocol)] = &[
        ("http", Protocol::Http),
        ("https", Protocol::Https),
        ("grpc", Protocol::Grpc),
        ("grpcs", Protocol::Grpcs),
    ];
    const HANDLINGS: &[(&str, PathHandling)] =
        &[("v0", PathHandling::V0), ("v1", PathHandling::V1)];
    const CONDITIONS: [&str; 5] = ["paths", "methods", "hosts", "headers", "snis"];
    let mut f = reader.fields(spot)?;
    let route = FrontedRoute {
        conditioned: f.holds(&CONDITIONS),
        name: f.required(reader, "name", "backend-route", route_name),
        paths: names(&mut f, reader, "paths", any_path),
        methods: names(&mut f, reader, "methods", method),
        hosts: names(&mut f, reader, "hosts", host),
        headers: f.optional(reader, "headers", lists),
        snis: names(&mut f, reader, "snis", host),
        protocols: f.optional(reader, "protocols", |r, s| {
            filled(r, s, values::choice(PROTOCOLS))
        }),
        strip_path: f.optional(reader, "strip_path", values::boolean),
        preserve_host: f.optional(reader, "preserve_host", values::boolean),
        regex_priority: f.optional(reader, "regex_priority", values::integer(0..=65_535)),
        https_redirect_status_code: f.optional(
            reader,
            "https_redirect_status_code",
            redirect_status,
        ),
        path_handling: f.optional(reader, "path_handling", values::choice(HANDLINGS)),
        request_buffering: f.optional(reader, "request_buffering", values::boolean),
        response_buffering: f.optional(reader, "response_buffering", values::boolean),
        tags: names(&mut f, reader, "tags", values::text),
        plugins: names(&mut f, reader, "plugins", plugin),
    };
    f.finish(reader);
    Some(route)
}

/// A prefix, or a regular expression behind `~`.
fn any_path(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let is_expression =
        matches!(&spot.node.value, super::tree::Value::Text(t) if t.starts_with('~'));
    if !is_expression {
        return path(reader, spot);
    }
    let text = values::text(reader, spot)?;
    if text.starts_with("~/") {
        return Some(text);
    }
    let message = format!("{}: `{text}` does not begin with ~/", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader
        .push(finding.hint("write a prefix, such as /api, or an expression, such as ~/api/v[12]$"));
    None
}

/// A host name, with `*` as its first or last label at most.
fn host(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let bare = match (text.strip_prefix("*."), text.strip_suffix(".*")) {
        (Some(bare), _) | (None, Some(bare)) => bare,
        _ if text == "*" => return Some(text),
        _ => &text,
    };
    if !bare.is_empty() && !bare.contains(['*', '/', ' ', '@', '?', '#']) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no host name", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("write a name such as api.example or *.example"));
    None
}

fn redirect_status(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<u16> {
    const KNOWN: [u16; 5] = [426, 301, 302, 307, 308];
    let status = values::integer(100..=599)(reader, spot)?;
    if KNOWN.contains(&status) {
        return Some(status);
    }
    let message = format!("{} must be one of 426, 301, 302, 307, 308", spot.path);
    reader.error("out_of_range", spot, message);
    None
}

/// A mapping from names to lists of texts.
pub(super) fn lists(
    reader: &mut Reader<'_>,
    spot: Spot<'_>,
) -> Option<BTreeMap<String, Vec<String>>> {
    // Reports keys that stand twice.
    reader.fields(spot)?;
    let super::tree::Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut out = BTreeMap::new();
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = super::reader::join(spot.path, &key.text);
        let spot = Spot { node, path: &path };
        if let Some(items) = reader.list(spot, values::text) {
            let items = items.into_iter().map(|item| item.value);
            out.insert(key.text.clone(), items.collect());
        }
    }
    Some(out)
}

fn kong_only(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<KongOnly> {
    let times = || values::integer(1..=2_147_483_646);
    let mut f = reader.fields(spot)?;
    let only = KongOnly {
        retries: f.optional(reader, "retries", values::integer(0..=32_767)),
        connect_timeout: f.optional(reader, "connect_timeout", times()),
        write_timeout: f.optional(reader, "write_timeout", times()),
        read_timeout: f.optional(reader, "read_timeout", times()),
        tls_verify: f.optional(reader, "tls_verify", values::boolean),
        tls_verify_depth: f.optional(reader, "tls_verify_depth", values::integer(0..=64)),
        enabled: f.optional(reader, "enabled", values::boolean),
        tags: names(&mut f, reader, "tags", values::text),
    };
    f.finish(reader);
    Some(only)
}

fn metrics(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Metrics> {
    const SCHEMES: &[(&str, &str)] = &[("http", "http"), ("https", "https")];
    let mut f = reader.fields(spot)?;
    let metrics = Metrics {
        job: f.optional(reader, "job", values::text),
        path: f.optional(reader, "path", path),
        port: f.optional(reader, "port", values::integer(1..=65_535)),
        scheme: f.optional(reader, "scheme", values::choice(SCHEMES)),
        params: f.optional(reader, "params", lists),
        interval: f.optional(
            reader,
            "interval",
            values::duration(Duration::from_millis(100)..=DAY),
        ),
    };
    f.finish(reader);
    Some(metrics)
}
