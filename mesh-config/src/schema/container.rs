//! A container as it is written: `container:` of an agent or a service, and every part under `deploy:`.

use super::gateway::filled;
use super::reader::{At, Reader, Spot, join};
use super::tree::Value;
use super::values;
use crate::deploy::{Port, Setting, Tier};
use crate::finding::Finding;
use crate::secret::Source;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is said of one container; what is not said is the usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Container {
    pub name: Option<At<String>>,
    pub image: Option<At<String>>,
    pub build: Option<At<String>>,
    pub dockerfile: Option<At<String>>,
    pub command: Option<At<Vec<At<String>>>>,
    pub ports: Option<At<Vec<At<Port>>>>,
    pub environment: Option<At<BTreeMap<String, Setting>>>,
    pub secrets: Option<At<BTreeMap<String, Source>>>,
    pub volumes: Option<At<Vec<At<String>>>>,
    pub tier: Option<At<Vec<At<Tier>>>>,
    pub depends_on: Option<At<Vec<At<String>>>>,
    pub healthcheck: Option<At<Vec<At<String>>>>,
    pub user: Option<At<String>>,
    pub read_only: Option<At<bool>>,
    pub replicas: Option<At<u16>>,
    pub max_replicas: Option<At<u16>>,
    pub memory: Option<At<usize>>,
    pub cpus: Option<At<u32>>,
}

/// Reads a container.
pub(super) fn container(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Container> {
    const LEAST_MEMORY: usize = 6 * 1024 * 1024; // Docker's own least
    let mut f = reader.fields(spot)?;
    let container = Container {
        name: f.optional(reader, "name", name),
        image: f.optional(reader, "image", image),
        build: f.optional(reader, "build", values::text),
        dockerfile: f.optional(reader, "dockerfile", values::text),
        command: f.optional(reader, "command", |r, s| filled(r, s, values::text)),
        ports: f.optional(reader, "ports", |r, s| r.list(s, port)),
        environment: f.optional(reader, "environment", environment),
        secrets: f.optional(reader, "secrets", secrets),
        volumes: f.optional(reader, "volumes", |r, s| r.list(s, volume)),
        tier: f.optional(reader, "tier", tiers),
        depends_on: f.optional(reader, "depends_on", |r, s| r.list(s, name)),
        healthcheck: f.optional(reader, "healthcheck", |r, s| filled(r, s, values::text)),
        user: f.optional(reader, "user", values::text),
        read_only: f.optional(reader, "read_only", values::boolean),
        replicas: f.optional(reader, "replicas", values::integer(1..=100)),
        max_replicas: f.optional(reader, "max_replicas", values::integer(1..=1000)),
        memory: f.optional(reader, "memory", values::size(LEAST_MEMORY..=1 << 42)),
        cpus: f.optional(reader, "cpus", cpus),
    };
    f.finish(reader);
    Some(container)
}

/// A name that Docker and Kubernetes both take: a label of DNS (RFC 1123).
pub(super) fn name(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let inner = !text.starts_with('-') && !text.ends_with('-');
    // What is put behind it (`-sidecar`, a number) fits into the 63 of DNS.
    if inner && text.len() <= 50 && text.bytes().all(legal) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no name of a host", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("at most 50 lower-case letters, digits and hyphens"));
    None
}

/// `NAME:TAG` or `NAME@sha256:…`. Without a tag, or with `latest`, tomorrow's container is another one.
fn image(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let odd = text.contains(|c: char| c.is_whitespace() || c == '$');
    let last = text.rsplit('/').next().unwrap_or_default();
    let pinned = match last.split_once('@') {
        Some((_, digest)) => digest.starts_with("sha256:") && digest.len() == 71,
        None => last
            .split_once(':')
            .is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty() && tag != "latest"),
    };
    if !odd && pinned {
        return Some(text);
    }
    let message = format!("{}: `{text}` names no version", spot.path);
    let finding = Finding::error("unpinned_image", spot.node.place, spot.path, message);
    reader.push(finding.hint("write NAME:VERSION, such as redis:7.2, or NAME@sha256:DIGEST"));
    None
}

