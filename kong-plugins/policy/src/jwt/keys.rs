//! Issuers and the keys that each alone has.

use super::answer::Fault;
use super::jwk;
use super::remote::Remote;
use super::token::Token;
use super::verifier::Verifier;
use crate::ConfigError;
use crate::config::{self, Algorithm};
use mesh_protocol::{Timestamp, assertion};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest name (issuer, audience, key id, `sub`), in bytes: all of them may end up in one header.
pub(super) const MAX_NAME: usize = 255;
/// `typ` of the tokens of an issuer that does not say (RFC 7519, section 5.1; RFC 9068, section 2.1).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// All issuers of a configuration.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

impl Issuers {
    /// The issuer of this name, and its place.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Issuer)> {
        self.0
            .iter()
            .enumerate()
            .find(|(_, issuer)| issuer.name == name)
    }

    /// The issuer at this place.
    pub(super) fn at(&self, place: usize) -> Option<&Issuer> {
        self.0.get(place)
    }

    /// The sets of keys that are fetched, each with its issuer's place.
    pub(super) fn remotes(&self) -> impl Iterator<Item = (usize, &Remote)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(place, issuer)| Some((place, issuer.remote.as_ref()?)))
    }
}

/// One issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    audiences: Vec<String>,
    types: Vec<String>,
    keys: Vec<Arc<Key>>,
    remote: Option<Remote>,
}

impl Issuer {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_for(&self, audiences: &[String]) -> bool {
        audiences.iter().any(|aud| self.audiences.contains(aud))
    }

    /// Whether its tokens may be of the type `typ` (RFC 8725, section 3.11).
    pub(super) fn issues(&self, typ: Option<&str>) -> bool {
        match typ {
            None => self.types.is_empty(),
            Some(typ) if self.types.is_empty() => TYPES.iter().any(|known| is_type(known, typ)),
            Some(typ) => self.types.iter().any(|known| is_type(known, typ)),
        }
    }

    /// The key that signed `token`.
    pub(super) fn signed(&self, token: &Token<'_>, now: Timestamp) -> Result<Arc<Key>, Fault> {
        match (signed(self.keys.iter(), token), &self.remote) {
            (Err(_), Some(remote)) => remote.signed(token, now),
            (result, _) => result,
        }
    }

    /// Whether `key` can be relied on at `now`, after it has once verified a token.
    pub(super) fn still_has(&self, key: &std::sync::Weak<Key>, now: Timestamp) -> bool {
        // A key lives as long as the set that it came with, and inline ones as long as this.
        key.strong_count() > 0
            && self.remote.as_ref().is_none_or(|remote| {
                remote.is_usable(now)
                    || key
                        .upgrade()
                        .is_some_and(|key| self.keys.iter().any(|own| Arc::ptr_eq(own, &key)))
            })
    }
}

/// The key among `keys` that signed `token`: `kid` and algorithm choose, keys without `kid` serve
/// tokens without one.
pub(super) fn signed<'a>(
    keys: impl Iterator<Item = &'a Arc<Key>>,
    token: &Token<'_>,
) -> Result<Arc<Key>, Fault> {
    let mut fault = Fault::UnknownKey;
    for key in keys {
        if key.algorithm == token.header.alg && key.kid == token.header.kid {
            if key.verifier.accepts(token.signed, &token.signature) {
                return Ok(Arc::clone(key));
            }
            fault = Fault::Signature;
        }
    }
    Err(fault)
}

/// A key of an issuer.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) verifier: Verifier,
}

/// Types are compared as media types are, `application/` being left out or not (RFC 7515, section 4.1.9).
fn is_type(known: &str, typ: &str) -> bool {
    short(known).eq_ignore_ascii_case(short(typ))
}

fn short(typ: &str) -> &str {
    typ.get(..12)
        .filter(|prefix| prefix.eq_ignore_ascii_case("application/"))
        .and_then(|prefix| typ.get(prefix.len()..))
        .unwrap_or(typ)
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
        compiled.push(compile_issuer(&path, issuer, faults));
    }
    Issuers(compiled)
}

