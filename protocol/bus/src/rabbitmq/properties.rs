//! A message's properties as AMQP has them, both ways.
//!
//! Whatever a foreign publisher writes is read as far as it can be: a property of another type or
//! that is no text counts as absent.

use super::buried::{Note, moved};
use super::legible::HEADER_LEFT_OUT;
use crate::cloud_event::{HEADER_VERSION, VERSION};
use crate::outgoing::{JSON, MAX_HEADER_BYTES};
use crate::{BusError, CloudEvent, Message, Properties, Trail};
use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Acker, BasicProperties};
use mesh_protocol::assertion::HEADER as HEADER_ASSERTION;
pub(super) use mesh_protocol::message::{HEADER_IDEMPOTENCY_KEY, HEADER_TRACEPARENT};

pub(super) const HEADER_TRACESTATE: &str = "tracestate";
pub(super) const HEADER_REASON: &str = "x-mesh-reason";
pub(super) const HEADER_TRAIL: &str = "x-mesh-trail";
/// Why a broker dead-lettered a message by itself, the first time.
pub(super) const HEADER_BROKERS_REASON: &str = "x-first-death-reason";
/// Each time that it did, the latest first.
pub(super) const HEADER_DEATHS: &str = "x-death";
/// How often a quorum queue got a message back: before 4.3 each time, since then when its holder failed.
pub(super) const HEADER_COUNT: &str = "x-delivery-count";
pub(super) const PERSISTENT: u8 = 2;

/// A message in the client library's words.
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
    /// The delivery that this is a copy of.
    pub(super) original: Option<Acker>,
}

impl TryFrom<Message> for Outgoing {
    type Error = BusError;

    fn try_from(message: Message) -> Result<Self, BusError> {
        Ok(Self {
            exchange: short(message.exchange)?,
            routing_key: short(message.routing_key)?,
            mandatory: message.mandatory,
            body: message.body,
            properties: write(message.properties)?,
            original: None,
        })
    }
}

impl Outgoing {
    /// The copy `message` of `original` with what came beside it, as far as there is `room`.
    pub(super) fn copy(
        message: Message,
        original: &Acker,
        beside: &BasicProperties,
        room: usize,
    ) -> Result<Self, BusError> {
        let Properties { reason, trail, .. } = message.properties;
        let trail = trail.map(|trail| trail.to_header());
        let note = Note {
            reason: reason.as_deref(),
            trail: trail.as_deref(),
        };
        Ok(Self {
            exchange: short(message.exchange)?,
            routing_key: short(message.routing_key)?,
            mandatory: message.mandatory,
            body: message.body,
            properties: moved(beside, note, room),
            original: Some(original.clone()),
        })
    }

    /// Whether nobody wants it any more: its original is back in its queue, and will be moved again
    /// from there.
    pub(super) fn is_moot(&self) -> bool {
        self.original.as_ref().is_some_and(|acker| !acker.usable())
    }
}

/// `text` as AMQP's short string, of at most 255 bytes.
pub(super) fn short(text: impl Into<String>) -> Result<ShortString, BusError> {
    ShortString::try_new(text).map_err(|error| BusError::Refused {
        detail: error.to_string(),
    })
}

fn write(properties: Properties) -> Result<BasicProperties, BusError> {
    let mut headers = FieldTable::default();
    let long = |text: &str| AMQPValue::LongString(LongString::from(text));
    if let Some(event) = &properties.cloud_event {
        headers.insert(HEADER_VERSION.into(), long(VERSION));
        for (name, value) in event.to_headers() {
            headers.insert(name.into(), long(value));
        }
    }
    for (name, value) in [
        (HEADER_ASSERTION, properties.assertion),
        (HEADER_IDEMPOTENCY_KEY, properties.idempotency_key),
        (HEADER_TRACEPARENT, properties.traceparent),
        (HEADER_TRACESTATE, properties.tracestate),
        (HEADER_REASON, properties.reason),
        (
            HEADER_TRAIL,
            properties.trail.map(|trail| trail.to_header()),
        ),
    ] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
    }
    let mut written = BasicProperties::default()
        .with_content_type(short(properties.content_type.as_deref().unwrap_or(JSON))?)
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    if let Some(priority) = properties.priority {
        written = written.with_priority(priority);
    }
    if let Some(id) = properties.message_id {
        written = written.with_message_id(short(id)?);
    }
    if let Some(id) = properties.correlation_id {
        written = written.with_correlation_id(short(id)?);
    }
    if let Some(queue) = properties.reply_to {
        written = written.with_reply_to(short(queue)?);
    }
    if let Some(expiration) = properties.expiration_ms {
        written = written.with_expiration(short(expiration.to_string())?);
    }
    Ok(written)
}

/// What travelled beside a message that came in.
pub(super) fn read(properties: &BasicProperties) -> Properties {
    let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    let header = |name: &str| header(properties.headers().as_ref()?, name);
    Properties {
        priority: *properties.priority(),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        expiration_ms: properties
            .expiration()
            .as_ref()
            .and_then(|text| text.as_str().parse().ok()),
        idempotency_key: header(HEADER_IDEMPOTENCY_KEY),
        traceparent: header(HEADER_TRACEPARENT),
        tracestate: header(HEADER_TRACESTATE),
        reason: header(HEADER_REASON)
            .or_else(|| last_death(properties.headers().as_ref()?))
            .or_else(|| header(HEADER_BROKERS_REASON)),
        trail: header(HEADER_TRAIL).and_then(|text| Trail::from_header(&text)),
        content_type: text(properties.content_type()).filter(|kind| kind != JSON),
        assertion: properties.headers().as_ref().and_then(assertion),
        cloud_event: CloudEvent::from_headers(header),
    }
}

