//! One line of the audit log, by the Elastic Common Schema (ECS 8.17, <https://www.elastic.co/docs/reference/ecs>).
//!
//! A refusal is a network access that was denied: the decision stands in `event.type`, and `event.outcome` is that of
//! what was attempted. The peer is `tls.client.x509.alternative_names`, since a SPIFFE id is the URI SAN of its
//! certificate, and `service.origin.name`, the service that it names; `user.*` is the person or program on whose
//! behalf it asks and comes from a verified assertion only.

use super::Refused;
use crate::policy::refusal::Direction;
use mesh_protocol::Timestamp;
use serde::Serialize;
use std::net::IpAddr;

/// Most characters of a path or a name that a peer chose.
const MAX_TEXT: usize = 1_024;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp")]
    at: Timestamp,
    message: &'a str,
    ecs: Ecs,
    event: Event<'a>,
    service: Service<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Http<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Labels<'a>>,
}

#[derive(Serialize)]
struct Ecs {
    version: &'static str,
}

#[derive(Serialize)]
struct Event<'a> {
    kind: &'static str,
    category: [&'static str; 1],
    #[serde(rename = "type")]
    types: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    action: &'static str,
    code: &'static str,
    reason: &'a str,
    dataset: &'static str,
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin<'a>>,
}

#[derive(Serialize)]
struct Origin<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Source {
    address: IpAddr,
    ip: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct Tls {
    client: TlsClient,
}

#[derive(Serialize)]
struct TlsClient {
    x509: X509,
}

#[derive(Serialize)]
struct X509 {
    alternative_names: [String; 1],
}

#[derive(Serialize)]
struct User {
    id: String,
    domain: String,
}

#[derive(Serialize)]
struct Http<'a> {
    request: HttpRequest<'a>,
}

#[derive(Serialize)]
struct HttpRequest<'a> {
    method: &'a str,
}

#[derive(Serialize)]
struct Url {
    path: String,
}

#[derive(Serialize)]
struct Rule {
    name: String,
}

#[derive(Serialize)]
struct Trace {
    id: String,
}

#[derive(Serialize)]
struct Labels<'a> {
    task_id: &'a str,
    step_id: &'a str,
}

const ECS: Ecs = Ecs { version: "8.17.0" };
const DATASET: &str = "mesh.audit";

/// The line of a refusal.
pub(super) fn refused(service: &str, refused: &Refused<'_>) -> Vec<u8> {
    let action = match refused.direction {
        Direction::Inbound => "request-refused",
        Direction::Task => "task-refused",
    };
    let detail = shown(refused.refusal.detail());
    let peer = refused.peer.as_ref();
    written(&Line {
        at: refused.at,
        message: &detail,
        ecs: ECS,
        event: Event {
            kind: "event",
            category: ["network"],
            types: &["access", "denied"],
            outcome: Some("failure"),
            action,
            code: refused.refusal.reason().as_str(),
            reason: &detail,
            dataset: DATASET,
        },
        service: Service {
            name: service,
            origin: peer.map(|peer| Origin {
                name: peer.id.service.as_str(),
            }),
        },
        source: peer.map(|peer| Source {
            address: peer.address.ip(),
            ip: peer.address.ip(),
            port: peer.address.port(),
        }),
        tls: peer.map(|peer| Tls {
            client: TlsClient {
                x509: X509 {
                    alternative_names: [shown(&peer.id.to_string())],
                },
            },
        }),
        user: refused.claims.map(|claims| User {
            id: shown(&claims.sub),
            domain: shown(&claims.origin),
        }),
        http: Some(Http {
            request: HttpRequest {
                method: refused
                    .method
                    .as_str()
                    .get(..MAX_METHOD)
                    .unwrap_or(refused.method.as_str()),
            },
        }),
        url: Some(Url {
            path: shown(refused.path),
        }),
        rule: refused.refusal.intention().map(|number| Rule {
            name: format!("policy.intentions[{number}]"),
        }),
        trace: refused.trace_id.map(|id| Trace {
            id: format!("{:032x}", u128::from_be_bytes(id)),
        }),
        labels: refused.task.map(|(task, step)| Labels {
            task_id: task.as_str(),
            step_id: step.as_str(),
        }),
    })
}

/// Longest method that is shown whole; one is a token, so ASCII.
const MAX_METHOD: usize = 32;

/// The line that says that `lost` lines are missing before it.
pub(super) fn lost(service: &str, lost: u64, at: Timestamp) -> Vec<u8> {
    let message = format!("{lost} lines are missing: more was refused than could be written");
    written(&Line {
        at,
        message: &message,
        ecs: ECS,
        event: Event {
            kind: "pipeline_error",
            category: ["network"],
            types: &["info"],
            outcome: None,
            action: "audit-lost",
            code: "full",
            reason: &message,
            dataset: DATASET,
        },
        service: Service {
            name: service,
            origin: None,
        },
        source: None,
        tls: None,
        user: None,
        http: None,
        url: None,
        rule: None,
        trace: None,
        labels: None,
    })
}

fn written(line: &Line<'_>) -> Vec<u8> {
    // Texts and numbers always serialise.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The first characters of a text. JSON escapes the control characters of ASCII; the others, which steer some
/// terminals too, are replaced.
fn shown(text: &str) -> String {
    let visible = |c: char| match c {
        c if c.is_control() && !c.is_ascii() => char::REPLACEMENT_CHARACTER,
        '\u{7f}' => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().take(MAX_TEXT).map(visible).collect()
}
