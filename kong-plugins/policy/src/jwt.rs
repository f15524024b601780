//! The `jwt_auth` filter: a verified bearer token in, the signed assertion out.
//!
//! Follows RFC 8725: the key decides the algorithm, never the token; every claim is compared exactly;
//! what is not understood is refused. The order of the checks is part of the design: reserved headers
//! first, then the signature, and only then what the token says, so that nobody learns from an answer
//! what a token without a valid signature would have been refused for.
//!
//! A token that was verified before costs its hash and what the host is asked: the clock, the reserved
//! names, the token's place. Caller and assertion are kept as they are handed on.

mod answer;
mod cache;
mod claims;
mod jwk;
mod keys;
mod mint;
mod pem;
mod remote;
mod sources;
mod token;
mod verifier;
mod wanted;

use crate::config::{self, JwtAuth};
use crate::scopes;
use crate::{
    Caller, ConfigError, Decision, Fetch, Fetched, Filter, Host, Pass, Refusal, RequestHead,
};
use answer::{Answers, Fault};
use cache::{Cache, Entry, Life};
use claims::{Claims, NumericDate};
use keys::Issuers;
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{self, RESERVED_HEADERS};
use mint::{Minted, Signer};
use sha2::{Digest, Sha256};
use sources::Sources;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use token::Token;
use wanted::Wanted;

/// Longest age that can be asked for, in seconds: a hundred years, so that no sum overflows.
const MAX_AGE_S: u64 = 3_153_600_000;

/// A compiled `jwt_auth` configuration, with the tokens that it has verified.
#[derive(Debug)]
pub struct Policy {
    issuers: Issuers,
    sources: Sources,
    leeway_ms: u64,
    max_age_ms: Option<u64>,
    required_scopes: Vec<String>,
    wanted: Wanted,
    anonymous: Option<Anonymous>,
    signer: Signer,
    answers: Answers,
    // A filter instance runs on one thread; decisions share the policy, hence the cell.
    verified: RefCell<Cache>,
}

/// Who a request without a token comes from.
#[derive(Debug)]
struct Anonymous {
    caller: Caller,
    minted: RefCell<Option<Minted>>,
}

/// What is kept of a request.
#[derive(Debug, Default)]
pub struct Request {
    token_in_query: bool,
}

/// Checks and prepares a configuration.
///
/// # Errors
/// Every fault, by path.
pub fn compile(config: &JwtAuth) -> Result<Policy, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let issuers = keys::compile_issuers(&config.issuers, &mut faults);
    let sources = Sources::compile(&config.sources, &mut faults);
    if config.leeway_s > assertion::LEEWAY_S {
        faults.push(ConfigError::new(
            "leeway_s",
            format!(
                "at most {} seconds: the assertion ends with the token, and its readers allow no more",
                assertion::LEEWAY_S
            ),
        ));
    }
    if config
        .max_age_s
        .is_some_and(|age| age == 0 || age > MAX_AGE_S)
    {
        faults.push(ConfigError::new(
            "max_age_s",
            format!("1 to {MAX_AGE_S} seconds; leave it out for no bound"),
        ));
    }
    scopes::check(&config.required_scopes, "required_scopes", &mut faults);
    let wanted = Wanted::compile(config, &mut faults);
    let signer = Signer::compile(&config.assertion, &mut faults);
    let anonymous = config
        .anonymous
        .as_ref()
        .map(|anonymous| compile_anonymous(config, anonymous, &mut faults));
    match signer {
        Some(signer) if faults.is_empty() => Ok(Policy {
            issuers,
            sources,
            leeway_ms: config.leeway_s.saturating_mul(1000),
            max_age_ms: config.max_age_s.map(|age| age.saturating_mul(1000)),
            required_scopes: config.required_scopes.clone(),
            wanted,
            anonymous,
            answers: Answers::new(&config.assertion.audience, &config.required_scopes),
            signer,
            verified: RefCell::default(),
        }),
        _ => Err(faults),
    }
}

