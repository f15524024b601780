//! Who is who, who finds whom, and who may call whom: `identity:`, `registry:`, `intentions:`, `traces:`.

use super::gateway::filled;
use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::tree::Value;
use super::values;
use crate::finding::Finding;
use crate::secret::Source;
use mesh_sidecar::config::{Action, Callers, ServiceName};
use mesh_trace::Protocol;
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub source: Option<At<&'static str>>,
    pub trust_domain: Option<At<String>>,
    pub warn_before: Option<At<Duration>>,
    pub lifetime: Option<At<Duration>>,
    pub directory: Option<At<String>>,
    pub certificate: Option<At<String>>,
    pub key: Option<At<String>>,
    pub roots: Option<At<String>>,
    pub url: Option<At<Url>>,
    pub mount: Option<At<String>>,
    pub role: Option<At<String>>,
    pub token: Option<At<Source>>,
    pub ca: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub consul: Option<At<bool>>,
    pub url: Option<At<Url>>,
    pub token: Option<At<Source>>,
    pub ca: Option<At<String>>,
}

#[derive(Debug)]
pub(crate) struct Intention {
    pub from: Option<At<Services>>,
    pub to: Option<At<Services>>,
    pub action: Option<At<Action>>,
    pub methods: Vec<At<String>>,
    pub paths: Vec<At<String>>,
    pub callers: Option<At<Callers>>,
}

/// The services that an intention names.
#[derive(Debug, Clone)]
pub(crate) enum Services {
    /// `any`.
    Any,
    /// One name, or a list of them.
    Named(Vec<At<ServiceName>>),
}

#[derive(Debug, Default)]
pub(crate) struct Traces {
    pub endpoint: Option<At<Url>>,
    pub protocol: Option<At<Protocol>>,
    pub sample_percent: Option<At<u32>>,
}

pub(super) const SOURCES: &[(&str, &str)] = &[
    ("development", "development"),
    ("consul", "consul"),
    ("files", "files"),
    ("vault", "vault"),
];

pub(super) fn identity(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Identity> {
    let mut f = reader.fields(spot)?;
    let mut out = Identity {
        source: f.required(reader, "source", "development", values::choice(SOURCES)),
        trust_domain: f.optional(reader, "trust_domain", trust_domain),
        warn_before: f.optional(
            reader,
            "warn_before",
            values::duration(Duration::ZERO..=DAY * 30),
        ),
        ..Identity::default()
    };
    let source = out.source.as_ref().map_or("", |source| source.value);
    if f.when(reader, "source", "development", source) {
        let lifetimes = Duration::from_secs(2)..=DAY * 365;
        out.lifetime = f.optional(reader, "lifetime", values::duration(lifetimes));
        out.directory = f.optional(reader, "directory", values::text);
    }
    if f.when(reader, "source", "files", source) {
        out.certificate = f.required(reader, "certificate", "certs/{service}.pem", values::text);
        out.key = f.required(reader, "key", "certs/{service}.key", values::text);
        out.roots = f.required(reader, "roots", "certs/roots.pem", values::text);
    }
    if f.when(reader, "source", "vault", source) {
        const EXAMPLE: &str = "https://127.0.0.1:8200";
        out.url = f.required(
            reader,
            "url",
            EXAMPLE,
            values::open_url(&["http", "https"], EXAMPLE),
        );
        out.mount = f.optional(reader, "mount", values::text);
        out.role = f.required(reader, "role", "mesh", values::text);
        out.token = f.required(reader, "token", "{file: secrets/vault}", values::source);
        out.ca = f.optional(reader, "ca", values::text);
    }
    f.when(reader, "source", "consul", source);
    f.finish(reader);
    Some(out)
}

fn trust_domain(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let legal =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if text.len() <= 255 && text.bytes().all(legal) {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no trust domain", spot.path);
    let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
    reader.push(finding.hint("lower-case letters, digits, `.`, `-` and `_`, without spiffe://"));
    None
}

pub(super) fn registry(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Registry> {
    const EXAMPLE: &str = "http://127.0.0.1:8500";
    let mut f = reader.fields(spot)?;
    let registry = Registry {
        consul: f.required(
            reader,
            "backend",
            "memory",
            values::choice(&[("memory", false), ("consul", true)]),
        ),
        url: f.optional(reader, "url", values::open_url(&["http", "https"], EXAMPLE)),
        token: f.optional(reader, "token", values::source),
        ca: f.optional(reader, "ca", values::text),
    };
    f.finish(reader);
    Some(registry)
}

pub(super) fn intention(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Intention> {
    const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("deny", Action::Deny)];
    let mut f = reader.fields(spot)?;
    let list = |at: Option<At<Vec<At<String>>>>| at.map(|l| l.value).unwrap_or_default();
    let intention = Intention {
        from: f.required(reader, "from", "gateway", services),
        to: f.required(reader, "to", "orchestrator", services),
        action: f.optional(reader, "action", values::choice(ACTIONS)),
        methods: list(f.optional(reader, "methods", |r, s| filled(r, s, method))),
        paths: list(f.optional(reader, "paths", |r, s| filled(r, s, prefix))),
        callers: f.optional(reader, "callers", callers),
    };
    f.finish(reader);
    Some(intention)
}

fn services(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Services> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| serde_json::json!({"const": "any"})),
                &|reader, spot| {
                    service(reader, spot);
                },
                &|reader, spot| {
                    filled(reader, spot, service);
                },
            ],
        );
        return None;
    }
    match &spot.node.value {
        Value::Text(text) if text == "any" => {
            reader.open(spot.node);
            Some(Services::Any)
        }
        Value::List(_) => filled(reader, spot, service).map(Services::Named),
        _ => {
            let value = service(reader, spot)?;
            Some(Services::Named(vec![At {
                value,
                place: spot.node.place,
                path: spot.path.to_owned(),
            }]))
        }
    }
}

