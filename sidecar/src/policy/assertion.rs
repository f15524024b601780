//! Who the originator is: assertions, verified once and remembered.
//!
//! A caller sends the same assertion for about a minute, so an Ed25519 verification is paid once for it. What is kept
//! was verified; a forgery costs its sender's peer a verification each time and this table nothing.
//!
//! Two generations bound the table: when the young one is full it becomes the old one, whose entries are forgotten
//! unless somebody asks for them again. That is nearly "least recently used" for the price of a lookup. Every answer
//! looks at the clock, so nothing is believed for longer than it says.

use super::headers::Claim;
use super::intention::{Held, Intentions};
use http::{HeaderName, HeaderValue};
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{self, AssertionError, AssertionKey, Claims, PublicKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most assertions in a generation: two of them hold what some thousand callers a minute send.
const MAX_ENTRIES: usize = 2_048;
/// Most bytes of assertions in a generation. With what is read from them a table stays below some 8 MiB.
const MAX_BYTES: usize = 1024 * 1024;

/// Ed25519 signatures in unpadded base64url. A signature tells assertions apart, which are compared whole besides;
/// it is what a token ends with, so that no token has to be hashed from end to end.
type Signature = [u8; 86];

/// A verified assertion and what follows from it.
#[derive(Debug)]
pub(super) struct Verified {
    token: Box<str>,
    pub(super) claims: Arc<Claims>,
    /// Which intentions hold of this originator.
    pub(super) held: Held,
    /// The identity headers, or the one that cannot be made.
    pub(super) headers: Result<Box<[(HeaderName, HeaderValue)]>, HeaderName>,
}

/// Verifies and remembers.
#[derive(Debug)]
pub(super) struct Assertions {
    audience: String,
    keys: Vec<PublicKey>,
    table: Mutex<Table>,
}

impl Assertions {
    /// # Errors
    /// A key that is none; `config.check` refuses such before.
    pub(super) fn new(config: &assertion::Assertions) -> Result<Self, String> {
        let key = |key: &AssertionKey| {
            let fault = |_| {
                format!(
                    "policy.assertions.keys: `{}` is no Ed25519 public key",
                    key.kid
                )
            };
            PublicKey::from_base64(key.kid.clone(), &key.x).map_err(fault)
        };
        Ok(Self {
            audience: config.audience.clone(),
            keys: config.keys.iter().map(key).collect::<Result<_, _>>()?,
            table: Mutex::default(),
        })
    }

    // Every change leaves the table whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies `token` at the time `at`.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub(super) fn verify(
        &self,
        token: &str,
        at: Timestamp,
        intentions: &Intentions,
        made: &[(HeaderName, Claim)],
    ) -> Result<Arc<Verified>, AssertionError> {
        let signature: &Signature = token
            .as_bytes()
            .last_chunk()
            .ok_or(AssertionError::Malformed)?;
        if let Some(known) = self.table().get(signature, token) {
            return if known.claims.hold_at(at) {
                Ok(known)
            } else {
                Err(AssertionError::Expired)
            };
        }
        // Not under the lock: it takes some ten microseconds.
        let claims = assertion::verify(token, &self.keys, &self.audience, at)?;
        let verified = Arc::new(Verified {
            token: token.into(),
            held: intentions.held(&claims),
            headers: headers(made, &claims),
            claims: Arc::new(claims),
        });
        self.table().keep(*signature, Arc::clone(&verified));
        Ok(verified)
    }
}

fn headers(
    made: &[(HeaderName, Claim)],
    claims: &Claims,
) -> Result<Box<[(HeaderName, HeaderValue)]>, HeaderName> {
    made.iter()
        .filter_map(|(name, claim)| Some((name, claim.of(claims)?)))
        .map(
            |(name, text)| match HeaderValue::from_bytes(text.as_bytes()) {
                Ok(value) => Ok((name.clone(), value)),
                Err(_) => Err(name.clone()),
            },
        )
        .collect()
}

#[derive(Debug, Default)]
struct Table {
    young: HashMap<Signature, Arc<Verified>>,
    old: HashMap<Signature, Arc<Verified>>,
    /// Of the young ones.
    bytes: usize,
}

