//! Header and claims of a token, read strictly.
//!
//! A name that occurs twice is refused, known or not (RFC 7519, section 4 allows to take the last;
//! two readers that take different ones are a hole). Unknown members are skipped without being built.

use super::keys::MAX_NAME;
use super::wanted::{Texts, Wanted};
use crate::config::Algorithm;
use crate::scopes;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor,
};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::fmt;

/// The last second of the year 9999, where written time ends.
const LAST_SECOND: u64 = 253_402_300_799;

/// A JOSE header, as far as it is looked at. `jku`, `jwk`, `x5u` and `x5c` are never read: keys come
/// from the configuration alone.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) alg: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) typ: Option<String>,
}

/// The claims of a token, as far as they are looked at.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) aud: Vec<String>,
    pub(super) sub: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) exp: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
    /// Those that the configuration names, unread.
    pub(super) texts: Texts,
}

/// The names of an object that were seen.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn next<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Option<String>, A::Error> {
        let name = map.next_key::<String>()?;
        if let Some(name) = &name
            && !self.0.insert(name.clone())
        {
            return Err(A::Error::custom("a name occurs twice"));
        }
        Ok(name)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JOSE header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut names = Names::default();
                let (mut alg, mut kid, mut typ) = (None, None, None);
                while let Some(name) = names.next(&mut map)? {
                    match name.as_str() {
                        // Anything but the exact spellings ends here, "none" among it.
                        "alg" => alg = Some(map.next_value()?),
                        "kid" => kid = Some(map.next_value()?),
                        "typ" => typ = Some(map.next_value()?),
                        "crit" => return Err(A::Error::custom("no extension is understood")),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Header {
                    alg: alg.ok_or_else(|| A::Error::missing_field("alg"))?,
                    kid,
                    typ,
                })
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads claims, those that the configuration names among them.
impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Claims;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Claims, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Wanted {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claims set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut names = Names::default();
        let mut claims = Claims::default();
        while let Some(name) = names.next(&mut map)? {
            let text: &'de RawValue = map.next_value()?;
            match name.as_str() {
                "iss" => claims.iss = Some(value(text)?),
                "aud" => claims.aud = value::<OneOrMany, _>(text)?.0,
                "sub" => claims.sub = Some(checked_sub(value(text)?)?),
                "scope" => claims.scope = Some(checked_scope(value(text)?)?),
                "exp" => claims.exp = Some(value(text)?),
                "nbf" => claims.nbf = Some(value(text)?),
                "iat" => claims.iat = Some(value(text)?),
                _ => {}
            }
            if self.has(&name) {
                claims.texts.insert(name, text.get().to_owned());
            }
        }
        Ok(claims)
    }
}

fn value<'de, T: Deserialize<'de>, E: Error>(text: &'de RawValue) -> Result<T, E> {
    serde_json::from_str(text.get()).map_err(|_| E::custom("a claim of another type"))
}

fn checked_sub<E: Error>(sub: String) -> Result<String, E> {
    if sub.is_empty() || sub.len() > MAX_NAME || sub.chars().any(char::is_control) {
        return Err(E::custom("no usable sub"));
    }
    Ok(sub)
}

fn checked_scope<E: Error>(many: OneOrMany) -> Result<String, E> {
    scopes::read(&many.0.join(" ")).ok_or_else(|| E::custom("no usable scope"))
}

/// A string, or an array of strings.
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Seconds since 1970, whole or not (RFC 7519, section 2), up to the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumericDate(u64);

impl NumericDate {
    /// Milliseconds since 1970.
    pub(super) fn millis(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds between 1970 and 9999")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<NumericDate, E> {
                if seconds > LAST_SECOND {
                    return Err(E::custom("out of range"));
                }
                Ok(NumericDate(seconds.saturating_mul(1000)))
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<NumericDate, E> {
                if !seconds.is_finite() || !(0.0..=LAST_SECOND as f64).contains(&seconds) {
                    return Err(E::custom("out of range"));
                }
                Ok(NumericDate((seconds * 1000.0) as u64))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
