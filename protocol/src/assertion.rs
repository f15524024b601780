//! The signed assertion: the one thing a gateway hands on that anyone trusts.
//!
//! A compact JWS (RFC 7515) over EdDSA with Ed25519 (RFC 8037), with a `typ` of its own so that no
//! client's token can pass for one (RFC 8725, section 3.11). The gateway signs, everyone else holds
//! public keys only. Signing and verifying stand side by side because a difference between the two
//! would be a hole; this is the one place of the ground floor that is more than data.

use crate::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Request header that carries the assertion.
pub const HEADER: &str = "x-mesh-assertion";
/// Request header in which the agent_router filter names the agent.
pub const HEADER_AGENT: &str = "x-mesh-agent";
/// Headers that no client may send, in every spelling that gateways pass on and that some server reads
/// as the same name; compare in lower case.
pub const RESERVED_HEADERS: [&str; 8] = [
    HEADER,
    "x_mesh_assertion",
    "x-mesh_assertion",
    "x_mesh-assertion",
    HEADER_AGENT,
    "x_mesh_agent",
    "x-mesh_agent",
    "x_mesh-agent",
];
/// The reserved header that some server may read `name` as, with its odd characters as `-`. For names with
/// characters beyond letters, digits, `-` and `_`; Kong drops those, Envoy passes them on.
pub fn reserved_alias(name: &[u8]) -> Option<&'static str> {
    let read = |byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            byte.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    [HEADER, HEADER_AGENT]
        .into_iter()
        .find(|reserved| name.iter().map(read).eq(reserved.bytes()))
}

/// `typ` of the assertion's header.
pub const TYPE: &str = "mesh-assertion+jwt";
/// Longest assertion that is looked at, in bytes; a request line and its headers stay below 8 KiB.
pub const MAX_LENGTH: usize = 4096;
/// How far two machines' clocks may differ, in seconds.
pub const LEEWAY_S: u64 = 30;

/// Whose assertions are believed, as configurations say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertions {
    /// The audience that an assertion must name: the mesh's name.
    pub audience: String,
    /// The gateways' public keys.
    pub keys: Vec<AssertionKey>,
}

/// A gateway's public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionKey {
    /// Name of the key.
    pub kid: String,
    /// 32 bytes of Ed25519 in unpadded base64url.
    pub x: String,
}

/// Who is calling, as the gateway verified it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The gateway that signed.
    pub iss: String,
    /// The mesh it is meant for.
    pub aud: String,
    /// The caller, as its own issuer names it.
    pub sub: String,
    /// The issuer of the caller's token; `sub` is unique only together with it.
    pub origin: String,
    /// Scopes of the caller's token, separated by spaces (RFC 8693, section 4.2).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Further claims of the caller's token that the gateway hands on, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// Signed at, in seconds since 1970.
    pub iat: u64,
    /// Not to be accepted from this second on.
    pub exp: u64,
}

impl Claims {
    /// Whether `now` is between signing and expiry, as far as two clocks may differ. For whoever keeps verified
    /// claims: what [`verify`] said of one moment holds for no other.
    pub fn hold_at(&self, now: Timestamp) -> bool {
        let now = now.seconds();
        now < self.exp.saturating_add(LEEWAY_S) && now.saturating_add(LEEWAY_S) >= self.iat
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Why an assertion is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// No compact JWS of the one form that gateways write.
    #[error("assertion is malformed")]
    Malformed,
    /// Signed by no key that is known here.
    #[error("assertion is signed by an unknown key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("assertion has a wrong signature")]
    Signature,
    /// Meant for another mesh.
    #[error("assertion is for another audience")]
    Audience,
    /// Too old, or from the future.
    #[error("assertion has expired or is not yet valid")]
    Expired,
}

/// A gateway's public key and its name.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// Name that chooses among keys.
    pub kid: String,
    /// The key.
    pub key: VerifyingKey,
}

impl PublicKey {
    /// Reads a key from 32 bytes in unpadded base64url, the form of a JWK's `x`.
    ///
    /// # Errors
    /// [`AssertionError::Malformed`] when the text is no Ed25519 public key, or a weak one.
    pub fn from_base64(kid: impl Into<String>, text: &str) -> Result<Self, AssertionError> {
        let bytes: [u8; 32] = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|b| b.try_into().ok())
            .ok_or(AssertionError::Malformed)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| AssertionError::Malformed)?;
        if key.is_weak() {
            return Err(AssertionError::Malformed);
        }
        Ok(Self {
            kid: kid.into(),
            key,
        })
    }
}

/// The public half of `key` in unpadded base64url, as [`PublicKey::from_base64`] reads it.
pub fn public_half(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes())
}