/// `[ADDRESS:]HOST:CONTAINER[/udp]`, or `CONTAINER` alone, which is not published.
fn port(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Port> {
    let text = values::text(reader, spot)?;
    if let Some(port) = parse_port(&text) {
        return Some(port);
    }
    let message = format!("{}: `{text}` is no pair of ports", spot.path);
    let finding = Finding::error("invalid_port", spot.node.place, spot.path, message);
    reader.push(finding.hint(
        "write HOST:CONTAINER, such as \"10005:8000\", with /udp where it is UDP; \
         0.0.0.0:HOST:CONTAINER for other machines; CONTAINER alone for the mesh only",
    ));
    None
}

fn parse_port(text: &str) -> Option<Port> {
    let (ports, udp) = match text.rsplit_once('/') {
        Some((ports, "udp")) => (ports, true),
        Some((ports, "tcp")) => (ports, false),
        Some(_) => return None,
        None => (text, false),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let Some((outer, container)) = ports.rsplit_once(':') else {
        return Some(Port {
            address: None,
            host: None,
            container: number(ports)?,
            udp,
        });
    };
    let (address, host) = match outer.rsplit_once(':') {
        Some((address, host)) => {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            (Some(address.parse::<IpAddr>().ok()?), host)
        }
        None => (None, outer),
    };
    Some(Port {
        address,
        host: Some(number(host)?),
        container: number(container)?,
        udp,
    })
}

/// Variables and their values: texts, numbers, true or false, or `{env: NAME}` for what nobody may read here.
fn environment(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<BTreeMap<String, Setting>> {
    // Reports duplicates; the names are the user's own.
    reader.fields(spot)?;
    let Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut out = BTreeMap::new();
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = join(spot.path, &key.text);
        let spot = Spot { node, path: &path };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if key.text.is_empty() || !key.text.chars().all(legal) {
            let message = format!("`{}` cannot be a variable", key.text);
            let finding = Finding::error("invalid_name", key.place, path.as_str(), message);
            reader.push(finding.hint("letters, digits, _, . and - only"));
            continue;
        }
        let value = match &node.value {
            Value::Bool(value) => {
                reader.open(node);
                Some(Setting::Text(value.to_string()))
            }
            Value::Map(_) => match values::source(reader, spot) {
                Some(Source::Env(name)) => Some(Setting::Env(name)),
                Some(_) => {
                    let message = format!("{path} must be text or {{env: NAME}}");
                    let finding = Finding::error("wrong_type", node.place, path.as_str(), message);
                    reader.push(finding.hint("a file is mounted: name it under `secrets`"));
                    None
                }
                None => None,
            },
            _ => values::text(reader, spot).map(Setting::Text),
        };
        if let Some(value) = value {
            out.insert(key.text.clone(), value);
        }
    }
    Some(out)
}

/// Names of files under `/run/secrets`, and where their contents come from.
fn secrets(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<BTreeMap<String, Source>> {
    reader.fields(spot)?;
    let Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut out = BTreeMap::new();
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = join(spot.path, &key.text);
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if key.text.is_empty() || key.text.starts_with('.') || !key.text.bytes().all(legal) {
            let message = format!("`{}` cannot be a file below /run/secrets", key.text);
            let finding = Finding::error("invalid_name", key.place, path, message);
            reader.push(finding.hint("lower-case letters, digits, - _ and . only"));
            continue;
        }
        if let Some(source) = values::source(reader, Spot { node, path: &path }) {
            out.insert(key.text.clone(), source);
        }
    }
    Some(out)
}

/// `NAME:/PATH` for what is kept, `./PATH:/PATH` for what is there; `:ro` behind it.
fn volume(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let mut parts = text.split(':');
    let good = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(from), Some(to), mode, None) => {
            !from.is_empty() && to.starts_with('/') && mode.is_none_or(|m| matches!(m, "ro" | "rw"))
        }
        _ => false,
    };
    if good && !text.contains(['$', '\n']) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no volume", spot.path);
    let finding = Finding::error("invalid_volume", spot.node.place, spot.path, message);
    reader.push(finding.hint("write NAME:/PATH or ./PATH:/PATH:ro"));
    None
}

fn tiers(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<Tier>>> {
    if matches!(spot.node.value, Value::List(_)) {
        return filled(reader, spot, values::choice(&Tier::ALL));
    }
    let value = values::choice(&Tier::ALL)(reader, spot)?;
    let (place, path) = (spot.node.place, spot.path.to_owned());
    Some(vec![At { value, place, path }])
}

/// Processors, in thousandths: `2`, `0.5` or `500m`.
fn cpus(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<u32> {
    let text = values::text(reader, spot)?;
    let milli = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok(),
        None => text.parse::<f64>().ok().map(|whole| whole * 1000.0),
    };
    match milli {
        // Within the range nothing is cut off.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(milli) if (10.0..=1_024_000.0).contains(&milli) => Some(milli.round() as u32),
        _ => {
            let message = format!("{}: `{text}` is no number of processors", spot.path);
            let finding = Finding::error("invalid_amount", spot.node.place, spot.path, message);
            reader.push(finding.hint("write 2, 0.5 or 500m; at least 10m"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let port = |text| parse_port(text).map(|port| port.published("127.0.0.1"));
        assert_eq!(
            port("10005:8000"),
            Some(Some("127.0.0.1:10005:8000".to_owned()))
        );
        assert_eq!(
            port("8600:8600/udp"),
            Some(Some("127.0.0.1:8600:8600/udp".to_owned()))
        );
        assert_eq!(port("0.0.0.0:1:2"), Some(Some("0.0.0.0:1:2".to_owned())));
        assert_eq!(port("[::1]:1:2"), Some(Some("[::1]:1:2".to_owned())));
        assert_eq!(port("8080"), Some(None));
        for bad in [
            "", "a:1", "1:a", "0:1", "1:70000", "1:2/sctp", "x:1:2", "1:2:3:4",
        ] {
            assert_eq!(parse_port(bad), None, "{bad}");
        }
    }
}
