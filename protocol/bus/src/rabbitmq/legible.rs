//! Makes frames legible that the client library would give up the connection over, or worse.
//!
//! A broker passes on what publishers wrote, and looks at little of it. The library demands text where
//! AMQP only says bytes, follows tables into tables until its stack ends, and breaks off over a frame
//! that the broker's own additions made too large. Each would come again with the next connection.

use std::ops::Range;

/// How deep headers may be nested; what brokers add themselves goes three deep.
const DEEPEST: u32 = 32;
/// Takes the place of headers that cannot stay.
pub(super) const HEADER_LEFT_OUT: &str = "x-mesh-left-out";
/// A content header's class, weight and size of the body.
const BEFORE_PROPERTIES: usize = 12;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// Class and method of `basic.deliver`.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// Whether frames of this kind say what a publisher wrote, beside its body.
pub(super) fn concerns(kind: u8) -> bool {
    kind == METHOD || kind == HEADER
}

/// Mends `payload` in place, or returns another: of at most `room` bytes, unless it was fine.
pub(super) fn mend(kind: u8, payload: &mut [u8], room: usize) -> Option<Vec<u8>> {
    match kind {
        METHOD => {
            if payload.starts_with(&DELIVER) {
                Walk::new(payload, DELIVER.len()).deliver();
            }
            None
        }
        HEADER => header(payload, room),
        _ => None,
    }
}

fn header(payload: &mut [u8], room: usize) -> Option<Vec<u8>> {
    let fits = payload.len() <= room;
    match Walk::new(payload, BEFORE_PROPERTIES).properties() {
        Some(found) if found.legible && fits => None,
        Some(Found {
            headers: Some(at), ..
        }) => {
            let mut mended = payload.get(..at.start)?.to_vec();
            mended.extend(in_place_of(at.len()));
            mended.extend(payload.get(at.end..)?);
            Some(mended)
        }
        // Without headers all properties are short.
        Some(_) => None,
        None => {
            let mut mended = payload.get(..BEFORE_PROPERTIES)?.to_vec();
            mended.extend((1_u16 << HEADERS).to_be_bytes());
            mended.extend(in_place_of(payload.len() - BEFORE_PROPERTIES));
            Some(mended)
        }
    }
}

/// A table with one header, for those that had `bytes` bytes.
fn in_place_of(bytes: usize) -> Vec<u8> {
    let text = format!("{bytes} bytes, malformed, nested too deeply or more than a frame");
    let mut entry = vec![HEADER_LEFT_OUT.len() as u8];
    entry.extend(HEADER_LEFT_OUT.bytes());
    entry.push(b'S');
    entry.extend((text.len() as u32).to_be_bytes());
    entry.extend(text.bytes());
    let mut table = (entry.len() as u32).to_be_bytes().to_vec();
    table.extend(entry);
    table
}

/// Bits of the property flags.
const HEADERS: u32 = 13;
const DELIVERY_MODE: u32 = 12;
const PRIORITY: u32 = 11;
const TIMESTAMP: u32 = 6;
/// The lowest bit that stands for a property; those below are for more flags, and for nothing.
const CLUSTER_ID: u32 = 2;

struct Found {
    /// Where the headers are, with their length.
    headers: Option<Range<usize>>,
    legible: bool,
}

