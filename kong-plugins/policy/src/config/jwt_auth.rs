//! Configuration of the `jwt_auth` filter.

use super::issuer::Issuer;
use mesh_protocol::assertion;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Configuration of the `jwt_auth` filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JwtAuth {
    /// Revision of the mesh.yaml this was rendered from.
    #[serde(default)]
    pub revision: String,
    /// Issuers whose tokens are accepted, each with its own keys (RFC 8725, section 3.8).
    pub issuers: Vec<Issuer>,
    /// Where a token may stand besides `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Sources::is_default")]
    pub sources: Sources,
    /// How far two machines' clocks may differ, in seconds; at most the leeway of whoever reads the
    /// assertion (`mesh_protocol::assertion::LEEWAY_S`).
    #[serde(default = "leeway_s")]
    pub leeway_s: u64,
    /// Longest time since a token was issued, in seconds; a token then needs `iat`. No bound when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
    /// Scopes that a token must all carry (`scope`, RFC 8693, section 4.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_scopes: Vec<String>,
    /// Claims that a token must all have: by name, the values of which it must have one. A claim that
    /// is an array has each of its elements. No values: any but null will do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Vec<ClaimValue>>,
    /// Further claims that are handed on in the assertion: strings, numbers, booleans, and arrays of
    /// strings, these joined by spaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hand_on_claims: Vec<String>,
    /// Who a request without any token comes from; nobody when left out, so that it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
    /// How the verified caller is handed on.
    pub assertion: AssertionSigner,
}

impl JwtAuth {
    /// The configuration that accepts what `issuers` issue, everything else as when left out.
    pub fn new(issuers: Vec<Issuer>, assertion: AssertionSigner) -> Self {
        Self {
            revision: String::new(),
            issuers,
            sources: Sources::default(),
            leeway_s: leeway_s(),
            max_age_s: None,
            required_scopes: Vec::new(),
            required_claims: BTreeMap::new(),
            hand_on_claims: Vec::new(),
            anonymous: None,
            assertion,
        }
    }
}

/// Where a token may stand besides `Authorization: Bearer`; a request that has one in two places is
/// refused (RFC 6750, section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Name of a cookie. Browsers send cookies by themselves: the service needs a guard against
    /// cross-site requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Name of a query parameter. Addresses end up in logs and histories (RFC 6750, section 2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

impl Sources {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who a request without any token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// The caller; its origin is the assertion's issuer, so that no issuer's subject is like it.
    pub sub: String,
    /// Scopes, separated by spaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

/// A value of a claim: a string, a whole number or a boolean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A boolean.
    Bool(bool),
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl serde::de::Visitor<'_> for Reader {
            type Value = ClaimValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number or a boolean")
            }

            fn visit_str<E>(self, text: &str) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Integer(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ClaimValue, E> {
                i64::try_from(number)
                    .map(ClaimValue::Integer)
                    .map_err(|_| E::custom("too large a number"))
            }

            fn visit_bool<E>(self, value: bool) -> Result<ClaimValue, E> {
                Ok(ClaimValue::Bool(value))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for ClaimValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClaimValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "integer", "boolean"]})
    }
}

/// How the verified caller is handed on, see `mesh_protocol::assertion`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AssertionSigner {
    /// `iss` of the assertions: this gateway.
    pub issuer: String,
    /// `aud` of the assertions: the mesh's name.
    pub audience: String,
    /// Name of the signing key.
    pub kid: String,
    /// 32 bytes of Ed25519 private key in unpadded base64url. A secret.
    pub signing_key: String,
    /// How long an assertion is valid, in seconds.
    #[serde(default = "lifetime_s")]
    pub lifetime_s: u64,
}

impl fmt::Debug for AssertionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionSigner")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("kid", &self.kid)
            .field("lifetime_s", &self.lifetime_s)
            .finish_non_exhaustive()
    }
}

fn leeway_s() -> u64 {
    assertion::LEEWAY_S
}

fn lifetime_s() -> u64 {
    60
}
