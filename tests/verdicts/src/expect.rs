//! Whether an answer is what was expected, and in which words it is not.

use crate::corpus::{Expected, Matcher};
use crate::echo::Seen;
use crate::gateways::Answer;
use crate::keys;
use crate::request::Request;
use crate::text;
use ed25519_dalek::SigningKey;
use mesh_policy::Timestamp;
use mesh_protocol::assertion::{self, PublicKey};
use mesh_protocol::problem::{CONTENT_TYPE, TYPE_PREFIX};
use serde_json::Value;

/// Name of the gateway's key in every configuration, audience of its assertions, and its file.
const KID: &str = "g";
const AUDIENCE: &str = "mesh";
const GATEWAY_KEY: &str = "gateway";
/// Headers that gateways write themselves, or that belong to one connection.
const THEIRS: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "te",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "x-request-id",
];

/// Everything in which `answer` is not what was expected.
pub(crate) fn differences(expected: &Expected, request: &Request, answer: &Answer) -> Vec<String> {
    let mut found = Findings::default();
    let response = &answer.response;
    let body = String::from_utf8_lossy(&response.body);
    if response.status != expected.status {
        found.push(format!(
            "status {} instead of {}; body {}",
            response.status,
            expected.status,
            body.chars().take(300).collect::<String>()
        ));
        return found.0;
    }
    for (name, matcher) in &expected.headers {
        let values = response.headers.get(name).cloned().unwrap_or_default();
        found.header("response header", name, matcher, &values);
    }
    if expected.status < 400 {
        match answer.seen.as_slice() {
            [seen] => upstream(&mut found, expected, request, seen),
            seen => found.push(format!("the upstream saw {} requests", seen.len())),
        }
    } else {
        if !answer.seen.is_empty() {
            found.push("the upstream saw the request".to_owned());
        }
        if let Some(kind) = &expected.kind {
            problem(&mut found, expected, kind, answer);
        }
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn push(&mut self, finding: String) {
        self.0.push(finding);
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.push(format!("{what} {found:?} instead of {expected:?}"));
        }
    }

    fn header(&mut self, place: &str, name: &str, matcher: &Matcher, values: &[Vec<u8>]) {
        let texts: Vec<_> = values.iter().map(|v| String::from_utf8_lossy(v)).collect();
        let wanted = match (matcher, texts.as_slice()) {
            (Matcher::Absent { absent: true }, []) => return,
            (Matcher::Absent { .. }, _) => "nothing".to_owned(),
            (Matcher::Present { present: true }, [_]) => return,
            (Matcher::Present { .. }, _) => "one value".to_owned(),
            (Matcher::Exact(exact), [value]) if value == exact => return,
            (Matcher::Exact(exact), _) => exact.clone(),
            (Matcher::Starts { starts }, [value]) if value.starts_with(starts) => return,
            (Matcher::Starts { starts }, _) => format!("{starts}…"),
            (Matcher::Between { between }, [value])
                if value
                    .parse::<u64>()
                    .is_ok_and(|v| (between.0..=between.1).contains(&v)) =>
            {
                return;
            }
            (Matcher::Between { between }, _) => format!("{} to {}", between.0, between.1),
        };
        self.push(format!("{place} {name} is {texts:?} instead of {wanted}"));
    }
}

fn problem(found: &mut Findings, expected: &Expected, kind: &str, answer: &Answer) {
    let response = &answer.response;
    let media = response.headers.get("content-type").cloned();
    let exact = Matcher::Exact(CONTENT_TYPE.to_owned());
    found.header(
        "response header",
        "content-type",
        &exact,
        &media.unwrap_or_default(),
    );
    let Ok(problem) = serde_json::from_slice::<Value>(&response.body) else {
        let body = String::from_utf8_lossy(&response.body);
        return found.push(format!("the body is no problem: {body}"));
    };
    let uri = if kind.contains(':') {
        kind.to_owned()
    } else {
        format!("{TYPE_PREFIX}{kind}")
    };
    let of = |name: &str| problem.get(name).cloned().unwrap_or_default();
    found.equal("problem type", &of("type"), &Value::String(uri));
    found.equal("problem status", &of("status"), &expected.status.into());
    for (name, value) in &expected.problem {
        found.equal(&format!("problem member {name}"), &of(name), value);
    }
    if let Some(part) = &expected.detail {
        let detail = of("detail");
        if !detail.as_str().is_some_and(|detail| detail.contains(part)) {
            found.push(format!("problem detail {detail} instead of …{part}…"));
        }
    }
}