/// Reads on from `at`; `None` where the bytes end or mean nothing.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Consumer tag, delivery tag, redelivered, exchange, routing key.
    fn deliver(&mut self) -> Option<()> {
        self.short()?;
        self.skip(9)?;
        self.short()?;
        self.short()
    }

    fn properties(&mut self) -> Option<Found> {
        let flags = self.number(2)?;
        let mut found = Found {
            headers: None,
            legible: true,
        };
        for bit in (CLUSTER_ID..u16::BITS).rev() {
            if flags & (1 << bit) == 0 {
                continue;
            }
            match bit {
                HEADERS => {
                    let start = self.at;
                    let end = self.end()?;
                    found.legible = self.table(end, DEEPEST).is_some();
                    found.headers = Some(start..end);
                    self.at = end;
                }
                DELIVERY_MODE | PRIORITY => self.skip(1)?,
                TIMESTAMP => self.skip(8)?,
                _ => self.short()?,
            }
        }
        let more = flags & ((1 << CLUSTER_ID) - 1) != 0;
        (self.at == self.bytes.len() && !more).then_some(found)
    }

    fn table(&mut self, end: usize, deeper: u32) -> Option<()> {
        while self.at < end {
            self.short()?;
            self.value(deeper)?;
        }
        (self.at == end).then_some(())
    }

    fn value(&mut self, deeper: u32) -> Option<()> {
        let kind = self.bytes.get(self.at).copied()?;
        self.skip(1)?;
        match kind {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                self.at = self.end()?;
                Some(())
            }
            b'F' => {
                let end = self.end()?;
                self.table(end, deeper.checked_sub(1)?)
            }
            b'A' => {
                let end = self.end()?;
                while self.at < end {
                    self.value(deeper.checked_sub(1)?)?;
                }
                (self.at == end).then_some(())
            }
            _ => None,
        }
    }

    /// A short string; what is no UTF-8 loses all but its ASCII.
    fn short(&mut self) -> Option<()> {
        let length = self.number(1)?;
        let start = self.at;
        self.skip(length)?;
        let text = self.bytes.get_mut(start..self.at)?;
        if std::str::from_utf8(text).is_err() {
            for byte in text.iter_mut().filter(|byte| !byte.is_ascii()) {
                *byte = b'?';
            }
        }
        Some(())
    }

    /// Where that ends whose length comes next.
    fn end(&mut self) -> Option<usize> {
        let length = self.number(4)?;
        let end = self.at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let start = self.at;
        self.skip(bytes)?;
        let digits = self.bytes.get(start..self.at)?;
        Some(digits.iter().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        let to = self.at.checked_add(bytes)?;
        if to > self.bytes.len() {
            return None;
        }
        self.at = to;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::BasicProperties;
    use lapin::protocol::basic::{gen_properties, parse_properties};
    use lapin::types::generation::GenResult;
    use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString};

    const ROOM: usize = 131_064;

    fn payload(properties: &BasicProperties) -> Vec<u8> {
        let written: GenResult<Vec<u8>> = gen_properties(properties)(Vec::new().into());
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        payload.extend(written.unwrap().write);
        payload
    }

    fn parsed(payload: &[u8]) -> BasicProperties {
        let (rest, properties) = parse_properties(&payload[BEFORE_PROPERTIES..]).unwrap();
        assert!(rest.is_empty());
        properties
    }

    /// One header of each type, and each property.
    fn everything() -> BasicProperties {
        let mut array = FieldArray::default();
        array.push(AMQPValue::Void);
        array.push(AMQPValue::FieldTable(FieldTable::default()));
        let decimal = DecimalValue { scale: 1, value: 2 };
        let values = [
            AMQPValue::Boolean(true),
            AMQPValue::ShortShortInt(-1),
            AMQPValue::ShortShortUInt(1),
            AMQPValue::ShortInt(-1),
            AMQPValue::ShortUInt(1),
            AMQPValue::LongInt(-1),
            AMQPValue::LongUInt(1),
            AMQPValue::LongLongInt(-1),
            AMQPValue::Float(0.5),
            AMQPValue::Double(0.5),
            AMQPValue::DecimalValue(decimal),
            AMQPValue::LongString(LongString::from(vec![0xff, 0])),
            AMQPValue::ByteArray(vec![0xff].into()),
            AMQPValue::Timestamp(1),
            AMQPValue::FieldArray(array),
        ];
        let mut headers = FieldTable::default();
        for (number, value) in values.into_iter().enumerate() {
            headers.insert(format!("ü{number}").into(), value);
        }
        BasicProperties::default()
            .with_content_type("a".into())
            .with_content_encoding("b".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(1)
            .with_correlation_id("c".into())
            .with_reply_to("d".into())
            .with_expiration("1".into())
            .with_message_id("e".into())
            .with_timestamp(1)
            .with_type("f".into())
            .with_user_id("g".into())
            .with_app_id("h".into())
            .with_cluster_id("i".into())
    }

    #[test]
    fn what_is_legible_stays() {
        for properties in [everything(), BasicProperties::default()] {
            let before = payload(&properties);
            let mut after = before.clone();
            assert_eq!(mend(HEADER, &mut after, ROOM), None);
            assert_eq!(after, before);
        }
    }

    #[test]
    fn headers_that_cannot_stay_leave_the_rest() {
        let mut deep = FieldTable::default();
        for _ in 0..=DEEPEST {
            let mut outer = FieldTable::default();
            outer.insert("h".into(), AMQPValue::FieldTable(deep));
            deep = outer;
        }
        let mut long = FieldTable::default();
        let text = LongString::from("v".repeat(ROOM));
        long.insert("h".into(), AMQPValue::LongString(text));
        for headers in [deep, long] {
            let original = everything().with_headers(headers);
            let mended = mend(HEADER, &mut payload(&original), ROOM).unwrap();
            let mended = parsed(&mended);
            let headers = mended.headers().as_ref().unwrap();
            assert!(headers.contains_key(HEADER_LEFT_OUT));
            assert_eq!(headers.inner().len(), 1);
            assert_eq!(mended.correlation_id(), original.correlation_id());
            assert_eq!(mended.cluster_id(), original.cluster_id());
        }
    }

    /// Whatever byte is another, or missing: the library can read what comes of it.
    #[test]
    fn what_is_mended_can_be_read() {
        let original = payload(&everything());
        for at in BEFORE_PROPERTIES..original.len() {
            for byte in [0, 1, b'F', b'A', b'Z', 0x7f, 0xff] {
                let mut bent = original.clone();
                bent[at] = byte;
                let mended = mend(HEADER, &mut bent, ROOM).unwrap_or(bent);
                parsed(&mended);
            }
            let mut cut = original[..at].to_vec();
            let mended = mend(HEADER, &mut cut, ROOM).unwrap_or(cut);
            parsed(&mended);
        }
    }

    #[test]
    fn a_routing_key_that_is_no_text_is_mended() {
        let mut deliver = DELIVER.to_vec();
        deliver.extend(b"\x01t\0\0\0\0\0\0\0\x07\0\x01x\x03k\xff\xfe");
        assert_eq!(mend(METHOD, &mut deliver, ROOM), None);
        assert!(deliver.ends_with(b"\x01x\x03k??"));
    }
}
