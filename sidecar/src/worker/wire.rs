//! Steps in, results out, without taking their payloads apart.
//!
//! A payload is only passed on here, so it is kept as text. What the short way does not take, older
//! forms and faults included, goes through [`StepTask`], whose reading is the mesh's own. An agent's
//! answer must be readable by everyone who will read it as a value, which is more than being JSON.

use super::invoke::Answer;
use crate::config::Secret;
use bytes::Bytes;
use mesh_protocol::message::{MessageError, StepTask};
use mesh_protocol::names::idempotency_key;
use mesh_protocol::{AgentId, StepId, TaskId, Timestamp};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize as Read, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Deepest nesting of an agent's answer. JSON readers stop at 128, and the answer is nested again in
/// the result, in its successors' input and in the task's answer.
const MAX_DEPTH: usize = 100;

/// A step as it is handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) task_id: TaskId,
    pub(super) step_id: StepId,
    /// Milliseconds since 1970.
    pub(super) deadline_ms: Option<u64>,
    /// When it was sent, by the sender's clock.
    pub(super) sent_at: Option<Timestamp>,
    /// When the task was submitted; the older forms do not say.
    pub(super) submitted: Option<Timestamp>,
    /// The originator's assertion, whoever that is. A bearer's token: shown nowhere.
    pub(super) assertion: Option<Secret>,
    /// What the agent is posted.
    pub(super) request: Bytes,
    /// Tells messages of the older forms apart, whose step ids are not unique within a task.
    digest: Option<u64>,
    /// Whether it came in an older form: no orchestrator made it, and none waits for its result.
    pub(super) older: bool,
}

impl Step {
    /// The idempotency key of a step whose message brings none.
    pub(super) fn own_key(&self) -> String {
        let key = idempotency_key(&self.task_id, &self.step_id);
        match self.digest {
            None => key,
            Some(digest) => format!("{key}:{digest:016x}"),
        }
    }
}

#[derive(Read)]
struct Current<'a> {
    task_id: TaskId,
    step_id: StepId,
    agent: AgentId,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    incoming_data: Option<&'a RawValue>,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(default)]
    submitted_ms: Option<u64>,
    #[serde(borrow, default)]
    assertion: Option<Cow<'a, str>>,
}

/// What an agent is posted. The assertion is not in it: it is no agent's to hold.
#[derive(Serialize)]
struct Request<'a, T> {
    task_id: &'a TaskId,
    step_id: &'a StepId,
    role: &'a str,
    action: &'a str,
    payload: T,
    incoming_data: T,
}

/// Reads a message from the queue of `agent`, in any of its three forms.
///
/// # Errors
/// Why it is no step, fit to be a dead letter's reason.
pub(super) fn read(body: &[u8], agent: &AgentId) -> Result<Step, MessageError> {
    // The derived reader would take an array of the fields as well.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(step) = serde_json::from_slice::<Current<'_>>(body)
        && step.agent == *agent
        && let Some(payload) = object(step.payload)
        && let Some(incoming_data) = object(step.incoming_data)
    {
        let request = request(&Request {
            task_id: &step.task_id,
            step_id: &step.step_id,
            role: &step.role,
            action: &step.action,
            payload,
            incoming_data,
        });
        return Ok(Step {
            request,
            task_id: step.task_id,
            step_id: step.step_id,
            deadline_ms: step.deadline_ms,
            // Free text: what is no time says nothing.
            sent_at: step
                .timestamp
                .and_then(|t| t.get().trim_matches('"').parse().ok()),
            submitted: step.submitted_ms.map(Timestamp::from_millis),
            assertion: step.assertion.map(|text| text.into_owned().into()),
            digest: None,
            older: false,
        });
    }
    let step = StepTask::from_json(body, agent)?;
    let form: Form = serde_json::from_slice(body).unwrap_or_default();
    // Equal for equal messages within one build of the sidecar, which is as long as it must hold.
    let mut digest = DefaultHasher::new();
    body.hash(&mut digest);
    let request = request(&Request {
        task_id: &step.task_id,
        step_id: &step.step_id,
        role: &step.role,
        action: &step.action,
        payload: &step.payload,
        incoming_data: &step.incoming_data,
    });
    Ok(Step {
        request,
        task_id: step.task_id,
        step_id: step.step_id,
        deadline_ms: step.deadline_ms,
        sent_at: step.timestamp.parse().ok(),
        submitted: step.submitted_ms.map(Timestamp::from_millis),
        assertion: step.assertion.map(Secret::from),
        digest: Some(digest.finish()),
        older: form.step_id.is_none(),
    })
}

