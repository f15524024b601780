//! The properties of a message that is moved, to the dead letters or elsewhere: those of the original, as far as a
//! broker takes them.
//!
//! All properties of a message travel in one frame, and a frame that is too large costs the whole
//! connection. A foreign publisher may have filled that frame to the last byte, so the reason that is
//! added here has to find its room: the largest headers make it.

use super::properties::{
    HEADER_BROKERS_REASON, HEADER_COUNT, HEADER_DEATHS, HEADER_IDEMPOTENCY_KEY, HEADER_REASON,
    HEADER_TRACEPARENT, HEADER_TRACESTATE, HEADER_TRAIL, PERSISTENT,
};
use lapin::BasicProperties;
use lapin::protocol::basic::gen_properties;
use lapin::types::generation::{GenResult, gen_value};
use lapin::types::{AMQPValue, FieldTable, LongString};

/// Headers by which a broker would send a copy to further queues, or would count what befell the original.
const LEFT_OUT: [&str; 6] = [
    "CC",
    "BCC",
    HEADER_COUNT,
    "x-acquired-count",
    HEADER_REASON,
    HEADER_TRAIL,
];
/// Headers by which a broker says where a message died before. Beside one that lives on they are wrong: a broker
/// drops what it sees coming by the same queue again.
const DEATHS: [&str; 7] = [
    HEADER_DEATHS,
    HEADER_BROKERS_REASON,
    "x-first-death-queue",
    "x-first-death-exchange",
    "x-last-death-reason",
    "x-last-death-queue",
    "x-last-death-exchange",
];
/// Headers that go last when there is no room for all.
const OUR_HEADERS: [&str; 3] = [
    HEADER_IDEMPOTENCY_KEY,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
];
/// What a content header has before its properties: class, weight, size of the body.
const BEFORE_PROPERTIES: usize = 12;
/// A frame's type, channel, length and end.
const AROUND_FRAME: usize = 8;
/// Longest note of what was left out, in bytes: two numbers and few words.
const NOTE_BYTES: usize = 96;

/// The largest content header, in bytes, on a connection with frames of `frame_max` bytes.
pub(super) fn room(frame_max: u32) -> usize {
    (frame_max as usize).saturating_sub(AROUND_FRAME)
}

/// What `properties` take as a content header, in bytes.
pub(super) fn size(properties: &BasicProperties) -> usize {
    let written: GenResult<Vec<u8>> = gen_properties(properties)(Vec::new().into());
    // Writing to memory does not fail; what cannot be written fits nowhere.
    written.map_or(usize::MAX, |all| BEFORE_PROPERTIES + all.write.len())
}

fn entry_size(name: &str, value: &AMQPValue) -> usize {
    let written: GenResult<Vec<u8>> = gen_value(value)(Vec::new().into());
    written.map_or(usize::MAX, |all| 1 + name.len() + all.write.len())
}

/// What is said of a message that is moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Note<'a> {
    /// Why it is dead; it lives on without one.
    pub(super) reason: Option<&'a str>,
    /// What befell it, as it is written.
    pub(super) trail: Option<&'a str>,
}

/// `original` beside its copy, well within `room` bytes. Left out is what a broker would act on: a
/// time to live, further receivers, and a user id, which it compares with that of this connection.
pub(super) fn moved(original: &BasicProperties, note: Note<'_>, room: usize) -> BasicProperties {
    let bare = with_note(original, FieldTable::default(), note);
    // An eighth stays free for what a broker adds when it moves the copy or delivers it again.
    let mut left = (room - room / 8).saturating_sub(size(&bare) + NOTE_BYTES);
    let mut headers: Vec<_> = original
        .headers()
        .iter()
        .flat_map(FieldTable::inner)
        .filter(|(name, _)| {
            let name = name.as_str();
            !LEFT_OUT.contains(&name) && (note.reason.is_some() || !DEATHS.contains(&name))
        })
        .map(|(name, value)| (name, value, entry_size(name.as_str(), value)))
        .collect();
    headers.sort_by_key(|(name, _, bytes)| (!OUR_HEADERS.contains(&name.as_str()), *bytes));
    let mut kept = FieldTable::default();
    let (mut count, mut bytes) = (0, 0);
    for (name, value, size) in headers {
        if size <= left {
            left -= size;
            kept.insert(name.clone(), value.clone());
        } else {
            count += 1;
            bytes += size;
        }
    }
    if count == 0 {
        return with_note(original, kept, note);
    }
    let left_out = format!("headers that did not fit: {count}, of {bytes} bytes");
    let reason = note.reason.map(|reason| format!("{reason}; {left_out}"));
    let reason = reason.as_deref();
    with_note(original, kept, Note { reason, ..note })
}

