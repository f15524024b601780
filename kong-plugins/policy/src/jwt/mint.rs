//! The assertion that stands for a caller, signed once and kept until half its life is gone.

use super::answer::Fault;
use super::{keys, token};
use crate::config::AssertionSigner;
use crate::decision::FOUND_CALLER;
use crate::{Caller, ConfigError, Pass};
use ed25519_dalek::SigningKey;
use mesh_protocol::{Timestamp, assertion};

/// Longest assertion life, in seconds: what a key that leaked or a caller who was locked out keeps.
const MAX_LIFETIME_S: u64 = 600;

/// Signs assertions.
pub(super) struct Signer {
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

/// A caller and the assertion that stands for it, both as they are handed on.
#[derive(Debug, Clone)]
pub(super) struct Minted {
    /// JSON of [`Caller`].
    caller: Vec<u8>,
    assertion: String,
    signed_at_s: u64,
    ends_s: u64,
}

impl Minted {
    /// The request of this caller goes on, because of `reason`.
    pub(super) fn pass(&self, reason: &'static str) -> Pass {
        Pass {
            set_body: None,
            set_headers: vec![(assertion::HEADER, self.assertion.clone())],
            leave: vec![(FOUND_CALLER, self.caller.clone())],
            reason,
        }
    }

    #[cfg(test)]
    pub(super) fn assertion(&self) -> &str {
        &self.assertion
    }
}

impl Signer {
    pub(super) fn compile(config: &AssertionSigner, faults: &mut Vec<ConfigError>) -> Option<Self> {
        for (name, text) in [
            ("issuer", &config.issuer),
            ("audience", &config.audience),
            ("kid", &config.kid),
        ] {
            if let Err(what) = keys::check_name(text) {
                faults.push(ConfigError::new(format!("assertion.{name}"), what));
            }
        }
        if config.lifetime_s == 0 || config.lifetime_s > MAX_LIFETIME_S {
            faults.push(ConfigError::new(
                "assertion.lifetime_s",
                format!("1 to {MAX_LIFETIME_S} seconds"),
            ));
        }
        let seed = token::decode(config.signing_key.as_bytes())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let Some(seed) = seed else {
            faults.push(ConfigError::new(
                "assertion.signing_key",
                "32 bytes in unpadded base64url",
            ));
            return None;
        };
        Some(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            kid: config.kid.clone(),
            key: SigningKey::from_bytes(&seed),
            lifetime_s: config.lifetime_s,
        })
    }

    /// A new assertion for `caller`, whose token ends at `end_ms`.
    ///
    /// # Errors
    /// [`Fault::HandOn`] when it would be too long for its readers.
    pub(super) fn mint(
        &self,
        caller: &Caller,
        end_ms: u64,
        now: Timestamp,
    ) -> Result<Minted, Fault> {
        let claims = assertion::Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: caller.sub.clone(),
            origin: caller.origin.clone(),
            scope: caller.scope.clone(),
            claims: caller.claims.clone(),
            iat: now.seconds(),
            exp: self.end(end_ms, now),
        };
        let assertion = assertion::sign(&claims, &self.kid, &self.key);
        if assertion.len() > assertion::MAX_LENGTH {
            return Err(Fault::HandOn);
        }
        Ok(Minted {
            // Strings always serialise.
            caller: serde_json::to_vec(caller).unwrap_or_default(),
            assertion,
            signed_at_s: claims.iat,
            ends_s: claims.exp,
        })
    }

    /// Renews the assertion if it is due: less than half of its life remains and a new one would live
    /// longer, or the clock went back behind its beginning.
    ///
    /// # Errors
    /// As of [`Signer::mint`].
    pub(super) fn renew(
        &self,
        minted: &mut Minted,
        end_ms: u64,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let now_s = now.seconds();
        let half = minted.ends_s.saturating_sub(minted.signed_at_s) / 2;
        let worn = now_s > minted.signed_at_s.saturating_add(half)
            && self.end(end_ms, now) > minted.ends_s;
        if worn || now_s < minted.signed_at_s {
            // It is what `mint` wrote.
            let caller = std::str::from_utf8(&minted.caller).map_err(|_| Fault::HandOn)?;
            let caller = serde_json::from_str(caller).map_err(|_| Fault::HandOn)?;
            *minted = self.mint(&caller, end_ms, now)?;
        }
        Ok(())
    }

    /// In seconds; never after the token's own end.
    fn end(&self, end_ms: u64, now: Timestamp) -> u64 {
        now.seconds()
            .saturating_add(self.lifetime_s)
            .min(end_ms / 1000)
    }
}