/// The assertion; empty where there is one that cannot be read, or where nobody knows what was there.
fn assertion(headers: &FieldTable) -> Option<String> {
    let there = |name| headers.inner().contains_key(name);
    // Whoever writes it otherwise means it all the same, and must not be taken for somebody without one.
    let alias = |name: &str| {
        let plain = name.replace(['_', '.'], "-");
        plain.eq_ignore_ascii_case(HEADER_ASSERTION)
    };
    let misspelt = || headers.inner().keys().any(|name| alias(name.as_str()));
    header(headers, HEADER_ASSERTION)
        .or_else(|| (there(HEADER_LEFT_OUT) || misspelt()).then(String::new))
}

/// Why the broker dead-lettered the message the last time.
fn last_death(headers: &FieldTable) -> Option<String> {
    match headers.inner().get(HEADER_DEATHS)? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().first()? {
            AMQPValue::FieldTable(death) => header(death, "reason"),
            _ => None,
        },
        _ => None,
    }
}

/// How often the queue got the message back, if it counts that. What a publisher wrote there is no count: the broker
/// writes its own when it delivers again.
pub(super) fn crashes(properties: &BasicProperties, redelivered: bool) -> u32 {
    let headers = properties.headers().as_ref().filter(|_| redelivered);
    let count = match headers.and_then(|headers| headers.inner().get(HEADER_COUNT)) {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::LongUInt(count)) => Some(*count),
        Some(AMQPValue::ShortInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::ShortShortInt(count)) => u32::try_from(*count).ok(),
        Some(AMQPValue::ShortUInt(count)) => Some((*count).into()),
        Some(AMQPValue::ShortShortUInt(count)) => Some((*count).into()),
        _ => None,
    };
    count.unwrap_or_default()
}

fn header(headers: &FieldTable, name: &str) -> Option<String> {
    let text = match headers.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?,
        AMQPValue::ShortString(text) => text.as_str(),
        _ => return None,
    };
    (text.len() <= MAX_HEADER_BYTES).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut trail = Trail::default();
        trail.note(7, "why");
        let all = Properties {
            priority: Some(7),
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some("q".into()),
            expiration_ms: Some(1500),
            idempotency_key: Some("t:s".into()),
            traceparent: Some("00-1-2-01".into()),
            tracestate: Some("a=b".into()),
            reason: Some("no JSON".into()),
            trail: Some(Box::new(trail)),
            content_type: Some("application/problem+json".into()),
            assertion: Some("a.b.c".into()),
            cloud_event: Some(Box::new(CloudEvent {
                id: "t:task.accepted".into(),
                kind: "task.accepted".into(),
                source: "orchestrator".into(),
                time: "2026-01-01T00:00:00.000Z".into(),
                subject: "t".into(),
            })),
        };
        for properties in [all, Properties::default()] {
            assert_eq!(read(&write(properties.clone()).unwrap()), properties);
        }
    }

    #[test]
    fn the_brokers_latest_reason_counts() {
        let death = |reason: &str| {
            let mut death = FieldTable::default();
            let reason = AMQPValue::LongString(LongString::from(reason));
            death.insert("reason".into(), reason);
            AMQPValue::FieldTable(death)
        };
        let mut headers = FieldTable::default();
        let deaths = vec![death("delivery_limit"), death("expired")];
        headers.insert(HEADER_DEATHS.into(), AMQPValue::FieldArray(deaths.into()));
        let first = AMQPValue::LongString(LongString::from("expired"));
        headers.insert(HEADER_BROKERS_REASON.into(), first);
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(read(&properties).reason.as_deref(), Some("delivery_limit"));
    }

    #[test]
    fn a_count_is_the_brokers() {
        let mut headers = FieldTable::default();
        headers.insert(HEADER_COUNT.into(), AMQPValue::LongLongInt(3));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(crashes(&properties, true), 3);
        assert_eq!(crashes(&properties, false), 0);
        assert_eq!(crashes(&BasicProperties::default(), true), 0);
    }

    #[test]
    fn an_assertion_that_cannot_be_read_is_nobodys() {
        let with = |name: &str, value| {
            let mut headers = FieldTable::default();
            headers.insert(name.into(), value);
            read(&BasicProperties::default().with_headers(headers)).assertion
        };
        let long = AMQPValue::LongString(LongString::from("x".repeat(MAX_HEADER_BYTES + 1)));
        for (name, value) in [
            (HEADER_ASSERTION, AMQPValue::LongInt(7)),
            (HEADER_ASSERTION, long),
            (HEADER_LEFT_OUT, AMQPValue::LongInt(7)),
        ] {
            assert_eq!(with(name, value).as_deref(), Some(""));
        }
        assert_eq!(with("x-other", AMQPValue::LongInt(7)), None);
    }

    #[test]
    fn what_is_no_text_counts_as_absent() {
        let mut headers = FieldTable::default();
        let bytes = LongString::from(vec![0xff, 0xfe]);
        headers.insert(HEADER_IDEMPOTENCY_KEY.into(), AMQPValue::LongString(bytes));
        headers.insert(HEADER_TRACEPARENT.into(), AMQPValue::LongInt(7));
        let long = LongString::from("x".repeat(MAX_HEADER_BYTES + 1));
        headers.insert(HEADER_TRACESTATE.into(), AMQPValue::LongString(long));
        let odd = BasicProperties::default()
            .with_headers(headers)
            .with_expiration("soon".into());
        assert_eq!(read(&odd), Properties::default());
    }
}
