//! Services, and what the gateway has beside the mesh's own routes: names, references, secrets.

use super::ways;
use super::{error, warning};
use crate::container::Text;
use crate::finding::{Finding, nearest};
use crate::fronted::{Extras, references};
use crate::schema::{At, Container, File, Fronted, KongPlugin, nearest_place};
use crate::secret::Source;
use crate::secret_names::{command_holds_secret, holds_secret, in_the_clear, is_secret_name};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

/// Kong's own plugins of 3.9, without those of its paid edition.
pub(crate) const KONG_PLUGINS: &[&str] = &[
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// What the mesh itself brings and a container may wait for.
const PARTS: &[&str] = &[
    "consul",
    "elasticsearch",
    "gateway",
    "grafana",
    "jaeger",
    "kibana",
    "kong",
    "loki",
    "ollama",
    "orchestrator",
    "prometheus",
    "rabbitmq",
    "redis",
    "vault",
];

/// Every finding about `services:`, `gateway.plugins`, `gateway.upstreams` and `gateway.tls`.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let services: Vec<&At<Fronted>> = file.services.iter().collect();
    names(file, &services, out);
    for at in &services {
        service(at, out);
        depends_on(file, at, &services, out);
    }
    plugins(file.gateway.plugins.iter().flat_map(|p| &p.value), out);
    gateway(file, out);
    ways::run(file, out);
}

fn names(file: &File, services: &[&At<Fronted>], out: &mut Vec<Finding>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut ids: HashMap<&str, &str> = HashMap::new();
    let agents: HashSet<&str> = super::ids(file).collect();
    // In kong.yml the mesh's own services have these names.
    let own: &[&str] = if agents.is_empty() {
        &[]
    } else {
        &["orchestrator", "agents"]
    };
    for at in services {
        let Some(name) = &at.value.name else { continue };
        if let Some(line) = seen.get(name.value.as_str()) {
            let message = format!("service {} stands twice, first in line {line}", name.value);
            out.push(
                error("duplicate_service", name, message)
                    .hint("give each service a name of its own"),
            );
        }
        seen.entry(&name.value).or_insert(name.place.line);
        if agents.contains(name.value.as_str()) || own.contains(&name.value.as_str()) {
            let message = format!("service {} has the name of a part of the mesh", name.value);
            out.push(
                error("duplicate_service", name, message)
                    .hint("services, agents and the mesh's own parts share one registry"),
            );
        }
        if let Some(id) = &at.value.id
            && let Some(other) = ids.insert(&id.value, &name.value)
        {
            let message = format!("{} is also the id of service {other}", id.path);
            out.push(
                error("duplicate_service", id, message)
                    .hint("leave it out: it is then the name and -1"),
            );
        }
    }
}

fn service(at: &At<Fronted>, out: &mut Vec<Finding>) {
    let service = &at.value;
    let by_gateway =
        service.routes.is_some() || service.plugins.is_some() || service.kong.is_some();
    if !service.url_written
        && (by_gateway || service.check.is_some() || service.container.is_none())
    {
        let path = format!("{}.url", at.path);
        let message = format!("{path} is missing: where is it reached?");
        out.push(
            Finding::error("missing", at.place, path, message)
                .hint("add `url: http://HOST:PORT`, or `tcp://HOST:PORT` for what speaks no HTTP"),
        );
    }
    if let Some(url) = &service.url {
        let tcp = url.value.scheme() == "tcp";
        if tcp && by_gateway {
            let message = format!("{}: the gateway has no way to a service of tcp", url.path);
            out.push(
                error("conflict", url, message).hint("leave out `routes`, `plugins` and `kong`"),
            );
        }
        if tcp && url.value.port().is_none() {
            let message = format!("{} names no port", url.path);
            out.push(error("invalid_url", url, message).hint("write tcp://HOST:PORT"));
        }
    }
    if let Some(check) = &service.check
        && let (Some(interval), Some(timeout)) = (&check.value.interval, &check.value.timeout)
        && timeout.value > interval.value
    {
        let message = format!("{} is longer than the interval", timeout.path);
        out.push(
            warning("check_overlaps", timeout, message)
                .hint("the next question is asked before this one is given up"),
        );
    }
    plugins(service.plugins.iter().flat_map(|p| &p.value), out);
    for route in service.routes.iter().flat_map(|r| &r.value) {
        plugins(&route.value.plugins, out);
    }
    container(at, out);
}

