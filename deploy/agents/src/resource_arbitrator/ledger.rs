//! The books: who holds how much until when. Pure; time and capacity come in.

use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Most leases at once: far more than one machine has work for, little enough to list.
const MAX_LEASES: usize = 1024;

/// An amount of each thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Amounts {
    /// Thousandths of a core.
    pub(super) cpu_millicores: u64,
    pub(super) memory_bytes: u64,
    pub(super) gpus: u64,
}

impl Amounts {
    pub(super) fn less(self, other: Self) -> Self {
        Self {
            cpu_millicores: self.cpu_millicores.saturating_sub(other.cpu_millicores),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millicores: self.cpu_millicores.saturating_add(other.cpu_millicores),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    fn named(self) -> [(&'static str, u64); 3] {
        [
            ("cpu_millicores", self.cpu_millicores),
            ("memory_bytes", self.memory_bytes),
            ("gpus", self.gpus),
        ]
    }
}

/// A lease; times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) holder: String,
    pub(super) amounts: Amounts,
    pub(super) granted_at_ms: u64,
    pub(super) expires_at_ms: u64,
    /// Grows from lease to lease, across restarts too. Whoever has it can renew and release, so it is
    /// no part of what is shown of a lease: the answer to a grant adds it.
    #[serde(skip)]
    pub(super) token: u64,
}

/// Why the books stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LedgerError {
    #[error("{wanted} of {what} wanted, {available} of {capacity} can be granted now")]
    OverCommit {
        what: &'static str,
        wanted: u64,
        available: u64,
        capacity: u64,
    },
    #[error("no such lease; it may have expired")]
    NoLease,
    #[error("the token is not this lease's")]
    WrongToken,
    #[error("there are {MAX_LEASES} leases already")]
    Full,
}

/// The books.
pub(super) struct Ledger {
    /// By token, which is the order of the grants.
    leases: BTreeMap<u64, Lease>,
    next_token: u64,
    /// Makes ids of tokens. Keyed at random, so that an id does not tell its token; with 64 bits for at
    /// most [`MAX_LEASES`] no two are the same.
    ids: RandomState,
}

impl Ledger {
    /// Empty books; `first_token` is higher than any token before, such as the time in milliseconds.
    pub(super) fn new(first_token: u64) -> Self {
        Self {
            leases: BTreeMap::new(),
            next_token: first_token,
            ids: RandomState::new(),
        }
    }

    /// Strikes out what has ended.
    pub(super) fn expire(&mut self, now: u64) {
        self.leases.retain(|_, lease| lease.expires_at_ms > now);
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    pub(super) fn leased(&self) -> Amounts {
        self.leases()
            .fold(Amounts::default(), |sum, lease| sum.plus(lease.amounts))
    }

    pub(super) fn grant(
        &mut self,
        holder: &str,
        wanted: Amounts,
        ttl: Duration,
        capacity: Amounts,
        now: u64,
    ) -> Result<Lease, LedgerError> {
        if self.leases.len() >= MAX_LEASES {
            return Err(LedgerError::Full);
        }
        let available = capacity.less(self.leased()).named();
        for ((what, wanted), ((_, available), (_, capacity))) in wanted
            .named()
            .into_iter()
            .zip(available.into_iter().zip(capacity.named()))
        {
            if wanted > available {
                return Err(LedgerError::OverCommit {
                    what,
                    wanted,
                    available,
                    capacity,
                });
            }
        }
        let token = self.next_token;
        self.next_token = token.saturating_add(1);
        let lease = Lease {
            id: format!("lease-{:016x}", self.ids.hash_one(token)),
            holder: holder.to_owned(),
            amounts: wanted,
            granted_at_ms: now,
            expires_at_ms: end(now, ttl),
            token,
        };
        self.leases.insert(token, lease.clone());
        Ok(lease)
    }

    pub(super) fn renew(
        &mut self,
        id: &str,
        token: u64,
        ttl: Duration,
        now: u64,
    ) -> Result<Lease, LedgerError> {
        let lease = self.held(id, token)?;
        lease.expires_at_ms = end(now, ttl);
        Ok(lease.clone())
    }

    pub(super) fn release(&mut self, id: &str, token: u64) -> Result<Lease, LedgerError> {
        self.held(id, token)?;
        self.leases.remove(&token).ok_or(LedgerError::NoLease)
    }

    fn held(&mut self, id: &str, token: u64) -> Result<&mut Lease, LedgerError> {
        let mut leases = self.leases.values_mut();
        let lease = leases.find(|l| l.id == id).ok_or(LedgerError::NoLease)?;
        if lease.token == token {
            Ok(lease)
        } else {
            Err(LedgerError::WrongToken)
        }
    }
}

fn end(now: u64, ttl: Duration) -> u64 {
    now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}
