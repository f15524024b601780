//! A container as it is written, in Compose's words and short forms: of a service, of an agent, and every part
//! under `deploy:`.

use super::gateway::filled;
use super::kong::{foreign, names};
use super::orchestrator::DAY;
use super::reader::{At, Fields, Reader, Spot, join};
use super::tree::Value;
use super::values;
use crate::container::{Condition, Port, Text, Volume};
use crate::finding::Finding;
use crate::secret::Source;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Container {
    pub name: Option<At<String>>,
    pub image: Option<At<String>>,
    pub build: Option<At<Build>>,
    pub ports: Vec<At<Port>>,
    pub environment: Vec<At<(String, Text)>>,
    pub volumes: Vec<At<Volume>>,
    pub command: Vec<At<String>>,
    pub entrypoint: Vec<At<String>>,
    pub tier: Option<At<String>>,
    pub networks: Vec<At<String>>,
    pub depends_on: Vec<At<Dependency>>,
    pub healthcheck: Option<At<Healthcheck>>,
    pub user: Option<At<String>>,
    pub restart: Option<At<String>>,
    pub compose: Option<At<Map<String, Json>>>,
    pub secrets: Option<At<BTreeMap<String, Source>>>,
    pub read_only: Option<At<bool>>,
    pub replicas: Option<At<u16>>,
    pub max_replicas: Option<At<u16>>,
    pub memory: Option<At<usize>>,
    pub cpus: Option<At<u32>>,
}

#[derive(Debug, Default)]
pub(crate) struct Build {
    pub context: Option<At<String>>,
    pub dockerfile: Option<At<String>>,
    pub target: Option<At<String>>,
    pub args: Option<At<BTreeMap<String, String>>>,
}

#[derive(Debug)]
pub(crate) struct Dependency {
    pub name: String,
    pub condition: Condition,
}

#[derive(Debug, Default)]
pub(crate) struct Healthcheck {
    pub test: Vec<At<String>>,
    pub interval: Option<At<Duration>>,
    pub timeout: Option<At<Duration>>,
    pub retries: Option<At<u32>>,
    pub start_period: Option<At<Duration>>,
}

pub(super) fn container(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Container> {
    let mut f = reader.fields(spot)?;
    let container = Container {
        name: f.optional(reader, "name", host),
        image: f.optional(reader, "image", values::text),
        build: f.optional(reader, "build", build),
        ports: names(&mut f, reader, "ports", port),
        environment: f
            .optional(reader, "environment", environment)
            .map_or_else(Vec::new, |list| list.value),
        volumes: names(&mut f, reader, "volumes", volume),
        command: names(&mut f, reader, "command", word),
        entrypoint: names(&mut f, reader, "entrypoint", word),
        tier: f.optional(reader, "tier", label),
        networks: names(&mut f, reader, "networks", label),
        depends_on: f
            .optional(reader, "depends_on", depends_on)
            .map_or_else(Vec::new, |list| list.value),
        healthcheck: f.optional(reader, "healthcheck", healthcheck),
        user: f.optional(reader, "user", values::text),
        restart: f.optional(reader, "restart", values::text),
        compose: f.optional(reader, "compose", foreign),
        secrets: f.optional(reader, "secrets", secrets),
        read_only: f.optional(reader, "read_only", values::boolean),
        replicas: f.optional(reader, "replicas", values::integer(1..=100)),
        max_replicas: f.optional(reader, "max_replicas", values::integer(1..=1000)),
        // Docker's own least.
        memory: f.optional(reader, "memory", values::size(6 << 20..=1 << 42)),
        cpus: f.optional(reader, "cpus", cpus),
    };
    f.finish(reader);
    Some(container)
}

fn build(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Build> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| serde_json::json!({"type": "string"})),
                &|reader, spot| {
                    build_mapping(reader, spot);
                },
            ],
        );
        return None;
    }
    if matches!(spot.node.value, Value::Text(_)) {
        let context = values::text(reader, spot)?;
        return Some(Build {
            context: Some(At {
                value: context,
                place: spot.node.place,
                path: spot.path.to_owned(),
            }),
            ..Build::default()
        });
    }
    build_mapping(reader, spot)
}

