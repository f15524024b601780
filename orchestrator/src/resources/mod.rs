//! What steps share: processors, memory, GPUs, models. Who may take what, and who waits.
//!
//! ```text
//!  run ──ask──▶ desk ──ask──▶ arbiter: granted, or in the queue
//!   ▲            │ every RENEW: what is held, what waits      ▲ given back, expired
//!   └──granted───┴◀── told by the arbiter ────────────────────┘
//! ```
//!
//! One port, over memory and Redis, one contract suite. [`Desk`] keeps what one replica has asked for: it renews, hears of
//! grants, and asks again for what a store forgot.
//!
//! A lease is all of what it names, or nothing, so two of them never wait for each other. Each resource has a queue of those
//! who ask for it; who is first in all of its queues is granted as soon as it fits. The order is that of asking, where each
//! [priority](Ask::priority) counts as [`AGE`] of waiting: nobody is overtaken by what asks later than that.

mod amounts;
mod book;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod desk;
mod memory;
mod redis;

pub use amounts::{Amounts, MAX_AMOUNT, MAX_NAMES, excess, is_name, parse_amount, read_amount};
pub use desk::{Desk, Got, OnDrop, Stake, Want};
pub use memory::MemoryArbiter;
pub use redis::RedisArbiter;

use crate::config::{Config, Store};
use crate::store::ReplicaId;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How much waiting one more priority is worth: with ten of them, the lowest is overtaken for five minutes at most.
pub const AGE: Duration = Duration::from_secs(30);
/// Most who wait: each costs the store some 500 bytes. More are told so, and come again.
pub const MAX_WAITING: usize = 20_000;
/// Most leases at the same time, which bounds what a look or an extension costs.
pub const MAX_HELD: usize = 10_000;
/// Most holders that a look tells of.
pub const MAX_SHOWN: usize = 100;

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long what is not renewed is kept. Longer than another replica takes to go on with the runs of one that died
    /// (8 s), so that their leases go with them.
    pub life: Duration,
    /// How long a store that has lost its memory grants nothing: until everyone who holds something has said so.
    pub settle: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(15),
            settle: Duration::from_secs(10),
        }
    }
}

/// Names a lease, and whoever may touch it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The lease: `<task>/<step>` of a step, `lease_…` of an outside agent.
    pub id: String,
    /// Whose it is: empty of a step, the caller otherwise.
    pub holder: String,
    /// Of a step, the fencing token of its run: the replica that takes the run over has a higher one, and the lease with it.
    pub generation: u64,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Under which name.
    pub key: Key,
    /// Who is told of the grant.
    pub owner: ReplicaId,
    /// All of this, or nothing.
    pub needs: Amounts,
    /// 0 (lowest) to 10.
    pub priority: u8,
    /// How long the lease lasts without being renewed.
    pub ttl: Duration,
    /// How long it has waited already, as whoever asks again knows.
    pub waited: Duration,
    /// Whether its work goes on already: it is granted even beyond the capacity, since it takes what it takes.
    pub running: bool,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is granted; perhaps since an earlier call.
    Granted {
        /// The fencing token: higher than those of all grants before.
        token: u64,
    },
    /// It waits, at its place.
    Waiting,
    /// It never will be: there is not so much, or no such resource.
    TooMuch,
    /// Too many wait already.
    Full,
    /// It is somebody else's by now.
    Superseded,
}

/// What whoever renews believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The lease.
    pub key: Key,
    /// Whether it was granted, else it waits.
    pub held: bool,
}

/// A grant that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub id: String,
    /// Its generation.
    pub generation: u64,
    /// Its fencing token.
    pub token: u64,
}

/// What came of renewing; of what is not told of, all is as was claimed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Waited, and has been granted.
    pub granted: Vec<Grant>,
    /// Neither held nor waiting: ask again.
    pub gone: Vec<String>,
    /// Somebody else's by now.
    pub superseded: Vec<String>,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// By name, each that is declared.
    pub resources: BTreeMap<String, Stand>,
    /// Who holds something, those whose lease ends first before others; at most [`MAX_SHOWN`].
    pub holders: Vec<Holder>,
    /// How many wait.
    pub waiting: u64,
    /// How long the oldest of them has.
    pub oldest_wait: Option<Duration>,
    /// Leases that expired, since the store began to count.
    pub expired: u64,
}

/// How one resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stand {
    /// How much there is.
    pub capacity: u64,
    /// How much of it is held; more than there is where work went on without a lease.
    pub in_use: u64,
    /// How many wait for some of it.
    pub waiting: u64,
}

/// One who holds something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Holder {
    /// The lease.
    #[serde(skip)]
    pub id: String,
    /// Whose it is; empty of a step.
    pub holder: String,
    /// What of.
    pub needs: Amounts,
    /// Its priority.
    pub priority: u8,
    /// How long it lasts if it is not renewed.
    #[serde(skip)]
    pub left: Duration,
}

/// What can go wrong with an arbiter.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    /// The backend cannot be reached, or did not answer in time. What was asked for may have happened.
    #[error("resources unavailable: {detail}")]
    Unavailable {
        /// What came back; without credentials.
        detail: String,
    },
    /// The configuration cannot work at all.
    #[error("resources configuration: {detail}")]
    Config {
        /// What is wrong; without credentials.
        detail: String,
    },
}

/// The port. Backends are chosen in [`connect`]. All times are the backend's own, which nobody sets while it runs, or which
/// is seen to have been set.
#[async_trait]
pub trait Arbiter: Send + Sync {
    /// Asks for resources. Idempotent: who asks again keeps its place, or what it has.
    ///
    /// # Errors
    /// [`ArbiterError::Unavailable`]; it may wait or be granted all the same, until it expires.
    async fn ask(&self, ask: &Ask) -> Result<Asked, ArbiterError>;

    /// Says that these are still wanted: what is held lasts for `ttl` from now.
    ///
    /// # Errors
    /// [`ArbiterError::Unavailable`].
    async fn renew(&self, claims: &[Claim], ttl: Duration) -> Result<Renewed, ArbiterError>;

    /// Returns what is held, or leaves the queue; `false` when there was nothing of that key.
    ///
    /// # Errors
    /// [`ArbiterError::Unavailable`]; it expires by itself.
    async fn give_back(&self, key: &Key) -> Result<bool, ArbiterError>;

    /// How things stand.
    ///
    /// # Errors
    /// [`ArbiterError::Unavailable`].
    async fn look(&self) -> Result<Standing, ArbiterError>;

    /// Grants to those who waited, as `owner` asked for them, until the connection breaks. What is missed is told by
    /// [`Arbiter::renew`].
    ///
    /// # Errors
    /// [`ArbiterError::Unavailable`].
    async fn listen(&self, owner: ReplicaId) -> Result<BoxStream<'static, Grant>, ArbiterError>;
}

/// The arbiter beside the store that `config` names. A server that is not there yet is waited for in the background.
///
/// # Errors
/// [`ArbiterError::Config`] when the configuration cannot work at all.
pub fn connect(config: &Config) -> Result<Arc<dyn Arbiter>, ArbiterError> {
    let (capacity, times) = (config.resources.clone(), Times::default());
    match &config.store {
        Store::Memory { .. } => Ok(Arc::new(MemoryArbiter::new(capacity, times))),
        Store::Redis { url, .. } => Ok(Arc::new(RedisArbiter::connect(url, capacity, times)?)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