fn plugins<'a>(plugins: impl IntoIterator<Item = &'a At<KongPlugin>>, out: &mut Vec<Finding>) {
    let mut seen: Vec<&str> = Vec::new();
    for at in plugins {
        let Some(name) = &at.value.name else { continue };
        if seen.contains(&name.value.as_str()) {
            let message = format!("plugin {} stands twice in one place", name.value);
            out.push(error("duplicate_plugin", name, message).hint("put its settings together"));
        }
        seen.push(&name.value);
        if !KONG_PLUGINS.contains(&name.value.as_str()) {
            let message = format!("{}: Kong 3.9 brings no plugin `{}`", name.path, name.value);
            let hint = match nearest(&name.value, KONG_PLUGINS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "Kong does not start unless it is installed there".to_owned(),
            };
            out.push(warning("unknown_plugin", name, message).hint(hint));
        }
        if let Some(config) = &at.value.config {
            let json = serde_json::Value::Object(config.value.json.clone());
            let mut kept = Vec::new();
            references(&json, "", &Extras::default(), &mut kept);
            for (within, source) in kept {
                let Source::Vault { path: written, .. } = source else {
                    continue;
                };
                if mesh_sidecar::vault::path(&written).is_some() {
                    continue;
                }
                let path = crate::schema::reader::join(&config.path, &within);
                let place = nearest_place(&config.value.places, &within).unwrap_or(config.place);
                let message = format!("{path} names no path of a secret of KV version 2");
                out.push(
                    Finding::error("invalid_path", place, path, message)
                        .hint("write MOUNT/data/PATH, such as secret/data/mesh"),
                );
            }
            let mut found = Vec::new();
            in_the_clear(&json, "", false, &mut found);
            for within in found {
                let path = crate::schema::reader::join(&config.path, &within);
                let place = nearest_place(&config.value.places, &within).unwrap_or(config.place);
                let message = format!("{path} is a secret and stands in the open");
                out.push(
                    Finding::error("inline_secret", place, path, message).hint(
                        "write {env: NAME}, {file: PATH} or {vault: {path: PATH, field: NAME}}",
                    ),
                );
            }
        }
    }
}

fn container(at: &At<Fronted>, out: &mut Vec<Finding>) {
    if let Some(container) = &at.value.container {
        imaged(container, out);
        contents(container, out);
    }
}

/// Whether a container has something to run.
pub(super) fn imaged(container: &At<Container>, out: &mut Vec<Finding>) {
    if container.value.image.is_none() && container.value.build.is_none() {
        let message = format!("{} has no image", container.path);
        out.push(
            error("missing", container, message)
                .hint("add `image: NAME:VERSION` or `build: DIRECTORY`"),
        );
    }
}

