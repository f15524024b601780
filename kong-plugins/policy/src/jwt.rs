//! The `jwt_auth` filter: a verified bearer token in, the signed assertion out.
//!
//! Follows RFC 8725: the key decides the algorithm, never the token; every claim is compared exactly;
//! what is not understood is refused. The order of the checks is part of the design: reserved headers
//! first, then the signature, and only then what the token says, so that nobody learns from an answer
//! what a token without a valid signature would have been refused for.

mod answer;
mod cache;
mod claims;
mod keys;
mod token;

use crate::config::JwtAuth;
use crate::decision::FOUND_CALLER;
use crate::{Caller, ConfigError, Decision, Filter, Host, Pass, Refusal, RequestHead};
use answer::{Answers, Fault};
use cache::{Cache, Entry};
use claims::Claims;
use ed25519_dalek::SigningKey;
use keys::Issuers;
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{self, RESERVED_HEADERS};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use token::Token;

/// Longest assertion life, in seconds: what a key that leaked or a caller who was locked out keeps.
const MAX_LIFETIME_S: u64 = 600;

/// A compiled `jwt_auth` configuration, with the tokens that it has verified.
#[derive(Debug)]
pub struct Policy {
    issuers: Issuers,
    leeway_ms: u64,
    required_scopes: Vec<String>,
    signer: Signer,
    answers: Answers,
    // A filter instance runs on one thread; decisions share the policy, hence the cell.
    verified: RefCell<Cache>,
}

struct Signer {
    issuer: String,
    audience: String,
    kid: String,
    key: SigningKey,
    lifetime_s: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Checks and prepares a configuration.
///
/// # Errors
/// Every fault, by path.
pub fn compile(config: &JwtAuth) -> Result<Policy, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let issuers = keys::compile_issuers(&config.issuers, &mut faults);
    if config.leeway_s > assertion::LEEWAY_S {
        faults.push(ConfigError::new(
            "leeway_s",
            format!(
                "at most {} seconds: the assertion ends with the token, and its readers allow no more",
                assertion::LEEWAY_S
            ),
        ));
    }
    for (index, scope) in config.required_scopes.iter().enumerate() {
        if scope.is_empty() || !claims::is_scope(scope) || scope.contains(' ') {
            faults.push(ConfigError::new(
                format!("required_scopes[{index}]"),
                "one scope each: printable ASCII without space, '\"' and '\\'",
            ));
        }
    }
    let signer = compile_signer(config, &mut faults);
    match signer {
        Some(signer) if faults.is_empty() => Ok(Policy {
            issuers,
            leeway_ms: config.leeway_s.saturating_mul(1000),
            required_scopes: config.required_scopes.clone(),
            answers: Answers::new(&signer.audience, &config.required_scopes),
            signer,
            verified: RefCell::default(),
        }),
        _ => Err(faults),
    }
}

fn compile_signer(config: &JwtAuth, faults: &mut Vec<ConfigError>) -> Option<Signer> {
    let signer = &config.assertion;
    for (name, text) in [
        ("issuer", &signer.issuer),
        ("audience", &signer.audience),
        ("kid", &signer.kid),
    ] {
        if let Err(what) = keys::check_name(text) {
            faults.push(ConfigError::new(format!("assertion.{name}"), what));
        }
    }
    if signer.lifetime_s == 0 || signer.lifetime_s > MAX_LIFETIME_S {
        faults.push(ConfigError::new(
            "assertion.lifetime_s",
            format!("1 to {MAX_LIFETIME_S} seconds"),
        ));
    }
    let seed = token::decode(signer.signing_key.as_bytes())
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let Some(seed) = seed else {
        faults.push(ConfigError::new(
            "assertion.signing_key",
            "32 bytes in unpadded base64url",
        ));
        return None;
    };
    Some(Signer {
        issuer: signer.issuer.clone(),
        audience: signer.audience.clone(),
        kid: signer.kid.clone(),
        key: SigningKey::from_bytes(&seed),
        lifetime_s: signer.lifetime_s,
    })
}

impl Filter for Policy {
    const NAME: &'static str = "jwt_auth";
    type Config = JwtAuth;
    type Request = ();

    fn revision(config: &JwtAuth) -> &str {
        &config.revision
    }

    fn compile(config: &JwtAuth) -> Result<Self, Vec<ConfigError>> {
        compile(config)
    }

