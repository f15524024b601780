//! YAML as a tree in which every value knows its place.
//!
//! Deriving `Deserialize` on the schema would stop at the first fault; reading a tree reports all of
//! them. Anchors, aliases and merges are resolved by the parser, within budgets far above any honest
//! mesh.yaml and far below what hurts.

use crate::finding::{Finding, Place};
use crate::load::Fault;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use std::fmt;
use std::ops::Range;

/// Longest mesh.yaml that is read, in bytes, with all that it includes; two thousand agents and ten thousand
/// routes take a quarter of it.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
    /// Where it was written, if it stands at `place` by an alias.
    pub defined: Place,
    /// The bytes it was written with, where it was written.
    pub bytes: Option<Range<usize>>,
    /// What was written, where that names variables of the environment and `value` is what came of it.
    pub variables: Option<Box<Variables>>,
}

/// A scalar that names variables.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    /// As it stands in the file, such as `${HOST}:80`.
    pub written: String,
    /// With the values put in.
    pub value: Result<String, Fault>,
}

impl Node {
    /// A node that was not written anywhere, at `place`.
    pub fn made(value: Value, place: Place) -> Self {
        Self {
            value,
            place,
            defined: place,
            bytes: None,
            variables: None,
        }
    }

    /// Whether a variable that it names has no value, so that nothing more can be said of it.
    pub fn is_unset(&self) -> bool {
        self.variables.as_ref().is_some_and(|v| v.value.is_err())
    }
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
            Self::Int(_) => "a number",
            Self::Float => "a number with a fraction, or one that is too large",
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

/// Reads YAML text, as the file of this number.
pub(crate) fn parse(text: &str, file: u32) -> Result<Node, Box<Finding>> {
    let placed = |mut finding: Finding| {
        finding.place.file = file;
        Box::new(finding)
    };
    if text.len() > MAX_BYTES {
        return Err(placed(too_large()));
    }
    let mut root = parsed(text).map_err(|error| placed(refused(&error, text)))?;
    if file != 0 {
        number(&mut root, file);
    }
    Ok(root)
}

/// The parser knows of one file only.
fn number(node: &mut Node, file: u32) {
    (node.place.file, node.defined.file) = (file, file);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| number(item, file)),
        Value::Map(entries) => {
            for (key, value) in entries {
                key.place.file = file;
                number(value, file);
            }
        }
        _ => {}
    }
}

fn parsed(text: &str) -> Result<Node, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 20_000,
            max_depth: 32,
            max_documents: 1,
            max_nodes: 1_000_000,
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
    serde_saphyr::from_str_with_options(text, options)
}

/// Reads another program's YAML text, of at most four times as much; `old_booleans`: whether `yes` and `on` are
/// true there, as in YAML 1.1.
pub(crate) fn parse_foreign(text: &str, old_booleans: bool) -> Result<Node, Box<Finding>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 800_000,
            max_aliases: 10_000,
            max_anchors: 10_000,
            max_recorded_anchor_events: 80_000,
            max_depth: 48,
            max_documents: 1,
            max_nodes: 400_000,
            max_total_scalar_bytes: MAX_BYTES,
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
    serde_saphyr::from_str_with_options(text, options).map_err(|e| Box::new(refused(&e, text)))
}

fn refused(error: &serde_saphyr::Error, text: &str) -> Finding {
    use serde_saphyr::Error as E;
    let place = error.location().map_or_else(Place::default, |l| place(l).0);
    let message = error.to_string();
    let too_large = match error.without_snippet() {
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => true,
        // A budget that breaks inside an alias arrives as the alias's error.
        // Deep nesting in brackets meets the parser's own bound before ours.
        _ => message.contains("budget breached") || message.contains("recursion limit"),
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
    let message = match message {
        // What it may not precede was quoted.
        "':' may not precede any of" => "a space is missing behind ':'",
        message => message,
    };
    let mend = MENDS.iter().find(|(said, _)| message.contains(said));
    let mend = mend.map_or_else(|| mend_of_line(text, place.line), |(_, mend)| *mend);
    Finding::error("syntax", place, "", message).hint(mend)
}

/// What is meant by words of the parser that say it.
const MENDS: [(&str, &str); 13] = [
    ("unclosed bracket", "close the bracket that is opened there"),
    ("misplaced bracket", "remove it, or open one before it"),
    ("unclosed quote", "close the quote that is opened there"),
    (
        "unknown anchor",
        "give the name before with &NAME; quote text that begins with *",
    ),
    (
        "a BOM must not",
        "remove the three bytes EF BB BF there: two files were joined",
    ),
    ("character: `", "quote text that begins with this character"),
    ("a space is missing", "write `KEY: VALUE`, with a space"),
    (
        "mapping values are not",
        "quote text that holds ': ', and indent the line as those beside it; or the line above lacks ':'",
    ),
    (
        "did not find expected key",
        "indent it as the keys beside it, and close what is open above",
    ),
    (
        "expected '-' indicator",
        "indent it as what belongs to the same item",
    ),
    ("simple key expected", "write `KEY: VALUE`"),
    (
        "merge value must be",
        "write <<: *NAME, of a mapping that &NAME stands before",
    ),
    (
        "unknown escape",
        "write \\\\ for a backslash, or use single quotes",
    ),
];

/// What is usually behind a line that is no YAML.
fn mend_of_line(text: &str, line: usize) -> &'static str {
    let line = line.checked_sub(1).and_then(|n| text.lines().nth(n));
    let line = line.unwrap_or_default();
    let indent = |c: char| {
        line.chars()
            .take_while(|c| c.is_whitespace())
            .any(|i| i == c)
    };
    if indent('\t') {
        "indent with spaces: YAML takes no tabs there"
    } else if line.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\0')) {
        "remove the control character, or write it as \\xNN in double quotes"
    } else if text.contains('\0') {
        "remove the NUL characters: this is no text file, or it is UTF-16"
    } else if line.contains("${") {
        "within {…} and […] quote what names a variable: \"${NAME}\""
    } else {
        "check the indentation, and quote text that holds ': ' or begins with one of *&!%@`{["
    }
}

fn place(location: Location) -> (Place, Option<Range<usize>>) {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let span = location.span();
    let bytes = span.byte_offset().zip(span.byte_len()).map(|(at, len)| {
        let at = size(at);
        at..at.saturating_add(size(len))
    });
    let place = Place {
        file: 0,
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
            variables: None,
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
            let key = Key {
                text: key.value,
                place,
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Value::Map(map))
    }
}