fn compile_anonymous(
    config: &JwtAuth,
    anonymous: &config::Anonymous,
    faults: &mut Vec<ConfigError>,
) -> Anonymous {
    if let Err(what) = keys::check_name(&anonymous.sub) {
        faults.push(ConfigError::new("anonymous.sub", what));
    }
    let scope = scopes::read(&anonymous.scope);
    if scope.is_none() {
        faults.push(ConfigError::new(
            "anonymous.scope",
            "scopes separated by spaces: printable ASCII without '\"' and '\\'",
        ));
    }
    let scope = scope.unwrap_or_default();
    // What is required of everybody would else be required of nobody: leave the token out, and pass.
    if !scopes::grants(&scope, &config.required_scopes) {
        faults.push(ConfigError::new(
            "anonymous.scope",
            "lacks a scope of required_scopes",
        ));
    }
    if !config.required_claims.is_empty() {
        faults.push(ConfigError::new(
            "anonymous",
            "has no claims, and required_claims asks for some: use one of the two",
        ));
    }
    // Else a token of that issuer could name the same caller.
    let origin = &config.assertion.issuer;
    if config.issuers.iter().any(|issuer| issuer.issuer == *origin) {
        faults.push(ConfigError::new(
            "anonymous",
            "an issuer has the name of assertion.issuer, which is where this caller comes from",
        ));
    }
    Anonymous {
        caller: Caller {
            sub: anonymous.sub.clone(),
            origin: origin.clone(),
            scope,
            claims: BTreeMap::new(),
        },
        minted: RefCell::default(),
    }
}

impl Filter for Policy {
    const NAME: &'static str = "jwt_auth";
    type Config = JwtAuth;
    type Request = Request;

    fn compile(config: &JwtAuth) -> Result<Self, Vec<ConfigError>> {
        compile(config)
    }

    fn revision(config: &JwtAuth) -> &str {
        &config.revision
    }

    fn tick_ms(&self) -> Option<u32> {
        self.issuers.remotes().next().map(|_| remote::TICK_MS)
    }

    fn tick(&self, host: &dyn Host) -> Vec<Fetch> {
        let Ok(now) = host.now() else {
            return Vec::new();
        };
        self.issuers
            .remotes()
            .filter_map(|(place, remote)| remote.due(u32::try_from(place).ok()?, now))
            .collect()
    }

    fn fetched(&self, id: u32, fetched: Fetched, host: &dyn Host) {
        let remote = self
            .issuers
            .remotes()
            .find(|(place, _)| u32::try_from(*place) == Ok(id));
        if let (Some((_, remote)), Ok(now)) = (remote, host.now()) {
            // Without chance all workers ask at the same time, which an issuer survives.
            let [chance, ..] = host.random().unwrap_or_default();
            remote.fetched(&fetched, now, chance);
        }
    }