fn compile_issuer(path: &str, issuer: &config::Issuer, faults: &mut Vec<ConfigError>) -> Issuer {
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
    for (number, typ) in issuer.types.iter().enumerate() {
        let what = match check_name(typ) {
            Err(what) => what,
            Ok(()) if is_type(assertion::TYPE, typ) => {
                "the mesh's own assertions are no tokens of an issuer".to_owned()
            }
            Ok(()) => continue,
        };
        faults.push(ConfigError::new(format!("{path}.types[{number}]"), what));
    }
    let jwks = issuer.jwks.as_ref().filter(|set| !set.keys.is_empty());
    if issuer.keys.is_empty() && jwks.is_none() && issuer.jwks_url.is_none() {
        faults.push(ConfigError::new(
            format!("{path}.keys"),
            "at least one is needed, here or in jwks, or a jwks_url",
        ));
    }
    let mut keys = compile_keys(path, &issuer.keys, faults);
    if let Some(set) = jwks {
        compile_set(path, set, &mut keys, faults);
    }
    Issuer {
        name: issuer.issuer.clone(),
        audiences: issuer.audiences.clone(),
        types: issuer.types.clone(),
        keys,
        remote: issuer
            .jwks_url
            .as_ref()
            .map(|url| Remote::compile(&format!("{path}.jwks_url"), url, faults)),
    }
}

fn compile_keys(path: &str, keys: &[config::Key], faults: &mut Vec<ConfigError>) -> Vec<Arc<Key>> {
    let mut ids = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let path = format!("{path}.keys[{index}]");
        let inner = key.jwk.as_ref().and_then(|jwk| jwk.kid.as_ref());
        if key.kid.is_some() && inner.is_some() && key.kid.as_ref() != inner {
            faults.push(ConfigError::new(
                format!("{path}.kid"),
                "not the kid of the jwk; one of the two is enough",
            ));
        }
        let kid = key.kid.as_ref().or(inner);
        if let Some(kid) = kid {
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
            Ok(verifier) => compiled.push(Arc::new(Key {
                kid: kid.cloned(),
                algorithm: key.algorithm,
                verifier,
            })),
            Err((field, what)) => {
                faults.push(ConfigError::new(format!("{path}.{field}"), what));
            }
        }
    }
    compiled
}

fn compile_key(key: &config::Key) -> Result<Verifier, (String, &'static str)> {
    let own = |field: &str, what| Err((field.to_owned(), what));
    match (&key.secret, &key.public_key, &key.jwk) {
        (None, None, Some(jwk)) => jwk::compile(jwk, &[key.algorithm])
            .map(|(_, verifier)| verifier)
            .map_err(|(member, what)| (format!("jwk.{member}"), what)),
        (_, _, Some(_)) => own("jwk", "a key is given once: as secret, public_key or jwk"),
        (Some(secret), None, None) if key.algorithm.is_symmetric() => {
            Verifier::from_secret_text(key.algorithm, secret).or_else(|what| own("secret", what))
        }
        // A public key where a secret belongs: whoever has it could sign (RFC 8725, section 2.1).
        (_, Some(_), _) if key.algorithm.is_symmetric() => {
            own("public_key", "this algorithm takes a secret only")
        }
        (None, None, None) if key.algorithm.is_symmetric() => {
            own("secret", "this algorithm needs a secret")
        }
        (Some(_), _, _) => own("secret", "this algorithm takes a public_key only"),
        (None, None, None) => own("public_key", "this algorithm needs a public key in PEM"),
        (None, Some(pem), None) => {
            Verifier::from_pem(key.algorithm, pem.trim()).or_else(|what| own("public_key", what))
        }
    }
}

fn compile_set(
    path: &str,
    set: &config::Jwks,
    keys: &mut Vec<Arc<Key>>,
    faults: &mut Vec<ConfigError>,
) {
    let all = Algorithm::NAMED.map(|(_, algorithm)| algorithm);
    for (index, jwk) in set.keys.iter().enumerate() {
        let path = format!("{path}.jwks.keys[{index}]");
        if let Some(Err(what)) = jwk.kid.as_deref().map(check_name) {
            faults.push(ConfigError::new(format!("{path}.kid"), what));
        }
        match jwk::compile(jwk, &all) {
            Ok((algorithm, verifier)) => {
                // Keys of different kinds may share a kid (RFC 7517, section 4.5).
                if jwk.kid.is_some()
                    && keys
                        .iter()
                        .any(|known| known.kid == jwk.kid && known.algorithm == algorithm)
                {
                    faults.push(ConfigError::new(
                        format!("{path}.kid"),
                        "names two keys of this issuer and algorithm",
                    ));
                }
                keys.push(Arc::new(Key {
                    kid: jwk.kid.clone(),
                    algorithm,
                    verifier,
                }));
            }
            Err((member, what)) => {
                faults.push(ConfigError::new(format!("{path}.{member}"), what));
            }
        }
    }
}
