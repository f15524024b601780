//! What goes over a WebSocket, as text; pure.
//!
//! From an agent: `{"broadcast": true, …}` or `{"to": AGENT, …}` with an `id` of its own, `{"type": "ack", "cursor"}`
//! for what it has, `{"type": "ping"}`. To an agent: the messages of others with `from`, `seq` and `cursor`, and of
//! the orchestrator `ack`, `error`, `pong`, `presence`, `welcome`, which have no `from`.

use crate::coordination::hub::{Cursor, Letter, Receivers, Taken};
use bytes::Bytes;
use mesh_protocol::{AgentId, Timestamp};
use serde_json::{Map, Value, json};

/// Longest id of a message, in bytes.
const MAX_ID: usize = 128;
/// Types that only the orchestrator sends.
const OWN_TYPES: [&str; 4] = ["welcome", "presence", "error", "pong"];

/// What an agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A message to others.
    Letter(Letter),
    /// A message to nobody, as in the plan: it is acknowledged, and that is all.
    Nothing {
        /// Its id.
        id: String,
    },
    /// The agent has everything up to here.
    Ack(Cursor),
    /// Whether somebody is there.
    Ping,
}

/// Why a text is nothing of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable word for programs.
    pub code: &'static str,
    /// The fault and the mend, for people.
    pub detail: String,
    /// The message's id, where it has one.
    pub id: Option<String>,
}

impl Fault {
    pub(super) fn new(code: &'static str, detail: impl Into<String>, id: Option<&str>) -> Self {
        Self {
            code,
            detail: detail.into(),
            id: id.map(str::to_owned),
        }
    }

    /// As it is told.
    pub fn text(&self) -> String {
        let mut told = json!({"type": "error", "code": self.code, "detail": self.detail});
        if let (Some(id), Some(told)) = (&self.id, told.as_object_mut()) {
            told.insert("id".to_owned(), id.as_str().into());
        }
        told.to_string()
    }
}

/// Reads what `from` says.
///
/// # Errors
/// [`Fault`].
pub fn read(text: &str, from: &AgentId, now: Timestamp) -> Result<Said, Fault> {
    let mut message: Map<String, Value> = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(Fault::new("not_an_object", "send one JSON object", None)),
        Err(error) => return Err(Fault::new("not_json", error.to_string(), None)),
    };
    message.retain(|_, value| !value.is_null());
    let id = match message.get("id") {
        None => uuid::Uuid::now_v7().simple().to_string(),
        Some(Value::String(id)) if (1..=MAX_ID).contains(&id.len()) => id.clone(),
        Some(_) => {
            let detail = format!("id must be a text of 1 to {MAX_ID} bytes");
            return Err(Fault::new("bad_id", detail, None));
        }
    };
    let fault = |code, detail: String| Err(Fault::new(code, detail, Some(&id)));
    match message.get("type") {
        None => {}
        Some(Value::String(kind)) => match kind.as_str() {
            "ack" => return acknowledged(&message),
            "ping" => return Ok(Said::Ping),
            own if OWN_TYPES.contains(&own) => {
                let detail = format!("{own} is what the orchestrator says: choose another type");
                return fault("reserved_type", detail);
            }
            _ => {}
        },
        Some(_) => return fault("bad_type", "type must be a text".to_owned()),
    }
    let broadcast = match message.get("broadcast") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return fault("bad_receiver", "broadcast must be true or false".to_owned()),
    };
    let to = match (message.get("to"), broadcast) {
        (None, false) => return Ok(Said::Nothing { id }),
        (None, true) => Receivers::Others,
        (Some(_), true) => {
            return fault("bad_receiver", "give either to or broadcast".to_owned());
        }
        (Some(Value::String(name)), false) => match name.parse() {
            Ok(agent) => Receivers::One(agent),
            Err(error) => return fault("bad_receiver", format!("to: {error}")),
        },
        (Some(_), false) => return fault("bad_receiver", "to must be an agent's name".to_owned()),
    };
    message.remove("seq");
    message.remove("cursor");
    for (name, value) in [
        ("from", from.as_str().to_owned()),
        ("id", id.clone()),
        ("timestamp", now.to_string()),
    ] {
        message.insert(name.to_owned(), value.into());
    }
    let body = Bytes::from(Value::Object(message).to_string());
    Ok(Said::Letter(Letter { id, to, body }))
}

fn acknowledged(message: &Map<String, Value>) -> Result<Said, Fault> {
    let cursor = message.get("cursor").and_then(Value::as_str);
    match cursor.map(str::parse) {
        Some(Ok(cursor)) => Ok(Said::Ack(cursor)),
        _ => Err(Fault::new(
            "bad_cursor",
            "cursor must be that of a message that came here",
            None,
        )),
    }
}

