//! The walk over a body: what it holds goes by, and the known fields of its own object are kept.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// serde_json takes an object whose first name this is for a text of JSON: a reader that builds values
/// would see another body than one that does not.
const RESERVED: &str = "$serde_json::private::RawValue";
pub(super) const TWICE: &str = "a name occurs twice in an object";
pub(super) const TOO_DEEP: &str = "arrays and objects are nested too deep";
pub(super) const RESERVED_WORDS: &str = "a name is reserved";

/// A value, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind<'de> {
    Null,
    /// A number; none where it is no whole number from 0 up.
    Number(Option<u64>),
    Text(Cow<'de, str>),
    Object,
    Other,
}

#[derive(Default)]
pub(super) struct Fields<'de> {
    pub(super) task_type: Option<Kind<'de>>,
    pub(super) task: Option<Kind<'de>>,
    pub(super) payload: Option<Kind<'de>>,
    pub(super) priority: Option<Kind<'de>>,
    pub(super) priority_at: Option<Range<usize>>,
    pub(super) timeout: Option<Kind<'de>>,
}

/// The names of all objects that the walk is in, those of the innermost last.
pub(super) type Names<'de> = Vec<Cow<'de, str>>;

/// Whether the names from `start` on, which are all of one object, are each there once; takes them away.
fn close(names: &mut Names<'_>, start: usize) -> bool {
    let alone = match names.get_mut(start..) {
        Some(own) => {
            own.sort_unstable();
            own.windows(2).all(|pair| pair.first() != pair.last())
        }
        None => true,
    };
    names.truncate(start);
    alone
}

fn next_name<'de, A: MapAccess<'de>>(
    map: &mut A,
    names: &mut Names<'de>,
    start: usize,
) -> Result<bool, A::Error> {
    let Some(name) = map.next_key_seed(Name)? else {
        return if close(names, start) {
            Ok(false)
        } else {
            Err(A::Error::custom(TWICE))
        };
    };
    if name == RESERVED {
        return Err(A::Error::custom(RESERVED_WORDS));
    }
    names.push(name);
    Ok(true)
}

/// A text, borrowed where it is written plainly.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Any value. Texts with escapes are built only where they are to be kept.
pub(super) struct Skip<'a, 'de> {
    names: &'a mut Names<'de>,
    left: u8,
    keep: bool,
}

impl<'de> DeserializeSeed<'de> for Skip<'_, 'de> {
    type Value = Kind<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_, 'de> {
    type Value = Kind<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(Kind::Other)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Kind::Number(Some(value)))
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Self::Value, E> {
        Ok(Kind::Number(None))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Self::Value, E> {
        Ok(Kind::Number(None))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Kind::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(if self.keep {
            Kind::Text(Cow::Owned(text.to_owned()))
        } else {
            Kind::Other
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let left = deeper(self.left)?;
        let names = self.names;
        while sequence.next_element_seed(skip(names, left))?.is_some() {}
        Ok(Kind::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let left = deeper(self.left)?;
        let start = self.names.len();
        while next_name(&mut map, self.names, start)? {
            map.next_value_seed(skip(self.names, left))?;
        }
        Ok(Kind::Object)
    }
}

pub(super) fn skip<'a, 'de>(names: &'a mut Names<'de>, left: u8) -> Skip<'a, 'de> {
    Skip {
        names,
        left,
        keep: false,
    }
}

fn keep<'a, 'de>(names: &'a mut Names<'de>, left: u8) -> Skip<'a, 'de> {
    Skip {
        names,
        left,
        keep: true,
    }
}

fn deeper<E: Error>(left: u8) -> Result<u8, E> {
    left.checked_sub(1).ok_or_else(|| E::custom(TOO_DEEP))
}

/// The body's own object, of which the known fields are kept.
pub(super) struct Top<'a, 'de> {
    pub(super) names: &'a mut Names<'de>,
    pub(super) body: &'de [u8],
    pub(super) left: u8,
}

impl<'de> DeserializeSeed<'de> for Top<'_, 'de> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, 'de> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let left = deeper(self.left)?;
        let names = self.names;
        let mut fields = Fields::default();
        while next_name(&mut map, names, 0)? {
            match names.last().map_or("", AsRef::as_ref) {
                "task_type" => fields.task_type = Some(map.next_value_seed(keep(names, left))?),
                "task" => fields.task = Some(map.next_value_seed(keep(names, left))?),
                "payload" => fields.payload = Some(map.next_value_seed(skip(names, left))?),
                "timeout" => fields.timeout = Some(map.next_value_seed(skip(names, left))?),
                "priority" => {
                    let (kind, at) = placed(map.next_value()?, self.body, names, left)?;
                    fields.priority = Some(kind);
                    fields.priority_at = Some(at);
                }
                _ => {
                    map.next_value_seed(skip(names, left))?;
                }
            }
        }
        Ok(fields)
    }
}

/// A value, and where in the body it stands.
fn placed<'de, E: Error>(
    value: &'de RawValue,
    body: &'de [u8],
    names: &mut Names<'de>,
    left: u8,
) -> Result<(Kind<'de>, Range<usize>), E> {
    let text = value.get();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let kind = skip(names, left)
        .deserialize(&mut deserializer)
        .map_err(E::custom)?;
    // The text is a part of the body, so the difference of their addresses is where it begins.
    let start = text.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    Ok((kind, start..start.saturating_add(text.len())))
}
