//! A set of keys that is fetched on tick, and kept.
//!
//! A new set replaces the old one whole. Until a new one comes the old one serves, for a stated time;
//! then, as before the first one, the issuer's tokens are refused as what nobody can judge.

use super::answer::Fault;
use super::jwk;
use super::keys::{self, Key, check_name};
use super::token::Token;
use crate::config::{Algorithm, Jwk, JwksUrl};
use crate::{ConfigError, Fetch, Fetched};
use mesh_protocol::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

/// How often the clock is looked at, in milliseconds.
pub(super) const TICK_MS: u32 = 1000;
/// After how long a fetch that failed is tried again, in milliseconds.
pub(super) const RETRY_MS: u64 = 5000;
/// Longest set that is read, in bytes: room for a hundred RSA keys with their certificates left out.
const MAX_SET: usize = 64 * 1024;
/// Most keys of a set: more than any issuer's rotation needs, and each new one costs time to prepare.
const MAX_KEYS: usize = 64;

/// A fetched set and where it comes from.
#[derive(Debug)]
pub(super) struct Remote {
    authority: String,
    host: String,
    path: String,
    algorithms: Vec<Algorithm>,
    timeout_ms: u32,
    refresh_ms: u64,
    stale_ms: u64,
    // A filter instance runs on one thread; nothing is called while it is borrowed.
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<(Jwk, Arc<Key>)>,
    /// When the set came; none: there is none.
    came_ms: Option<u64>,
    next_ms: u64,
}

/// A set, its keys unread: one that cannot be read does not spoil the others.
#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl Remote {
    pub(super) fn compile(path: &str, url: &JwksUrl, faults: &mut Vec<ConfigError>) -> Self {
        let mut fault = |field: &str, what: &str| {
            faults.push(ConfigError::new(format!("{path}.{field}"), what));
        };
        let beside = url
            .authority
            .parse()
            .is_ok_and(|at: SocketAddr| at.port() != 0 && at.ip().is_loopback());
        if !beside {
            fault(
                "authority",
                "127.0.0.1:PORT of the sidecar beside the gateway: keys do not travel unprotected",
            );
        }
        if check_name(&url.host).is_err() || !url.host.bytes().all(|b| b.is_ascii_graphic()) {
            fault("host", "the issuer's host, as issuer.example");
        }
        let printable = url.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !url.path.starts_with('/') || !printable || url.path.len() > 1024 {
            fault("path", "an absolute path, as /.well-known/jwks.json");
        }
        if url.algorithms.is_empty() {
            fault("algorithms", "at least one is needed, as RS256");
        }
        for (index, algorithm) in url.algorithms.iter().enumerate() {
            if algorithm.is_symmetric() {
                fault(
                    &format!("algorithms[{index}]"),
                    "secrets are not fetched; give this key under keys",
                );
            } else if url.algorithms.iter().take(index).any(|a| a == algorithm) {
                fault(&format!("algorithms[{index}]"), "named twice");
            }
        }
        if !(10..=86_400).contains(&url.refresh_s) {
            fault("refresh_s", "10 seconds to a day (86400)");
        }
        if url.stale_s < url.refresh_s || url.stale_s > 604_800 {
            fault("stale_s", "at least refresh_s, at most a week (604800)");
        }
        if !(100..=30_000).contains(&url.timeout_ms) {
            fault("timeout_ms", "100 to 30000 milliseconds");
        }
        Self {
            authority: url.authority.clone(),
            host: url.host.clone(),
            path: url.path.clone(),
            algorithms: url.algorithms.clone(),
            timeout_ms: url.timeout_ms,
            refresh_ms: url.refresh_s.saturating_mul(1000),
            stale_ms: url.stale_s.saturating_mul(1000),
            state: RefCell::default(),
        }
    }

    /// What is to be fetched at `now`, as call `id`.
    pub(super) fn due(&self, id: u32, now: Timestamp) -> Option<Fetch> {
        let mut state = self.state.try_borrow_mut().ok()?;
        let now_ms = now.millis();
        // A clock that was set back does not put the next fetch off by what it went back.
        let far = now_ms.saturating_add(self.refresh_ms);
        if (now_ms..=far).contains(&state.next_ms) && state.next_ms > now_ms {
            return None;
        }
        // Until an answer says better: what became of this fetch may never be told.
        let retry_ms = RETRY_MS.saturating_add(u64::from(self.timeout_ms));
        state.next_ms = now_ms.saturating_add(retry_ms.min(self.refresh_ms));
        Some(Fetch {
            headers: vec![
                ("host", self.host.clone()),
                ("accept", "application/json".to_owned()),
            ],
            timeout_ms: self.timeout_ms,
            ..Fetch::get(id, &*self.authority, &*self.path)
        })
    }

    /// What became of a fetch. By `chance` the next one comes up to a tenth earlier: workers that began
    /// together do not ask together for ever.
    pub(super) fn fetched(&self, fetched: &Fetched, now: Timestamp, chance: u8) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let new = match fetched {
            Fetched::Answer { status: 200, body } => self.read(body, &state.keys),
            _ => None,
        };
        let wait_ms = if let Some(keys) = new {
            state.keys = keys;
            state.came_ms = Some(now.millis());
            let most = self.refresh_ms / 10;
            self.refresh_ms - most * u64::from(chance) / u64::from(u8::MAX)
        } else {
            RETRY_MS.min(self.refresh_ms)
        };
        state.next_ms = now.millis().saturating_add(wait_ms);
    }

    /// The keys of a set that can be used; none when it is no set, or too large a one. A key that was
    /// there before stays what it was, so that its tokens stay in the cache.
    fn read(&self, body: &[u8], known: &[(Jwk, Arc<Key>)]) -> Option<Vec<(Jwk, Arc<Key>)>> {
        if body.len() > MAX_SET {
            return None;
        }
        let set: Set<'_> = serde_json::from_str(std::str::from_utf8(body).ok()?).ok()?;
        if set.keys.len() > MAX_KEYS {
            return None;
        }
        let usable = set.keys.iter().filter_map(|text| {
            let jwk: Jwk = serde_json::from_str(text.get()).ok()?;
            if let Some(found) = known.iter().find(|(before, _)| *before == jwk) {
                return Some(found.clone());
            }
            let (algorithm, verifier) = jwk::compile(&jwk, &self.algorithms).ok()?;
            let key = Arc::new(Key {
                kid: jwk.kid.clone(),
                algorithm,
                verifier,
            });
            Some((jwk, key))
        });
        Some(usable.collect())
    }

    /// Whether there is a set that is fresh enough.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.state
            .try_borrow()
            .is_ok_and(|state| self.serves(&state, now))
    }

    fn serves(&self, state: &State, now: Timestamp) -> bool {
        state
            .came_ms
            .is_some_and(|came_ms| now.millis().saturating_sub(came_ms) <= self.stale_ms)
    }

    /// The key of the set that signed `token`.
    pub(super) fn signed(&self, token: &Token<'_>, now: Timestamp) -> Result<Arc<Key>, Fault> {
        let Ok(state) = self.state.try_borrow() else {
            return Err(Fault::KeysUnavailable);
        };
        if !self.serves(&state, now) {
            return Err(Fault::KeysUnavailable);
        }
        keys::signed(state.keys.iter().map(|(_, key)| key), token)
    }
}
