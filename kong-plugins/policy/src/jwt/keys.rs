//! Issuers and their keys. Each key verifies one algorithm (RFC 8725, section 3.1), so that no token
//! can choose how it is verified.

use super::answer::Fault;
use super::token::{self, Token};
use crate::ConfigError;
use crate::config::{self, Algorithm};
use ed25519_dalek::VerifyingKey as EdKey;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::VerifyingKey as P256Key;
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use rsa::pkcs1v15::VerifyingKey as RsaKey;
use rsa::traits::PublicKeyParts;
use sha2::Sha256;
use std::collections::BTreeSet;

/// Longest name (issuer, audience, key id, `sub`), in bytes: all of them may end up in one header.
pub(super) const MAX_NAME: usize = 255;
/// Shortest secret, in bytes: the output of the hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;
/// RSA moduli, in bits: shorter ones are weak (RFC 7518, section 3.3), longer ones cost a worker
/// milliseconds per token.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;

/// All issuers of a configuration.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

impl Issuers {
    pub(super) fn find(&self, name: &str) -> Option<&Issuer> {
        self.0.iter().find(|issuer| issuer.name == name)
    }
}

/// One issuer and the keys that it alone has.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    audiences: Vec<String>,
    keys: Vec<Key>,
}

impl Issuer {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_for(&self, audiences: &[String]) -> bool {
        audiences.iter().any(|aud| self.audiences.contains(aud))
    }

    /// `kid` and algorithm choose among the keys; keys without `kid` serve tokens without one.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Fault> {
        let mut result = Err(Fault::UnknownKey);
        for key in &self.keys {
            if key.algorithm == token.header.alg && key.kid == token.header.kid {
                if key.verifier.accepts(token.signed, &token.signature) {
                    return Ok(());
                }
                result = Err(Fault::Signature);
            }
        }
        result
    }
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    verifier: Verify,
}

#[derive(Debug)]
enum Verify {
    Hs256(Hmac<Sha256>),
    Rs256(RsaKey<Sha256>),
    Es256(P256Key),
    EdDsa(EdKey),
}

impl Verify {
    fn accepts(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            // `verify_slice` compares in constant time and the whole length only.
            Self::Hs256(mac) => mac
                .clone()
                .chain_update(signed)
                .verify_slice(signature)
                .is_ok(),
            Self::Rs256(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Self::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Self::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }
}

/// A name that is compared or handed on: not empty, bounded, without control characters.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > MAX_NAME {
        return Err(format!("at most {MAX_NAME} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    Ok(())
}

pub(super) fn compile_issuers(
    issuers: &[config::Issuer],
    faults: &mut Vec<ConfigError>,
) -> Issuers {
    if issuers.is_empty() {
        faults.push(ConfigError::new("issuers", "at least one is needed"));
    }
    let mut names = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, issuer) in issuers.iter().enumerate() {
        let path = format!("issuers[{index}]");
        if let Err(what) = check_name(&issuer.issuer) {
            faults.push(ConfigError::new(format!("{path}.issuer"), what));
        } else if !names.insert(&issuer.issuer) {
            faults.push(ConfigError::new(
                format!("{path}.issuer"),
                "named twice; list all its keys and audiences once",
            ));
        }
        if issuer.audiences.is_empty() {
            faults.push(ConfigError::new(
                format!("{path}.audiences"),
                "at least one is needed, else a token for any service would do",
            ));
        }
        for (number, audience) in issuer.audiences.iter().enumerate() {
            if let Err(what) = check_name(audience) {
                faults.push(ConfigError::new(
                    format!("{path}.audiences[{number}]"),
                    what,
                ));
            }
        }
        compiled.push(Issuer {
            name: issuer.issuer.clone(),
            audiences: issuer.audiences.clone(),
            keys: compile_keys(&path, &issuer.keys, faults),
        });
    }
    Issuers(compiled)
}

fn compile_keys(path: &str, keys: &[config::Key], faults: &mut Vec<ConfigError>) -> Vec<Key> {
    if keys.is_empty() {
        faults.push(ConfigError::new(
            format!("{path}.keys"),
            "at least one is needed",
        ));
    }
    let mut ids = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let path = format!("{path}.keys[{index}]");
        if let Some(kid) = &key.kid {
            if let Err(what) = check_name(kid) {
                faults.push(ConfigError::new(format!("{path}.kid"), what));
            } else if !ids.insert(kid) {
                faults.push(ConfigError::new(
                    format!("{path}.kid"),
                    "names two keys of this issuer",
                ));
            }
        }
        match compile_key(key) {
            Ok(verifier) => compiled.push(Key {
                kid: key.kid.clone(),
                algorithm: key.algorithm,
                verifier,
            }),
            Err((field, what)) => {
                faults.push(ConfigError::new(format!("{path}.{field}"), what));
            }
        }
    }
    compiled
}

fn compile_key(key: &config::Key) -> Result<Verify, (&'static str, &'static str)> {
    match (key.algorithm, &key.secret, &key.public_key) {
        (Algorithm::HS256, Some(secret), None) => compile_secret(secret).ok_or((
            "secret",
            "32 bytes or more in unpadded base64url, as `openssl rand -base64 32 | tr '+/' '-_' | tr -d =` makes them",
        )),
        (Algorithm::HS256, _, Some(_)) => Err(("public_key", "HS256 takes a secret only")),
        (Algorithm::HS256, None, None) => Err(("secret", "HS256 needs a secret")),
        (_, Some(_), _) => Err(("secret", "this algorithm takes a public_key only")),
        (_, None, None) => Err(("public_key", "this algorithm needs a public key in PEM")),
        (algorithm, None, Some(pem)) => {
            compile_public(algorithm, pem.trim()).map_err(|what| ("public_key", what))
        }
    }
}

fn compile_secret(secret: &str) -> Option<Verify> {
    let secret = token::decode(secret.as_bytes())?;
    if secret.len() < MIN_SECRET {
        return None;
    }
    Hmac::new_from_slice(&secret).ok().map(Verify::Hs256)
}

fn compile_public(algorithm: Algorithm, pem: &str) -> Result<Verify, &'static str> {
    match algorithm {
        // The caller has sent this one elsewhere.
        Algorithm::HS256 => Err("HS256 takes a secret only"),
        Algorithm::RS256 => {
            let key = rsa::PublicKey::from_public_key_pem(pem)
                .map_err(|_| "no RSA public key in PEM (BEGIN PUBLIC KEY)")?;
            if !RSA_BITS.contains(&key.n().bit_width_vartime()) {
                return Err("an RSA key has 2048 to 4096 bits");
            }
            // The crate bounds the exponent from below by 2 and refuses even ones: 3 is the least.
            Ok(Verify::Rs256(RsaKey::new(key)))
        }
        Algorithm::ES256 => P256Key::from_public_key_pem(pem)
            .map(Verify::Es256)
            .map_err(|_| "no P-256 public key in PEM (BEGIN PUBLIC KEY)"),
        Algorithm::EdDSA => {
            let key = EdKey::from_public_key_pem(pem)
                .map_err(|_| "no Ed25519 public key in PEM (BEGIN PUBLIC KEY)")?;
            if key.is_weak() {
                return Err("a weak Ed25519 key");
            }
            Ok(Verify::EdDsa(key))
        }
    }
}