    fn decide(&self, request: &mut Request, head: &dyn RequestHead, host: &dyn Host) -> Decision {
        match self.examine(request, head, host) {
            Ok(pass) => Decision::Pass(pass),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    fn response_headers(&self, request: &Request) -> Vec<(&'static str, String)> {
        // The address is a secret then, and so is what a cache keeps under it (RFC 6750, section 2.3).
        if request.token_in_query {
            vec![("cache-control", "private".to_owned())]
        } else {
            Vec::new()
        }
    }
}

impl Policy {
    fn examine(
        &self,
        request: &mut Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Result<Pass, Refusal> {
        for name in RESERVED_HEADERS {
            if !head.header(name)?.is_empty() {
                return Err(Refusal::reserved(name));
            }
        }
        for name in head.odd_names()? {
            if let Some(reserved) = assertion::reserved_alias(&name) {
                return Err(Refusal::reserved(reserved));
            }
        }
        let refused = |fault| self.answers.refused(fault);
        let Some(bearer) = self.sources.find(head).map_err(refused)? else {
            if is_preflight(head)? {
                return Ok(Pass::because("preflight"));
            }
            return match &self.anonymous {
                Some(anonymous) => self.stand_in(anonymous, host.now()?).map_err(refused),
                None => Err(self.answers.no_token()),
            };
        };
        request.token_in_query = bearer.in_query;
        self.accept(&bearer.text, host.now()?).map_err(refused)
    }

    /// The pass of a request without a token.
    fn stand_in(&self, anonymous: &Anonymous, now: Timestamp) -> Result<Pass, Fault> {
        let mint = || self.signer.mint(&anonymous.caller, u64::MAX, now);
        let Ok(mut minted) = anonymous.minted.try_borrow_mut() else {
            return Ok(mint()?.pass("anonymous"));
        };
        let mut current = match minted.take() {
            Some(current) => current,
            None => mint()?,
        };
        self.signer.renew(&mut current, u64::MAX, now)?;
        Ok(minted.insert(current).pass("anonymous"))
    }

    fn accept(&self, text: &[u8], now: Timestamp) -> Result<Pass, Fault> {
        let hash: [u8; 32] = Sha256::digest(text).into();
        if let Ok(mut verified) = self.verified.try_borrow_mut()
            && let Some(entry) = verified.get_mut(&hash)
            && self
                .issuers
                .at(entry.issuer)
                .is_some_and(|issuer| issuer.still_has(&entry.key, now))
        {
            self.in_time(entry.life, now)?;
            self.signer
                .renew(&mut entry.minted, entry.life.ends_ms, now)?;
            return Ok(entry.minted.pass("token"));
        }
        let entry = self.verify(text, now)?;
        let pass = entry.minted.pass("token");
        if let Ok(mut verified) = self.verified.try_borrow_mut() {
            verified.insert(hash, entry);
        }
        Ok(pass)
    }

    /// The whole verification of a token that is not cached.
    fn verify(&self, text: &[u8], now: Timestamp) -> Result<Entry, Fault> {
        let token = Token::parse(text)?;
        let claims = token.claims(&self.wanted)?;
        let (place, issuer) = claims
            .iss
            .as_deref()
            .and_then(|iss| self.issuers.find(iss))
            .ok_or(Fault::UnknownIssuer)?;
        let key = issuer.signed(&token, now)?;
        if !issuer.issues(token.header.typ.as_deref()) {
            return Err(Fault::Type);
        }
        let life = self.life(&claims)?;
        self.in_time(life, now)?;
        if !issuer.is_for(&claims.aud) {
            return Err(Fault::Audience);
        }
        let sub = claims.sub.ok_or(Fault::MissingClaim)?;
        let scope = claims.scope.unwrap_or_default();
        if !scopes::grants(&scope, &self.required_scopes) {
            return Err(Fault::Scope);
        }
        if !self.wanted.holds(&claims.texts) {
            return Err(Fault::Claim);
        }
        let caller = Caller {
            sub,
            origin: issuer.name().to_owned(),
            scope,
            claims: self.wanted.handed_on(&claims.texts)?,
        };
        Ok(Entry {
            minted: self.signer.mint(&caller, life.ends_ms, now)?,
            life,
            issuer: place,
            key: Arc::downgrade(&key),
        })
    }

    fn life(&self, claims: &Claims) -> Result<Life, Fault> {
        let ends_ms = claims.exp.ok_or(Fault::MissingClaim)?.millis();
        let begins_ms = [claims.nbf, claims.iat]
            .into_iter()
            .flatten()
            .map(NumericDate::millis)
            .max()
            .unwrap_or(0);
        let mut life = Life {
            begins_ms,
            ends_ms,
            ends_as: Fault::Expired,
        };
        if let Some(max_age_ms) = self.max_age_ms {
            let issued_ms = claims.iat.ok_or(Fault::MissingClaim)?.millis();
            let old_ms = issued_ms.saturating_add(max_age_ms);
            if old_ms < ends_ms {
                life.ends_ms = old_ms;
                life.ends_as = Fault::TooOld;
            }
        }
        Ok(life)
    }

    fn in_time(&self, life: Life, now: Timestamp) -> Result<(), Fault> {
        if now.millis() >= life.ends_ms.saturating_add(self.leeway_ms) {
            return Err(life.ends_as);
        }
        if now.millis().saturating_add(self.leeway_ms) < life.begins_ms {
            return Err(Fault::NotYetValid);
        }
        Ok(())
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
