//! A JSON Web Key as a key for one algorithm (RFC 7517, section 4).

use super::token;
use super::verifier::Verifier;
use crate::config::{Algorithm, Jwk};

/// The member at fault, and the fault.
pub(super) type JwkFault = (&'static str, &'static str);

/// The one algorithm among `allowed` that `jwk` is for, and the key ready to verify it.
///
/// A key says its own by `alg`; of one that does not, `allowed` must leave exactly one.
pub(super) fn compile(jwk: &Jwk, allowed: &[Algorithm]) -> Result<(Algorithm, Verifier), JwkFault> {
    if jwk.d.is_some() {
        return Err((
            "d",
            "a private key: give the public half only, and make a new key",
        ));
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(("use", "the key is not for signatures"));
    }
    let verifies = |operations: &Vec<String>| operations.iter().any(|name| name == "verify");
    if !jwk.key_ops.as_ref().is_none_or(verifies) {
        return Err(("key_ops", "the key is not for verifying"));
    }
    let algorithm = algorithm(jwk, allowed)?;
    let verifier = match kind(jwk)? {
        Kind::Oct => {
            Verifier::from_secret(algorithm, &member(&jwk.k, "k")?).map_err(|what| ("k", what))
        }
        Kind::Rsa => Verifier::from_rsa(algorithm, &member(&jwk.n, "n")?, &member(&jwk.e, "e")?)
            .map_err(|what| ("n", what)),
        Kind::P256 | Kind::P384 | Kind::P521 => {
            Verifier::from_point(algorithm, &member(&jwk.x, "x")?, &member(&jwk.y, "y")?)
                .map_err(|what| ("x", what))
        }
        Kind::Ed25519 => Verifier::from_ed(&member(&jwk.x, "x")?).map_err(|what| ("x", what)),
    }?;
    Ok((algorithm, verifier))
}

fn algorithm(jwk: &Jwk, allowed: &[Algorithm]) -> Result<Algorithm, JwkFault> {
    let kind = kind(jwk)?;
    let mut possible = allowed
        .iter()
        .copied()
        .filter(|algorithm| Kind::of(*algorithm) == kind);
    if let Some(name) = &jwk.alg {
        return possible
            .find(|algorithm| Algorithm::named(name) == Some(*algorithm))
            .ok_or(("alg", "not an algorithm that this key may be for here"));
    }
    match (possible.next(), possible.next()) {
        (Some(algorithm), None) => Ok(algorithm),
        (None, _) => Err(("kty", "not a key of the algorithm")),
        _ => Err((
            "alg",
            "the key can be for several algorithms: name the one that it is for",
        )),
    }
}

/// Kinds of keys, as far as algorithms tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Oct,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Kind {
    fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Self::Oct,
            Algorithm::ES256 => Self::P256,
            Algorithm::ES384 => Self::P384,
            Algorithm::ES512 => Self::P521,
            Algorithm::EdDSA => Self::Ed25519,
            _ => Self::Rsa,
        }
    }
}

fn kind(jwk: &Jwk) -> Result<Kind, JwkFault> {
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("oct", _) => Ok(Kind::Oct),
        ("RSA", _) => Ok(Kind::Rsa),
        ("EC", Some("P-256")) => Ok(Kind::P256),
        ("EC", Some("P-384")) => Ok(Kind::P384),
        ("EC", Some("P-521")) => Ok(Kind::P521),
        ("OKP", Some("Ed25519")) => Ok(Kind::Ed25519),
        ("EC" | "OKP", _) => Err(("crv", "P-256, P-384 or P-521 for EC, Ed25519 for OKP")),
        _ => Err(("kty", "one of EC, OKP, RSA and oct")),
    }
}

fn member(text: &Option<String>, name: &'static str) -> Result<Vec<u8>, JwkFault> {
    let text = text.as_deref().ok_or((name, "this kind of key needs it"))?;
    token::decode(text.as_bytes()).ok_or((name, "no unpadded base64url"))
}