fn with_note(original: &BasicProperties, headers: FieldTable, note: Note<'_>) -> BasicProperties {
    let mut headers = headers;
    for (name, text) in [(HEADER_REASON, note.reason), (HEADER_TRAIL, note.trail)] {
        if let Some(text) = text {
            let text = AMQPValue::LongString(LongString::from(text));
            headers.insert(name.into(), text);
        }
    }
    let mut copy = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    macro_rules! keep {
        ($($field:ident $with:ident),*) => {$(
            if let Some(value) = original.$field() {
                copy = copy.$with(value.clone());
            }
        )*};
    }
    keep!(
        content_type with_content_type, content_encoding with_content_encoding,
        priority with_priority, correlation_id with_correlation_id, reply_to with_reply_to,
        message_id with_message_id, timestamp with_timestamp, kind with_type,
        app_id with_app_id, cluster_id with_cluster_id
    );
    copy
}

#[cfg(test)]
mod tests {
    use super::super::properties::read;
    use super::*;

    const ROOM: usize = 131_064;

    fn buried(original: &BasicProperties, reason: &str, room: usize) -> BasicProperties {
        let reason = Some(reason);
        let trail = None;
        moved(original, Note { reason, trail }, room)
    }

    fn headers(all: &[(&str, &str)]) -> BasicProperties {
        let mut headers = FieldTable::default();
        for &(name, value) in all {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        BasicProperties::default().with_headers(headers)
    }

    #[test]
    fn a_dead_letter_keeps_what_no_broker_acts_on() {
        let original = headers(&[("CC", "elsewhere"), ("tenant", "a")])
            .with_user_id("somebody".into())
            .with_expiration("10".into())
            .with_message_id("m".into());
        let copy = buried(&original, "why", ROOM);
        let headers = copy.headers().as_ref().unwrap();
        assert!(headers.contains_key("tenant") && !headers.contains_key("CC"));
        assert!(copy.user_id().is_none() && copy.expiration().is_none());
        assert_eq!(read(&copy).reason.as_deref(), Some("why"));
        assert_eq!(read(&copy).message_id.as_deref(), Some("m"));
    }

    #[test]
    fn what_lives_on_has_not_died_before() {
        let deaths = [
            ("x-death", "list"),
            ("x-first-death-reason", "expired"),
            ("x-delivery-count", "7"),
            ("x-mesh-reason", "why"),
            ("tenant", "a"),
        ];
        let trail = Some("{}");
        let reason = None;
        let copy = moved(&headers(&deaths), Note { reason, trail }, ROOM);
        let kept = copy.headers().as_ref().unwrap().inner();
        let names: Vec<&str> = kept.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["tenant", "x-mesh-trail"]);
        assert_eq!(read(&copy).reason, None);
        // Beside a dead letter it is part of what is told.
        assert!(
            buried(&headers(&deaths), "why", ROOM)
                .headers()
                .as_ref()
                .unwrap()
                .contains_key("x-death")
        );
    }

    #[test]
    fn the_largest_headers_make_room() {
        let (large, larger) = ("v".repeat(60_000), "v".repeat(65_000));
        let original = headers(&[
            ("a", &large),
            ("b", &larger),
            ("c", "small"),
            (HEADER_REASON, "of another"),
            (HEADER_TRACEPARENT, "00-1-2-01"),
        ]);
        let copy = buried(&original, "why", ROOM);
        let kept = copy.headers().as_ref().unwrap();
        assert!(kept.contains_key("a") && kept.contains_key("c"));
        assert!(!kept.contains_key("b"));
        let read = read(&copy);
        assert_eq!(read.traceparent.as_deref(), Some("00-1-2-01"));
        let reason = read.reason.unwrap();
        assert_eq!(reason, "why; headers that did not fit: 1, of 65007 bytes");
    }

    /// As large as AMQP's smallest frame allows, whatever a publisher wrote.
    #[test]
    fn a_dead_letter_fits_the_smallest_frame() {
        let long = || "s".repeat(255).into();
        let original = headers(&[
            ("h", &"v".repeat(ROOM)),
            ("Idempotency-Key", &"k".repeat(512)),
        ])
        .with_content_type(long())
        .with_content_encoding(long())
        .with_correlation_id(long())
        .with_reply_to(long())
        .with_message_id(long())
        .with_type(long())
        .with_app_id(long())
        .with_cluster_id(long());
        let room = room(4096);
        let copy = buried(&original, &"r".repeat(1024), room);
        assert!(size(&copy) <= room, "{}", size(&copy));
        assert_eq!(copy.message_id(), original.message_id());
        assert!(read(&copy).reason.unwrap().contains("did not fit: 2"));
    }
}
