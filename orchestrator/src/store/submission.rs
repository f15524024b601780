//! The key under which a client submits a task once, however often it asks.

use super::Owner;
use mesh_protocol::task::TaskRequest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// An `Idempotency-Key` with the body that it came with, as digests: keys may be as long and as secret as
/// clients like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionKey {
    /// The key within its originator's keys.
    pub name: String,
    /// The body, as it was understood: white space and the order of fields say nothing.
    pub body: String,
}

/// Where the submitter of a task that came over AMQP hears how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The queue.
    pub queue: String,
    /// What the answer belongs to, in the submitter's words.
    pub correlation_id: String,
}

impl SubmissionKey {
    /// The key of `owner` (nobody's are those of this machine) for `request`.
    pub fn new(owner: Option<&Owner>, key: &str, request: &TaskRequest) -> Self {
        let mut name = Sha256::new();
        for part in [
            owner.map_or("", |o| o.origin.as_str()),
            owner.map_or("", |o| o.sub.as_str()),
        ] {
            // The length keeps (a, bc) apart from (ab, c).
            name.update(part.len().to_be_bytes());
            name.update(part);
        }
        name.update([u8::from(owner.is_some())]);
        name.update(key);
        // A request of texts, numbers and JSON values always serialises, its objects sorted by field.
        let body = serde_json::to_vec(request).unwrap_or_default();
        Self {
            name: hex(&name.finalize()),
            body: hex(&Sha256::digest(body)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> TaskRequest {
        TaskRequest::from_json(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_its_originators() {
        let owner = |origin: &str, sub: &str| Owner {
            origin: origin.to_owned(),
            sub: sub.to_owned(),
        };
        let request = request(r#"{"task": "x"}"#);
        let owners = [
            None,
            Some(owner("a", "bc")),
            Some(owner("ab", "c")),
            Some(owner("", "")),
        ];
        let names: std::collections::HashSet<String> = owners
            .iter()
            .map(|o| SubmissionKey::new(o.as_ref(), "k", &request).name)
            .collect();
        assert_eq!(names.len(), owners.len());
    }

    #[test]
    fn a_body_is_what_it_says() {
        let body = |text: &str| SubmissionKey::new(None, "k", &request(text)).body;
        let one = body(r#"{"task": "x", "payload": {"a": 1, "b": 2}}"#);
        assert_eq!(one, body(r#"{ "payload":{"b":2,"a":1},"task":"x"}"#));
        assert_ne!(one, body(r#"{"task": "x", "payload": {"a": 1, "b": 3}}"#));
    }
}
