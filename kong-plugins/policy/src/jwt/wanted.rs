//! The claims that a configuration names: required ones, and those that are handed on.
//!
//! They are kept as the JSON text that the issuer signed, so that a number is handed on as it was
//! written.

use super::answer::Fault;
use super::keys::check_name;
use crate::ConfigError;
use crate::config::{ClaimValue, JwtAuth};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Most that is handed on of one token, names and values, in bytes: what still fits into an assertion
/// beside long names.
const MAX_HANDED_ON: usize = 1024;
/// Most names of either kind.
const MAX_NAMES: usize = 16;
/// Claims that this filter judges by rules of their own.
const JUDGED: [&str; 6] = ["iss", "aud", "scope", "exp", "nbf", "iat"];

/// Claims that the configuration names.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    required: Vec<(String, Vec<ClaimValue>)>,
    hand_on: Vec<String>,
}

impl Wanted {
    pub(super) fn compile(config: &JwtAuth, faults: &mut Vec<ConfigError>) -> Self {
        for (field, count) in [
            ("required_claims", config.required_claims.len()),
            ("hand_on_claims", config.hand_on_claims.len()),
        ] {
            if count > MAX_NAMES {
                faults.push(ConfigError::new(
                    field,
                    format!("at most {MAX_NAMES} claims"),
                ));
            }
        }
        for name in config.required_claims.keys() {
            let what = match check_name(name) {
                Err(what) => what,
                Ok(()) if name == "scope" => "scopes belong to required_scopes".to_owned(),
                Ok(()) if JUDGED.contains(&name.as_str()) => {
                    format!("{name} is checked by the fields of its own")
                }
                Ok(()) => continue,
            };
            // A claim's name is no secret, and one that is faulty may be as long as it likes.
            let known: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
            faults.push(ConfigError::new(format!("required_claims.{known}"), what));
        }
        for (index, name) in config.hand_on_claims.iter().enumerate() {
            let what = match check_name(name) {
                Err(what) => what,
                Ok(()) if name == "sub" || JUDGED.contains(&name.as_str()) => {
                    format!("{name} is handed on or checked already")
                }
                Ok(()) if config.hand_on_claims.iter().take(index).any(|n| n == name) => {
                    "named twice".to_owned()
                }
                Ok(()) => continue,
            };
            faults.push(ConfigError::new(format!("hand_on_claims[{index}]"), what));
        }
        Self {
            required: config.required_claims.clone().into_iter().collect(),
            hand_on: config.hand_on_claims.clone(),
        }
    }

    /// Whether the claim `name` is to be kept.
    pub(super) fn has(&self, name: &str) -> bool {
        self.hand_on.iter().any(|known| known == name)
            || self.required.iter().any(|(known, _)| known == name)
    }

    /// Whether `claims` have what is required.
    pub(super) fn holds(&self, claims: &Texts) -> bool {
        self.required.iter().all(|(name, values)| {
            claims.get(name).is_some_and(|text| {
                let one = Value::read(text);
                match &one {
                    Some(Value::Null) => false,
                    _ if values.is_empty() => true,
                    Some(one) => values.iter().any(|value| one.is(value)),
                    None => elements(text).is_some_and(|all| {
                        all.iter()
                            .filter_map(|text| Value::read(text.get()))
                            .any(|one| values.iter().any(|value| one.is(value)))
                    }),
                }
            })
        })
    }

    /// What of `claims` is handed on.
    ///
    /// # Errors
    /// [`Fault::HandOn`] when it is too much, or of a form that a reader might take for another.
    pub(super) fn handed_on(&self, claims: &Texts) -> Result<BTreeMap<String, String>, Fault> {
        let mut handed_on = BTreeMap::new();
        let mut length = 0_usize;
        for name in &self.hand_on {
            let Some(text) = claims.get(name) else {
                continue;
            };
            let value = match Value::read(text) {
                Some(Value::Null) => continue,
                Some(Value::Text(text)) => text,
                Some(Value::Number(text)) => text.to_owned(),
                Some(Value::Bool(value)) => value.to_string(),
                None => joined(text).ok_or(Fault::HandOn)?,
            };
            length = length
                .saturating_add(name.len())
                .saturating_add(value.len());
            if length > MAX_HANDED_ON || value.chars().any(char::is_control) {
                return Err(Fault::HandOn);
            }
            handed_on.insert(name.clone(), value);
        }
        Ok(handed_on)
    }
}

/// Claims by name, as JSON text.
pub(super) type Texts = BTreeMap<String, String>;

/// A JSON value that is neither array nor object.
enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(String),
}

impl<'a> Value<'a> {
    fn read(json: &'a str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'n' => Some(Self::Null),
            b't' => Some(Self::Bool(true)),
            b'f' => Some(Self::Bool(false)),
            b'"' => serde_json::from_str(json).ok().map(Self::Text),
            b'[' | b'{' => None,
            _ => Some(Self::Number(json)),
        }
    }

    fn is(&self, wanted: &ClaimValue) -> bool {
        match (self, wanted) {
            (Self::Text(text), ClaimValue::Text(wanted)) => text == wanted,
            (Self::Bool(value), ClaimValue::Bool(wanted)) => value == wanted,
            // As written: 1.0 and 1e0 are not 1.
            (Self::Number(text), ClaimValue::Integer(wanted)) => text.parse() == Ok(*wanted),
            _ => false,
        }
    }
}

fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// An array of strings, joined by spaces; none when it is another, or one of them has a space in it.
fn joined(json: &str) -> Option<String> {
    let texts: Vec<String> = serde_json::from_str(json).ok()?;
    let plain = |text: &String| !text.is_empty() && !text.contains(char::is_whitespace);
    texts.iter().all(plain).then(|| texts.join(" "))
}