/// Signs `claims` as the key named `kid`.
pub fn sign(claims: &Claims, kid: &str, key: &SigningKey) -> String {
    let header = Header {
        alg: "EdDSA".to_owned(),
        typ: TYPE.to_owned(),
        kid: kid.to_owned(),
    };
    sign_compact(&header, claims, key)
}

/// A compact JWS over EdDSA: the one place that writes tokens, assertions and clients' alike.
pub fn sign_compact(header: &impl Serialize, claims: &impl Serialize, key: &SigningKey) -> String {
    let mut token = encode(header);
    token.push('.');
    token.push_str(&encode(claims));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature.to_bytes()));
    token
}

/// Verifies `token` against the known `keys`, for `audience`, at `now`.
///
/// `now` is the present for a request, and the time of submission for an assertion that travels with
/// a task.
///
/// # Errors
/// Why the assertion proves nothing.
pub fn verify(
    token: &str,
    keys: &[PublicKey],
    audience: &str,
    now: Timestamp,
) -> Result<Claims, AssertionError> {
    if token.len() > MAX_LENGTH {
        return Err(AssertionError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(AssertionError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(AssertionError::Malformed)?;
    let header: Header = decode(header)?;
    if header.alg != "EdDSA" || header.typ != TYPE {
        return Err(AssertionError::Malformed);
    }
    let key = keys
        .iter()
        .find(|k| k.kid == header.kid)
        .ok_or(AssertionError::UnknownKey)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .ok()
        .and_then(|bytes| Signature::from_slice(&bytes).ok())
        .ok_or(AssertionError::Malformed)?;
    key.key
        .verify_strict(signed.as_bytes(), &signature)
        .map_err(|_| AssertionError::Signature)?;
    let claims: Claims = decode(claims)?;
    if claims.aud != audience {
        return Err(AssertionError::Audience);
    }
    if !claims.hold_at(now) {
        return Err(AssertionError::Expired);
    }
    Ok(claims)
}

fn encode<T: Serialize>(part: &T) -> String {
    // Plain structs of strings and numbers always serialise.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

fn decode<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, AssertionError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| AssertionError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AssertionError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn claims() -> Claims {
        Claims {
            iss: "gateway".into(),
            aud: "mesh".into(),
            sub: "alice".into(),
            origin: "https://issuer.example".into(),
            scope: "tasks:submit".into(),
            claims: BTreeMap::from([("tenant".into(), "acme".into())]),
            iat: 1_000_000,
            exp: 1_000_060,
        }
    }

    fn keys() -> Vec<PublicKey> {
        vec![PublicKey::from_base64("k1", &public_half(&key(1))).unwrap()]
    }

    #[test]
    fn what_was_signed_is_read() {
        let token = sign(&claims(), "k1", &key(1));
        assert_eq!(verify(&token, &keys(), "mesh", NOW), Ok(claims()));
    }

    #[test]
    fn everything_else_is_refused() {
        let good = sign(&claims(), "k1", &key(1));
        let refused = |token: &str| verify(token, &keys(), "mesh", NOW).unwrap_err();
        assert_eq!(
            refused(&sign(&claims(), "k1", &key(2))),
            AssertionError::Signature
        );
        assert_eq!(
            refused(&sign(&claims(), "k2", &key(1))),
            AssertionError::UnknownKey
        );
        assert_eq!(refused(""), AssertionError::Malformed);
        assert_eq!(
            refused(&good.replacen('.', "", 1)),
            AssertionError::Malformed
        );
        assert_eq!(refused(&format!("{good}=")), AssertionError::Malformed);
        assert_eq!(refused(&format!("{good}.x")), AssertionError::Malformed);
        assert_eq!(
            refused(&"x".repeat(MAX_LENGTH + 1)),
            AssertionError::Malformed
        );
        assert_eq!(
            verify(&good, &keys(), "other", NOW),
            Err(AssertionError::Audience)
        );
        for seconds in [1_000_090, 999_969] {
            let at = Timestamp::from_millis(seconds * 1000);
            assert_eq!(
                verify(&good, &keys(), "mesh", at),
                Err(AssertionError::Expired)
            );
        }
    }

    #[test]
    fn odd_characters_do_not_hide_a_reserved_name() {
        for name in ["x.mesh.assertion", "X!Mesh~Agent", "x_mesh-assertion"] {
            assert!(reserved_alias(name.as_bytes()).is_some(), "{name}");
        }
        for name in ["x.mesh", "x..mesh.agent", "xmeshagent", ""] {
            assert_eq!(reserved_alias(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_clients_token_is_no_assertion() {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#);
        let signed = format!("{header}.{}", encode(&claims()));
        let signature = URL_SAFE_NO_PAD.encode(key(1).sign(signed.as_bytes()).to_bytes());
        assert_eq!(
            verify(&format!("{signed}.{signature}"), &keys(), "mesh", NOW),
            Err(AssertionError::Malformed)
        );
    }
}