fn service(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<ServiceName> {
    let agent = values::agent_id(reader, spot)?;
    Some(ServiceName::from(&agent))
}

fn method(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    if text.parse::<http::Method>().is_ok() && text == text.to_uppercase() {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no method", spot.path);
    let finding = Finding::error("unknown_value", spot.node.place, spot.path, message);
    reader.push(finding.hint("in capitals, such as POST"));
    None
}

/// A prefix as sidecars compare it, by whole segments.
fn prefix(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot)?;
    let odd = text.contains("//")
        || text.contains(['%', '?', '#', '\\', ';'])
        || text.split('/').any(|part| matches!(part, "." | ".."));
    if text.starts_with('/') && !odd {
        return Some(text);
    }
    let message = format!("{}: `{text}` is no prefix of a path", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader.push(finding.hint("begin with /, without //, dot segments and escapes"));
    None
}

fn callers(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Callers> {
    let mut f = reader.fields(spot)?;
    let list = |at: Option<At<Vec<At<String>>>>| {
        let texts = at.map(|l| l.value).unwrap_or_default();
        texts.into_iter().map(|text| text.value).collect()
    };
    let callers = Callers {
        issuers: list(f.optional(reader, "issuers", |r, s| filled(r, s, values::text))),
        subjects: list(f.optional(reader, "subjects", |r, s| filled(r, s, values::text))),
        scopes: list(f.optional(reader, "scopes", |r, s| filled(r, s, values::text))),
        claims: f
            .optional(reader, "claims", texts)
            .map(|c| c.value)
            .unwrap_or_default(),
    };
    f.finish(reader);
    Some(callers)
}

/// A mapping whose keys are the user's own, to texts.
pub(super) fn texts(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<BTreeMap<String, String>> {
    let entries = reader.entries(spot, "", |reader, key, spot| {
        reader.open_at(key.place);
        Some((key.text.clone(), values::text(reader, spot)?))
    })?;
    Some(entries.into_iter().collect())
}

pub(super) fn traces(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Traces> {
    const EXAMPLE: &str = "http://127.0.0.1:4317";
    const PROTOCOLS: &[(&str, Protocol)] = &[("grpc", Protocol::Grpc), ("http", Protocol::Http)];
    let mut f = reader.fields(spot)?;
    let traces = Traces {
        endpoint: f.required(
            reader,
            "endpoint",
            EXAMPLE,
            values::open_url(&["http", "https"], EXAMPLE),
        ),
        protocol: f.optional(reader, "protocol", values::choice(PROTOCOLS)),
        sample_percent: f.optional(reader, "sample_percent", values::integer(0..=100)),
    };
    f.finish(reader);
    Some(traces)
}