/// What tells the forms apart.
#[derive(Read, Default)]
struct Form {
    #[serde(default)]
    step_id: Option<IgnoredAny>,
}

/// The text of an object, `{}` for an absent one; `None` for anything else.
fn object(raw: Option<&RawValue>) -> Option<Cow<'_, RawValue>> {
    match raw {
        Some(raw) if raw.get().starts_with('{') => Some(Cow::Borrowed(raw)),
        Some(_) => None,
        None => RawValue::from_string("{}".to_owned()).ok().map(Cow::Owned),
    }
}

fn request<T: Serialize>(request: &Request<'_, T>) -> Bytes {
    // Texts and checked JSON always serialise.
    serde_json::to_vec(request).unwrap_or_default().into()
}

/// The result of a completed step, in the form of [`mesh_protocol::outcome::StepResult`].
///
/// Written by hand around the agent's answer, which is JSON already; ids and times hold no character
/// that JSON would escape.
pub(super) fn completed(agent: &AgentId, step: &Step, answer: &Answer, json: &[u8]) -> Bytes {
    let (task_id, step_id) = (&step.task_id, &step.step_id);
    let head = format!(
        r#"{{"task_id":"{task_id}","step_id":"{step_id}","agent":"{agent}","status":"completed","result":"#
    );
    let (attempts, started, finished) = (answer.attempts, answer.started_at, answer.finished_at);
    let tail =
        format!(r#","attempts":{attempts},"started_at":"{started}","finished_at":"{finished}"}}"#);
    let mut body = Vec::with_capacity(head.len() + json.len() + tail.len());
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(json);
    body.extend_from_slice(tail.as_bytes());
    body.into()
}

/// Whether `text` is JSON that every reader of the mesh can make a value of.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn check_json(text: &[u8]) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    Depth(MAX_DEPTH)
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|e| e.to_string())
}

/// Reads any value as strictly as `serde_json::Value` does and keeps nothing of it.
#[derive(Clone, Copy)]
struct Depth(usize);

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl Depth {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(left) => Ok(Self(left)),
            None => Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            ))),
        }
    }
}