    fn decide(
        &self,
        _request: &mut Self::Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Decision {
        let decided = match host.now() {
            Ok(now) => self.examine(head, now),
            Err(unreadable) => Err(unreadable.into()),
        };
        match decided {
            Ok(pass) => Decision::Pass(pass),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }
}

impl Policy {
    fn examine(&self, head: &dyn RequestHead, now: Timestamp) -> Result<Pass, Refusal> {
        for name in RESERVED_HEADERS {
            if !head.header(name)?.is_empty() {
                return Err(answer::reserved(name));
            }
        }
        for name in head.odd_names()? {
            if let Some(reserved) = assertion::reserved_alias(&name) {
                return Err(answer::reserved(reserved));
            }
        }
        let authorization = head.header("authorization")?;
        if authorization.is_empty() {
            return if is_preflight(head)? {
                Ok(Pass::because("preflight"))
            } else {
                Err(self.answers.no_token())
            };
        }
        // Some gateways tell several as one already (RFC 9110, section 5.3): all are read the same.
        let value = authorization.join(&b", "[..]);
        let Some(bearer) = token::bearer(&value).map_err(|fault| self.answers.refused(fault))?
        else {
            return Err(self.answers.no_token());
        };
        self.accept(bearer, now)
            .map_err(|fault| self.answers.refused(fault))
    }

    fn accept(&self, bearer: &[u8], now: Timestamp) -> Result<Pass, Fault> {
        let hash: [u8; 32] = Sha256::digest(bearer).into();
        if let Ok(mut verified) = self.verified.try_borrow_mut()
            && let Some(entry) = verified.get_mut(&hash)
            && self
                .in_time(entry.not_before_ms, entry.expires_ms, now)
                .is_ok()
        {
            if self.worn(entry, now) {
                self.sign_into(entry, now)?;
            }
            return Ok(pass(entry));
        }
        let mut entry = self.verify(bearer, now)?;
        self.sign_into(&mut entry, now)?;
        let pass = pass(&entry);
        if let Ok(mut verified) = self.verified.try_borrow_mut() {
            verified.insert(hash, entry);
        }
        Ok(pass)
    }

    /// The whole verification of a token that is not cached.
    fn verify(&self, bearer: &[u8], now: Timestamp) -> Result<Entry, Fault> {
        let token = Token::parse(bearer)?;
        let claims: Claims = token::read(&token.claims)?;
        let issuer = claims
            .iss
            .as_deref()
            .and_then(|iss| self.issuers.find(iss))
            .ok_or(Fault::UnknownIssuer)?;
        issuer.verify(&token)?;
        let expires_ms = claims.exp.ok_or(Fault::MissingClaim)?.millis();
        let not_before_ms = [claims.nbf, claims.iat]
            .into_iter()
            .flatten()
            .map(claims::NumericDate::millis)
            .max()
            .unwrap_or(0);
        self.in_time(not_before_ms, expires_ms, now)?;
        if !issuer.is_for(&claims.aud) {
            return Err(Fault::Audience);
        }
        let sub = claims.sub.ok_or(Fault::MissingClaim)?;
        let scope = claims.scope.unwrap_or_default();
        if !self
            .required_scopes
            .iter()
            .all(|needed| scope.split(' ').any(|held| held == needed))
        {
            return Err(Fault::Scope);
        }
        Ok(Entry {
            caller: Caller {
                sub,
                origin: issuer.name().to_owned(),
                scope,
                claims: std::collections::BTreeMap::new(),
            },
            not_before_ms,
            expires_ms,
            assertion: String::new(),
            signed_at_s: 0,
            assertion_ends_s: 0,
        })
    }

    fn in_time(&self, not_before_ms: u64, expires_ms: u64, now: Timestamp) -> Result<(), Fault> {
        if now.millis() >= expires_ms.saturating_add(self.leeway_ms) {
            return Err(Fault::Expired);
        }
        if now.millis().saturating_add(self.leeway_ms) < not_before_ms {
            return Err(Fault::NotYetValid);
        }
        Ok(())
    }

    /// Whether a new assertion is due: less than half of the old one's life remains and a new one
    /// would live longer, or the clock went back behind its beginning.
    fn worn(&self, entry: &Entry, now: Timestamp) -> bool {
        let now_s = now.seconds();
        let half = entry.assertion_ends_s.saturating_sub(entry.signed_at_s) / 2;
        now_s < entry.signed_at_s
            || (now_s > entry.signed_at_s.saturating_add(half)
                && self.end_of_assertion(entry, now) > entry.assertion_ends_s)
    }

    /// In seconds; never after the token's own end.
    fn end_of_assertion(&self, entry: &Entry, now: Timestamp) -> u64 {
        now.seconds()
            .saturating_add(self.signer.lifetime_s)
            .min(entry.expires_ms / 1000)
    }

    fn sign_into(&self, entry: &mut Entry, now: Timestamp) -> Result<(), Fault> {
        let claims = assertion::Claims {
            iss: self.signer.issuer.clone(),
            aud: self.signer.audience.clone(),
            sub: entry.caller.sub.clone(),
            origin: entry.caller.origin.clone(),
            scope: entry.caller.scope.clone(),
            iat: now.seconds(),
            exp: self.end_of_assertion(entry, now),
        };
        entry.assertion = assertion::sign(&claims, &self.signer.kid, &self.signer.key);
        entry.signed_at_s = claims.iat;
        entry.assertion_ends_s = claims.exp;
        // Names, `sub` and `scope` are bounded so that this cannot happen; a reader would refuse it.
        if entry.assertion.len() > assertion::MAX_LENGTH {
            return Err(Fault::Malformed);
        }
        Ok(())
    }
}

fn pass(entry: &Entry) -> Pass {
    Pass {
        set_headers: vec![(assertion::HEADER, entry.assertion.clone())],
        // Strings always serialise.
        leave: vec![(
            FOUND_CALLER,
            serde_json::to_vec(&entry.caller).unwrap_or_default(),
        )],
        reason: "token",
    }
}

/// A CORS preflight as browsers send it; it never carries a token, and so never an assertion.
fn is_preflight(head: &dyn RequestHead) -> Result<bool, crate::Unreadable> {
    Ok(head.method()? == b"OPTIONS"
        && !head.header("origin")?.is_empty()
        && !head.header("access-control-request-method")?.is_empty())
}

#[cfg(test)]
mod tests;