fn build_mapping(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Build> {
    let mut f = reader.fields(spot)?;
    let build = Build {
        context: f.required(reader, "context", "./service", values::text),
        dockerfile: f.optional(reader, "dockerfile", values::text),
        target: f.optional(reader, "target", values::text),
        args: f.optional(reader, "args", |reader, spot| {
            reader.veiled(|reader| super::trust::texts(reader, spot))
        }),
    };
    f.finish(reader);
    Some(build)
}

/// A word of a command; one may be empty, and a number is taken as it was written.
fn word(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    match &spot.node.value {
        Value::Text(text) if text.trim().is_empty() => {
            reader.open(spot.node);
            Some(text.clone())
        }
        // Closed: a secret may stand among them, which the checks say.
        _ => reader.veiled(|reader| values::text(reader, spot)),
    }
}

fn port(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Port> {
    let text = values::text(reader, spot)?;
    let port = Port::read(&text);
    if port.is_none() {
        let message = format!("{}: `{text}` is no published port", spot.path);
        let finding = Finding::error("invalid_port", spot.node.place, spot.path, message);
        reader.push(finding.hint("write \"HOST:CONTAINER\", such as \"10101:6333\""));
    }
    port
}

fn volume(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Volume> {
    let text = values::text(reader, spot)?;
    let volume = Volume::read(&text);
    if volume.is_none() {
        let message = format!("{}: `{text}` is no volume", spot.path);
        let finding = Finding::error("invalid_volume", spot.node.place, spot.path, message);
        reader.push(finding.hint("write SOURCE:/PATH or SOURCE:/PATH:ro"));
    }
    volume
}

/// A name that Compose and Kubernetes take for a network.
fn label(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() <= 63 && text.bytes().all(legal) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no name", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("letters, digits and hyphens"));
    None
}

/// Variables, each text or a reference.
fn environment(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<(String, Text)>>> {
    // Reports keys that stand twice.
    reader.fields(spot)?;
    let kinds = ["string", "number", "boolean", "null", "object"];
    reader.say(|| serde_json::json!({"additionalProperties": {"type": kinds}}));
    let Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut out = Vec::new();
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = join(spot.path, &key.text);
        let inner = Spot { node, path: &path };
        if key.text.is_empty() || key.text.contains(['=', ' ', '\0']) {
            let message = format!("{path} is no name of a variable");
            let finding = Finding::error("invalid_name", key.place, path.as_str(), message);
            reader.push(finding.hint("without =, spaces and NUL, such as LOG_LEVEL"));
            continue;
        }
        let value = match &node.value {
            // In a file that everybody may read, a variable stays one: only its name is rendered.
            _ if node.variables.is_some() => values::source(reader, inner).map(Text::Secret),
            Value::Map(_) => values::source(reader, inner).map(Text::Secret),
            // Closed: it may be a secret, which the checks say.
            Value::Text(text) => Some(Text::Plain(text.clone())),
            Value::Null => Some(Text::Plain(String::new())),
            Value::Bool(value) => Some(Text::Plain(value.to_string())),
            Value::Int(_) | Value::Float => reader
                .written(node)
                .map(|text| Text::Plain(text.to_owned())),
            Value::List(_) => {
                reader.wrong_type(inner, "text, {env: NAME} or {file: PATH}");
                None
            }
        };
        if let Some(value) = value {
            out.push(At {
                value: (key.text.clone(), value),
                place: node.place,
                path,
            });
        }
    }
    Some(out)
}

/// A list of names, or a mapping from names to conditions.
fn depends_on(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<Dependency>>> {
    if reader.describes() {
        reader.say(|| {
            serde_json::json!({
                "type": ["array", "object"],
                "items": {"type": ["string", "number"]},
                "additionalProperties": {"type": "object"},
            })
        });
        return None;
    }
    if matches!(spot.node.value, Value::List(_)) {
        return reader.list(spot, |reader, spot| {
            Some(Dependency {
                name: values::text(reader, spot)?,
                condition: Condition::default(),
            })
        });
    }
    reader.fields(spot)?;
    let Value::Map(entries) = &spot.node.value else {
        return None;
    };
    let mut out = Vec::new();
    for (key, node) in entries {
        reader.open_at(key.place);
        let path = join(spot.path, &key.text);
        let Some(mut f): Option<Fields<'_>> = reader.fields(Spot { node, path: &path }) else {
            continue;
        };
        let condition = f.optional(reader, "condition", values::choice(&Condition::ALL));
        f.finish(reader);
        out.push(At {
            value: Dependency {
                name: key.text.clone(),
                condition: condition.map(|at| at.value).unwrap_or_default(),
            },
            place: key.place,
            path,
        });
    }
    Some(out)
}

/// A mapping, or the command alone.
fn healthcheck(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Healthcheck> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| serde_json::json!({"type": "array", "items": {"type": ["string", "number"]}})),
                &|reader, spot| {
                    healthcheck_mapping(reader, spot);
                },
            ],
        );
        return None;
    }
    if matches!(spot.node.value, Value::List(_)) {
        return Some(Healthcheck {
            test: test(reader, spot)?,
            ..Healthcheck::default()
        });
    }
    healthcheck_mapping(reader, spot)
}

fn healthcheck_mapping(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Healthcheck> {
    let times = || values::duration(Duration::from_millis(1)..=DAY);
    let mut f = reader.fields(spot)?;
    let check = Healthcheck {
        test: f
            .required(
                reader,
                "test",
                "[CMD, curl, -f, http://localhost/health]",
                test,
            )
            .map_or_else(Vec::new, |list| list.value),
        interval: f.optional(reader, "interval", times()),
        timeout: f.optional(reader, "timeout", times()),
        retries: f.optional(reader, "retries", values::integer(1..=1000)),
        start_period: f.optional(
            reader,
            "start_period",
            values::duration(Duration::ZERO..=DAY),
        ),
    };
    f.finish(reader);
    Some(check)
}

fn test(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<String>>> {
    let test = filled(reader, spot, word)?;
    let first = test.first().map(|word| word.value.as_str());
    if matches!(first, Some("CMD" | "CMD-SHELL" | "NONE")) {
        return Some(test);
    }
    let message = format!("{} begins with neither CMD, CMD-SHELL nor NONE", spot.path);
    let finding = Finding::error("invalid_command", spot.node.place, spot.path, message);
    reader.push(finding.hint("write [CMD, PROGRAM, ARGUMENT], or [CMD-SHELL, \"LINE\"]"));
    None
}

/// A name that Docker and Kubernetes both take: a label of DNS (RFC 1123).
pub(super) fn host(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
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