/// A key: any string.
struct Key;

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_str(Depth(0)).map(|()| Self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while fields.next_key::<Key>()?.is_some() {
            fields.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_protocol::outcome::{Outcome, StepResult};
    use serde_json::{Value, json};

    fn agent() -> AgentId {
        "data-processor".parse().unwrap()
    }

    fn read_text(text: &str) -> Result<Step, MessageError> {
        read(text.as_bytes(), &agent())
    }

    fn posted(step: &Step) -> Value {
        serde_json::from_slice(&step.request).unwrap()
    }

    const CURRENT: &str = r#"{"task_id":"t","step_id":"s","agent":"data_processor","action":"a\n","role":"r",
        "payload":{"x":1e2},"incoming_data":{"p":{"agent":"b","data":[1]}},"deadline_ms":5,
        "submitted_ms":4,"assertion":"secret"}"#;

    #[test]
    fn the_short_way_and_the_long_way_post_the_same() {
        let short = read_text(CURRENT).unwrap();
        // A repeated field is taken by the long way only.
        let long =
            read_text(&CURRENT.replace(r#""deadline_ms":5"#, r#""deadline_ms":5,"role":"r""#))
                .unwrap();
        assert!(short.digest.is_none() && long.digest.is_some());
        assert!(!short.older && !long.older);
        assert_eq!(short.deadline_ms, long.deadline_ms);
        assert_eq!(short.submitted, Some(Timestamp::from_millis(4)));
        assert_eq!(short.submitted, long.submitted);
        assert_eq!(short.assertion.as_ref().unwrap().expose(), "secret");
        assert_eq!(short.assertion, long.assertion);
        assert!(!format!("{short:?}").contains("secret"));
        assert_eq!(posted(&short), posted(&long));
        assert_eq!(
            posted(&short),
            json!({"task_id":"t","step_id":"s","role":"r","action":"a\n","payload":{"x":1e2},
                "incoming_data":{"p":{"agent":"b","data":[1]}}})
        );
        assert_eq!(short.own_key(), "t:s");
    }

    #[test]
    fn absent_inputs_are_empty_objects() {
        let step = read_text(
            r#"{"task_id":"t","step_id":"s","agent":"data-processor","action":"a","role":"r"}"#,
        )
        .unwrap();
        assert_eq!(posted(&step)["payload"], json!({}));
        assert_eq!(posted(&step)["incoming_data"], json!({}));
    }

    #[test]
    fn older_messages_of_one_task_have_keys_of_their_own() {
        let one = read_text(r#"{"task_id":"t","agent":"data_processor","action":"a"}"#).unwrap();
        let two = read_text(r#"{"task_id":"t","agent":"data_processor","action":"b"}"#).unwrap();
        assert_eq!(one.step_id, two.step_id);
        assert!(one.older && two.older && !read_text(CURRENT).unwrap().older);
        assert_ne!(one.own_key(), two.own_key());
        assert!(one.own_key().starts_with("t:data-processor:"));
    }

    #[test]
    fn faults_are_those_of_the_protocol() {
        for (text, why) in [
            ("nonsense", "not JSON"),
            ("[]", "expected a JSON object"),
            (
                r#"["t","s","data-processor","a","r"]"#,
                "expected a JSON object",
            ),
            (
                r#"{"task_id":"t","step_id":"s","agent":"other","action":"a","role":"r"}"#,
                "lay in the queue",
            ),
            (
                r#"{"task_id":"t","step_id":"s","agent":"data-processor","action":"a","role":"r","payload":[]}"#,
                "no task",
            ),
        ] {
            assert!(read_text(text).unwrap_err().to_string().contains(why));
        }
    }

    #[test]
    fn what_passes_the_check_is_readable_and_the_other_way_round() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        for good in [
            "1",
            " {\"a\": [null, true, 1.5, -3, \"\\u00e9\\ud83d\\ude00\"]} \n",
            "18446744073709551615",
            &nested(MAX_DEPTH),
        ] {
            assert_eq!(check_json(good.as_bytes()), Ok(()), "{good}");
            assert!(serde_json::from_str::<Value>(good).is_ok());
        }
        for bad in [
            "",
            "{",
            "1 2",
            "1e999",
            "{\"a\":1,}",
            "\"\\ud800\"",
            "{\"\\ud800\":1}",
            "NaN",
            &nested(MAX_DEPTH + 1),
            &nested(100_000),
        ] {
            assert!(check_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check_json(b"\"\xff\"").is_err());
    }

    #[test]
    fn a_completed_result_is_a_step_result() {
        let step = read_text(CURRENT).unwrap();
        let mut answer = Answer::completed(Bytes::new());
        answer.attempts = 2;
        answer.started_at = Timestamp::from_millis(1);
        answer.finished_at = Timestamp::from_millis(2);
        let body = completed(&agent(), &step, &answer, b" {\"n\": [1]} ");
        let result: StepResult = serde_json::from_slice(&body).unwrap();
        let expected = StepResult {
            task_id: step.task_id,
            step_id: step.step_id,
            agent: agent(),
            outcome: Outcome::Completed {
                result: json!({"n":[1]}),
            },
            attempts: 2,
            started_at: Timestamp::from_millis(1),
            finished_at: Timestamp::from_millis(2),
        };
        assert_eq!(result, expected);
    }
}
