//! YAML as a tree in which every value knows its place.
//!
//! Deriving `Deserialize` on the schema would stop at the first fault; reading a tree reports all of
//! them. Anchors, aliases and merges are resolved by the parser, within budgets far above any honest
//! mesh.yaml and far below what hurts.

use crate::finding::{Finding, Place};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use std::fmt;
use std::ops::Range;

/// Longest mesh.yaml that is read, in bytes; a thousand agents take a quarter of it.
pub const MAX_BYTES: usize = 1024 * 1024;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
    /// Where it was written, if it stands at `place` by an alias.
    pub defined: Place,
    /// The bytes it was written with, where it was written.
    pub bytes: Option<Range<usize>>,
}

/// What YAML knows.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: String,
    pub place: Place,
}

impl Value {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The finding of a file beyond [`MAX_BYTES`].
pub(crate) fn too_large() -> Finding {
    let message = format!("the file is longer than {MAX_BYTES} bytes");
    Finding::error("too_large", Place::default(), "", message)
}

/// Reads YAML text.
pub(crate) fn parse(text: &str) -> Result<Node, Finding> {
    if text.len() > MAX_BYTES {
        return Err(too_large());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 20_000,
            max_depth: 32,
            max_documents: 1,
            max_nodes: 100_000,
            max_total_scalar_bytes: MAX_BYTES,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        // Duplicates are found while reading, with the other faults.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `on` and `yes` are words.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| refused(&e))
}

/// Reads another program's YAML text, of at most four times as much; `old_booleans`: whether `yes` and `on` are
/// true there, as in YAML 1.1.
pub(crate) fn parse_foreign(text: &str, old_booleans: bool) -> Result<Node, Finding> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 800_000,
            max_aliases: 10_000,
            max_anchors: 10_000,
            max_recorded_anchor_events: 80_000,
            max_depth: 48,
            max_documents: 1,
            max_nodes: 400_000,
            max_total_scalar_bytes: 4 * MAX_BYTES,
            max_merge_keys: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 80_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: !old_booleans,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| refused(&e))
}

fn refused(error: &serde_saphyr::Error) -> Finding {
    use serde_saphyr::Error as E;
    let place = error.location().map_or_else(Place::default, |l| place(l).0);
    let message = error.to_string();
    let too_large = match error.without_snippet() {
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => true,
        // A budget that breaks inside an alias arrives as the alias's error.
        _ => message.contains("budget breached"),
    };
    if message.contains("Documents {") {
        let message = "the file holds more than one document";
        return Finding::error("syntax", place, "", message)
            .hint("remove the line `---` and what follows it");
    }
    if too_large {
        let message = "the file is nested or expanded beyond what any mesh needs";
        return Finding::error("too_large", place, "", message)
            .hint("write repeated parts out, and nest less than 32 deep");
    }
    // The parser repeats the place at the end of its text; the report shows it already.
    let message = message
        .split(" at line ")
        .next()
        .unwrap_or(&message)
        .lines()
        .next()
        .unwrap_or_default();
    // What it quotes comes from the file; a single character is its own.
    let message = match message.split_once('`') {
        Some((said, quoted)) if quoted.chars().count() > 2 => said.trim_end().trim_end_matches(':'),
        _ => message,
    };
    Finding::error("syntax", place, "", message).hint(
        "check the indentation, and quote text that holds ': ' or begins with one of *&!%@`{[",
    )
}

fn place(location: Location) -> (Place, Option<Range<usize>>) {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let span = location.span();
    let bytes = span.byte_offset().zip(span.byte_len()).map(|(at, len)| {
        let at = size(at);
        at..at.saturating_add(size(len))
    });
    let place = Place {
        line: size(location.line()),
        column: size(location.column()),
        width: size(span.len()).max(1),
    };
    (place, bytes)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let (mut place, _) = place(spanned.referenced);
        let (defined, bytes) = self::place(spanned.defined);
        if matches!(spanned.value, Value::List(_) | Value::Map(_)) {
            place.width = 1;
        }
        Ok(Self {
            value: spanned.value,
            place,
            defined,
            bytes,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom("number is too large"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let (place, _) = place(key.referenced);
            if key.value.len() > 256 {
                return Err(A::Error::custom("a key is longer than 256 bytes"));
            }
            let key = Key {
                text: key.value,
                place,
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Value::Map(map))
    }
}