/// What stands in a container, whoever's it is.
pub(super) fn contents(container: &At<impl Borrow<Container>>, out: &mut Vec<Finding>) {
    let raw: &Container = container.value.borrow();
    if let (Some(image), None) = (&raw.image, &raw.build) {
        let name = image.value.rsplit('/').next().unwrap_or_default();
        if !name.contains([':', '@']) || name.ends_with(":latest") {
            let message = format!("{} has no version: it changes under your feet", image.path);
            out.push(warning("floating_image", image, message).hint("write NAME:VERSION"));
        }
    }
    let mut ports: HashSet<(Option<u16>, bool)> = HashSet::new();
    for port in &raw.ports {
        if port.value.host.is_some() && !ports.insert((port.value.host, port.value.udp)) {
            let message = format!("{} publishes a port that is taken", port.path);
            out.push(error("port_conflict", port, message).hint("choose another port"));
        }
    }
    for variable in &raw.environment {
        let (name, value) = &variable.value;
        if let Text::Plain(text) = value
            && !text.is_empty()
            && (is_secret_name(name) || holds_secret(text))
        {
            let message = format!("{} is a secret and stands in the open", variable.path);
            out.push(
                error("inline_secret", variable, message).hint("write {env: NAME} or {file: PATH}"),
            );
        }
    }
    if let Some(args) = raw
        .build
        .as_ref()
        .and_then(|build| build.value.args.as_ref())
    {
        for (name, text) in &args.value {
            if !text.is_empty() && (is_secret_name(name) || holds_secret(text)) {
                let path = crate::schema::reader::join(&args.path, name);
                let message = format!("{path} is a secret, and the image remembers it");
                out.push(
                    Finding::error("inline_secret", args.place, path, message)
                        .hint("mount it where the image is built, or put it into `environment`"),
                );
            }
        }
    }
    let test = raw.healthcheck.iter().map(|check| &check.value.test);
    for words in [&raw.command, &raw.entrypoint].into_iter().chain(test) {
        let Some(first) = words.first() else { continue };
        if command_holds_secret(words.iter().map(|word| &*word.value)) {
            let path = first.path.strip_suffix("[0]").unwrap_or(&first.path);
            let message = format!("{path} holds a secret in the open");
            out.push(
                Finding::error("inline_secret", first.place, path, message).hint(
                    "put it into `environment`, as {env: NAME}, and let a shell read it: [sh, -c, 'x --password $NAME']",
                ),
            );
        }
    }
    if let Some(compose) = &raw.compose {
        let mut found = Vec::new();
        let json = serde_json::Value::Object(compose.value.clone());
        in_the_clear(&json, "", false, &mut found);
        for within in found {
            let path = crate::schema::reader::join(&compose.path, &within);
            let message = format!("{path} is a secret and stands in the open");
            out.push(
                Finding::error("inline_secret", compose.place, path, message)
                    .hint("put it into `environment`, as {env: NAME} or {file: PATH}"),
            );
        }
    }
}

fn depends_on(file: &File, at: &At<Fronted>, services: &[&At<Fronted>], out: &mut Vec<Finding>) {
    let Some(container) = &at.value.container else {
        return;
    };
    for dependency in &container.value.depends_on {
        let name = dependency.value.name.as_str();
        let named =
            |service: &&&At<Fronted>| service.value.name.as_ref().is_some_and(|n| n.value == name);
        if services.iter().any(|service| named(&service))
            || PARTS.contains(&name)
            || super::ids(file).any(|id| id == name)
        {
            continue;
        }
        let known = services.iter().filter_map(|s| s.value.name.as_ref());
        let known = known
            .map(|name| name.value.as_str())
            .chain(PARTS.iter().copied());
        let message = format!("{}: there is no service {name}", dependency.path);
        let finding = error("unknown_service", dependency, message);
        out.push(match nearest(name, known) {
            Some(near) => finding.hint(format!("did you mean {near}?")),
            None => finding.hint("name a service, an agent or a part of the mesh"),
        });
    }
}

/// Pools and certificates.
fn gateway(file: &File, out: &mut Vec<Finding>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for at in file.gateway.upstreams.iter().flat_map(|u| &u.value) {
        let name = at.value.name.as_str();
        if !seen.insert(name) {
            let message = format!("upstream {name} stands twice");
            out.push(error("duplicate_upstream", at, message).hint("put the targets together"));
        }
        let mut targets: HashSet<&str> = HashSet::new();
        for target in &at.value.targets {
            if !targets.insert(&target.target) {
                let message = format!("upstream {name} has the target {} twice", target.target);
                out.push(
                    error("duplicate_target", at, message).hint("give it the sum of the weights"),
                );
            }
        }
        if at.value.targets.is_empty() {
            let message = format!("upstream {name} has no targets: every request gets 503");
            out.push(warning("no_effect", at, message).hint("add targets"));
        }
    }
    let Some(tls) = &file.gateway.tls else { return };
    let mut names: HashSet<&str> = HashSet::new();
    for certificate in &tls.value.certificates {
        for sni in &certificate.value.snis {
            if !names.insert(&sni.value) {
                let message = format!("{}: {} has a certificate already", sni.path, sni.value);
                out.push(
                    error("duplicate_sni", sni, message).hint("one certificate for each name"),
                );
            }
        }
        if let Some(key) = &certificate.value.key
            && matches!(key.value, Source::Inline(_))
        {
            let message = format!(
                "{} is a private key and does not belong in this file",
                key.path
            );
            out.push(
                error("inline_secret", key, message).hint("write {file: PATH} or {env: NAME}"),
            );
        }
    }
}