fn upstream(found: &mut Findings, expected: &Expected, request: &Request, seen: &Seen) {
    let upstream = &expected.upstream;
    found.equal("upstream method", &seen.method, &request.method);
    let path = upstream
        .path
        .as_ref()
        .map(|path| request.filling.text(path));
    found.equal(
        "upstream path",
        &seen.path,
        path.as_ref().unwrap_or(&request.path),
    );
    for (name, matcher) in &upstream.headers {
        found.header("upstream header", name, matcher, &seen.values(name));
    }
    for (name, _) in &request.headers {
        let name = name.to_ascii_lowercase();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let said = upstream.headers.contains_key(&name);
        if said
            || name == assertion::HEADER
            || THEIRS.contains(&name.as_str())
            || !name.bytes().all(plain)
        {
            continue;
        }
        let sent: Vec<&[u8]> = request
            .values(&name)
            .into_iter()
            .map(<[u8]>::trim_ascii)
            .collect();
        let values = seen.values(&name);
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        // Lines of one name may be joined (RFC 9110, section 5.3).
        let joined = |parts: &[&[u8]]| parts.join(&b","[..]).replace_spaces();
        if joined(&sent) != joined(&values) {
            found.push(format!("upstream header {name} is not what was sent"));
        }
    }
    match (&upstream.body, &upstream.json) {
        (Some(body), _) => found.equal("upstream body", &shown(&seen.bytes()), body),
        (None, Some(json)) => {
            let body = serde_json::from_slice(&seen.bytes()).unwrap_or(Value::Null);
            found.equal("upstream body", &body, json);
        }
        (None, None) if seen.bytes() != request.body => {
            found.push("the upstream's body is not what was sent".to_owned());
        }
        (None, None) => {}
    }
    handed_on(found, expected, request, seen);
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

trait Spaces {
    fn replace_spaces(self) -> Vec<u8>;
}

impl Spaces for Vec<u8> {
    fn replace_spaces(mut self) -> Vec<u8> {
        self.retain(|b| *b != b' ');
        self
    }
}

/// The assertion, of which there is one or none, whatever the client sent.
fn handed_on(found: &mut Findings, expected: &Expected, request: &Request, seen: &Seen) {
    let values: Vec<String> = seen
        .headers
        .iter()
        .filter(|(name, _)| alias(name) == assertion::HEADER)
        .map(|(_, value)| value.clone())
        .collect();
    let Some(claims) = &expected.upstream.assertion else {
        if !values.is_empty() {
            found.push(format!("the upstream got an assertion: {values:?}"));
        }
        return;
    };
    let [value] = values.as_slice() else {
        return found.push(format!("the upstream got {} assertions", values.len()));
    };
    let public = assertion::public_half(&SigningKey::from_bytes(&keys::seed(GATEWAY_KEY)));
    let keys = [PublicKey::from_base64(KID, &public).expect("the gateway's key")];
    let filling = &request.filling;
    let now = Timestamp::from_millis(text::now() * 1000);
    let read = match assertion::verify(value, &keys, AUDIENCE, now) {
        Ok(read) => serde_json::to_value(read).unwrap_or_default(),
        Err(error) => return found.push(format!("the assertion does not verify: {error}")),
    };
    for (name, value) in claims {
        let own = read.get(name).cloned().unwrap_or_default();
        found.equal(&format!("assertion's {name}"), &own, &filling.json(value));
    }
}

/// A header's name as a server may read it that takes every odd character for `-`.
fn alias(name: &str) -> String {
    let read = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(read).collect()
}
