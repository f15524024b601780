//! What every message must satisfy before it leaves, whichever backend carries it.
//!
//! AMQP answers some of these faults by closing the channel, which would hit every other publish on
//! it; so they are found here, and a message that passes on memory passes on RabbitMQ too.

use crate::{BusError, CloudEvent, Message, direct_reply};

/// Largest body that is published, in bytes. A step may repeat a payload of 1 MiB once for each
/// predecessor; brokers hold messages in memory and 4.x refuses more than this by default.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Longest text of a header, in bytes; all headers share one AMQP frame of 32 KiB.
pub(crate) const MAX_HEADER_BYTES: usize = 6 * 1024;
/// Longest AMQP short string, in bytes.
const MAX_SHORT_BYTES: usize = 255;
/// The highest priority of a queue with priorities.
const MAX_PRIORITY: u8 = 10;
/// What bodies are.
pub(crate) const JSON: &str = "application/json";
/// Longest reason of a dead letter, in bytes.
const MAX_REASON_BYTES: usize = 1024;
/// Brokers refuse longer times to live.
const MAX_EXPIRATION_MS: u64 = u32::MAX as u64;

/// `message` as it is sent: checked, with an id, its numbers within what AMQP can say.
pub(crate) fn prepare(mut message: Message) -> Result<Message, BusError> {
    let properties = &mut message.properties;
    if let Some(priority) = &mut properties.priority {
        *priority = (*priority).min(MAX_PRIORITY);
    }
    if let Some(expiration) = &mut properties.expiration_ms {
        *expiration = (*expiration).min(MAX_EXPIRATION_MS);
    }
    // What every message is, unless it says otherwise.
    properties.content_type = properties.content_type.take().filter(|kind| kind != JSON);
    if properties.message_id.is_none() {
        properties.message_id = Some(uuid::Uuid::now_v7().to_string());
    }
    check(&message)?;
    Ok(message)
}

fn check(message: &Message) -> Result<(), BusError> {
    if message.exchange.is_empty() && !direct_reply::is_sound(&message.routing_key) {
        return Err(BusError::Unroutable {
            exchange: String::new(),
            routing_key: message.routing_key.clone(),
        });
    }
    let properties = &message.properties;
    let event = properties.cloud_event.as_ref();
    let bounds: [(&str, usize, usize); 13] = [
        (
            "content type",
            length(&properties.content_type),
            MAX_SHORT_BYTES,
        ),
        ("assertion", length(&properties.assertion), MAX_HEADER_BYTES),
        (
            "event",
            event.map_or(0, |e| CloudEvent::size(e)),
            MAX_HEADER_BYTES,
        ),
        ("body", message.body.len(), MAX_BODY_BYTES),
        ("exchange", message.exchange.len(), MAX_SHORT_BYTES),
        ("routing key", message.routing_key.len(), MAX_SHORT_BYTES),
        (
            "message id",
            length(&properties.message_id),
            MAX_SHORT_BYTES,
        ),
        (
            "correlation id",
            length(&properties.correlation_id),
            MAX_SHORT_BYTES,
        ),
        ("reply-to", length(&properties.reply_to), MAX_SHORT_BYTES),
        (
            "idempotency key",
            length(&properties.idempotency_key),
            MAX_HEADER_BYTES,
        ),
        (
            "traceparent",
            length(&properties.traceparent),
            MAX_HEADER_BYTES,
        ),
        (
            "tracestate",
            length(&properties.tracestate),
            MAX_HEADER_BYTES,
        ),
        ("reason", length(&properties.reason), MAX_HEADER_BYTES),
    ];
    match bounds.iter().find(|(_, found, most)| found > most) {
        None => Ok(()),
        Some((part, found, most)) => Err(BusError::TooLarge {
            detail: format!("the message's {part} has {found} bytes, at most {most} are sent"),
        }),
    }
}

fn length(text: &Option<String>) -> usize {
    text.as_deref().map_or(0, str::len)
}

/// `reason` as it fits beside a dead letter.
pub(crate) fn fitting_reason(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Properties;
    use bytes::Bytes;

    #[test]
    fn what_amqp_cannot_say_is_brought_into_range() {
        let sent = prepare(Message {
            properties: Properties {
                priority: Some(200),
                expiration_ms: Some(u64::MAX),
                ..Properties::default()
            },
            ..Message::default()
        })
        .unwrap();
        assert_eq!(sent.properties.priority, Some(10));
        assert_eq!(sent.properties.expiration_ms, Some(u64::from(u32::MAX)));
        assert!(sent.properties.message_id.is_some());
    }

    #[test]
    fn what_would_close_the_channel_is_refused() {
        let long_key = Message {
            routing_key: "k".repeat(256),
            ..Message::default()
        };
        let large_body = Message {
            body: Bytes::from(vec![0; MAX_BODY_BYTES + 1]),
            ..Message::default()
        };
        for message in [long_key, large_body] {
            assert!(matches!(prepare(message), Err(BusError::TooLarge { .. })));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let cut = fitting_reason(&"ü".repeat(1000));
        assert_eq!(cut.len(), 1024);
        assert_eq!(fitting_reason("short"), "short");
    }
}