/// A letter as its receiver gets it.
pub fn letter(cursor: &Cursor, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    // An object that has a sender, so never empty.
    let rest = body.strip_prefix('{').unwrap_or(&body);
    format!(r#"{{"seq":{},"cursor":"{cursor}",{rest}"#, cursor.letter)
}

/// That a message is in the mailboxes of so many.
pub fn ack(id: &str, receivers: Option<u64>, now: Timestamp) -> String {
    let mut told = json!({"type": "ack", "id": id, "timestamp": now.to_string()});
    if let Some(told) = told.as_object_mut() {
        match receivers {
            Some(receivers) => told.insert("receivers".to_owned(), receivers.into()),
            // How many there were is not kept.
            None => told.insert("repeated".to_owned(), true.into()),
        };
    }
    told.to_string()
}

/// Where a connection begins.
pub fn welcome(agent: &AgentId, taken: &Taken, heartbeat_ms: u64, max_bytes: usize) -> String {
    json!({
        "type": "welcome",
        "agent": agent,
        "cursor": taken.cursor.to_string(),
        "resumed": taken.resumed,
        "waiting": taken.waiting,
        "heartbeat_ms": heartbeat_ms,
        "max_message_bytes": max_bytes,
    })
    .to_string()
}

/// That an agent came or went.
pub fn presence(agent: &AgentId, there: bool) -> String {
    let event = if there { "join" } else { "leave" };
    let now = Timestamp::now().to_string();
    json!({"type": "presence", "event": event, "agent": agent, "timestamp": now}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Said, &'static str> {
        let from = "a".parse().unwrap();
        read(text, &from, Timestamp::from_millis(0)).map_err(|fault| fault.code)
    }

    #[test]
    fn messages_of_all_kinds() {
        let Ok(Said::Letter(letter)) = said(
            r#"{"type":"note","id":"1","to":"b_c","from":"somebody","seq":7,"cursor":"x","n":[1,{}]}"#,
        ) else {
            panic!("no letter");
        };
        assert_eq!(letter.to, Receivers::One("b-c".parse().unwrap()));
        let cursor = Cursor {
            mailbox: "ab".to_owned(),
            letter: 9,
        };
        let sent: Value = serde_json::from_str(&super::letter(&cursor, &letter.body)).unwrap();
        let wanted = json!({
            "type": "note", "id": "1", "to": "b_c", "from": "a", "seq": 9, "cursor": "ab-9",
            "n": [1, {}], "timestamp": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!(sent, wanted);
        assert!(matches!(
            said(r#"{"broadcast":true}"#),
            Ok(Said::Letter(Letter { to: Receivers::Others, id, .. })) if id.len() == 32
        ));
        assert_eq!(
            said(r#"{"id":"x"}"#),
            Ok(Said::Nothing { id: "x".to_owned() })
        );
        assert_eq!(
            said(r#"{"type":"ack","cursor":"ab-9"}"#),
            Ok(Said::Ack(cursor))
        );
        assert_eq!(said(r#"{"type":"ping"}"#), Ok(Said::Ping));
    }

    #[test]
    fn faults_have_their_codes() {
        for (text, code) in [
            ("", "not_json"),
            ("{", "not_json"),
            (&"[".repeat(1000), "not_json"),
            ("[]", "not_an_object"),
            ("7", "not_an_object"),
            (r#"{"id":7}"#, "bad_id"),
            (r#"{"id":""}"#, "bad_id"),
            (&format!(r#"{{"id":"{}"}}"#, "x".repeat(129)), "bad_id"),
            (r#"{"type":7}"#, "bad_type"),
            (r#"{"type":"presence","broadcast":true}"#, "reserved_type"),
            (r#"{"type":"error","to":"b"}"#, "reserved_type"),
            (r#"{"broadcast":"yes"}"#, "bad_receiver"),
            (r#"{"broadcast":true,"to":"b"}"#, "bad_receiver"),
            (r#"{"to":["b"]}"#, "bad_receiver"),
            (r#"{"to":"B/../c"}"#, "bad_receiver"),
            (r#"{"type":"ack"}"#, "bad_cursor"),
            (r#"{"type":"ack","cursor":7}"#, "bad_cursor"),
            (r#"{"type":"ack","cursor":"x"}"#, "bad_cursor"),
        ] {
            assert_eq!(said(text), Err(code), "{text}");
        }
        let fault = Fault::new("bad_receiver", "no", Some("1"));
        let told: Value = serde_json::from_str(&fault.text()).unwrap();
        assert_eq!(
            told,
            json!({"type":"error","code":"bad_receiver","detail":"no","id":"1"})
        );
    }
}