impl Table {
    fn get(&mut self, signature: &Signature, token: &str) -> Option<Arc<Verified>> {
        let same = |found: &&Arc<Verified>| *found.token == *token;
        if let Some(known) = self.young.get(signature) {
            return Some(known).filter(same).cloned();
        }
        let known = self.old.get(signature).filter(same).cloned()?;
        self.keep(*signature, Arc::clone(&known));
        Some(known)
    }

    fn keep(&mut self, signature: Signature, verified: Arc<Verified>) {
        if self.young.len() >= MAX_ENTRIES || self.bytes + verified.token.len() > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += verified.token.len();
        if let Some(before) = self.young.insert(signature, verified) {
            self.bytes -= before.token.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{NOW, claims, config, sign};

    fn assertions() -> Assertions {
        Assertions::new(&config().assertions.unwrap()).unwrap()
    }

    fn verify(
        assertions: &Assertions,
        token: &str,
        at: Timestamp,
    ) -> Result<Arc<Verified>, AssertionError> {
        assertions.verify(token, at, &Intentions::new(&[]).unwrap(), &[])
    }

    #[test]
    fn a_token_is_verified_once_and_believed_while_it_holds() {
        let assertions = assertions();
        let token = sign(&claims("alice"));
        let first = verify(&assertions, &token, NOW).unwrap();
        let second = verify(&assertions, &token, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        for seconds in [-31, 90] {
            let at =
                Timestamp::from_millis(NOW.millis().checked_add_signed(seconds * 1_000).unwrap());
            assert_eq!(
                verify(&assertions, &token, at).unwrap_err(),
                AssertionError::Expired
            );
        }
        assert!(Arc::ptr_eq(
            &verify(&assertions, &token, NOW).unwrap(),
            &first
        ));
    }

    #[test]
    fn a_known_signature_proves_no_other_text() {
        let assertions = assertions();
        let token = sign(&claims("alice"));
        verify(&assertions, &token, NOW).unwrap();
        let (_, signature) = token.rsplit_once('.').unwrap();
        let other = sign(&claims("mallory"));
        let (signed, _) = other.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{signature}");
        assert_eq!(
            verify(&assertions, &forged, NOW).unwrap_err(),
            AssertionError::Signature
        );
        assert!(verify(&assertions, &token, NOW).is_ok());
        for short in ["", "a.b.c", &"x".repeat(85)] {
            assert_eq!(
                verify(&assertions, short, NOW).unwrap_err(),
                AssertionError::Malformed
            );
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_asked_for() {
        let mut table = Table::default();
        let entry = |n: usize| {
            let mut signature = [0; 86];
            signature[..8].copy_from_slice(&n.to_le_bytes());
            let verified = Verified {
                token: n.to_string().into(),
                claims: Arc::new(claims("alice")),
                held: Box::default(),
                headers: Ok(Box::default()),
            };
            (signature, Arc::new(verified))
        };
        let (asked, known) = entry(0);
        table.keep(asked, known);
        for n in 1..MAX_ENTRIES * 5 {
            let (signature, verified) = entry(n);
            table.keep(signature, verified);
            if n % (MAX_ENTRIES / 2) == 0 {
                assert!(table.get(&asked, "0").is_some(), "{n}");
            }
        }
        assert!(table.young.len() + table.old.len() <= 2 * MAX_ENTRIES);
        assert!(table.get(&entry(1).0, "1").is_none());
        let (signature, large) = entry(7);
        let large = Verified {
            token: "x".repeat(MAX_BYTES / 2 + 1).into(),
            claims: Arc::clone(&large.claims),
            held: Box::default(),
            headers: Ok(Box::default()),
        };
        let large = Arc::new(large);
        for n in 0..4 {
            let mut signature = signature;
            signature[20] = n;
            table.keep(signature, Arc::clone(&large));
            assert!(table.bytes <= MAX_BYTES);
        }
        assert_eq!((table.young.len(), table.old.len()), (1, 1));
    }
}
