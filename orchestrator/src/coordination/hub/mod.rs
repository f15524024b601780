//! What all replicas know of agents: registrations, connections, mailboxes. Three ports over the same two
//! backends, one contract suite.
//!
//! An agent has one connection, the newest: every call that is made for a connection brings its id, and is
//! refused once there is a newer one. So what an old connection still has under way comes to nothing, and the
//! order of what one agent sends holds across its connections.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod memory;
mod redis;

pub use memory::MemoryHub;
pub use redis::RedisHub;

use crate::config;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use mesh_protocol::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Most agents that are registered. Each takes at most some 10 kB.
pub const MAX_REGISTERED: usize = 1024;
/// Letters of one [`Mailboxes::read`].
pub const PAGE: usize = 64;
/// Ids of messages that are remembered for each sender, so that one which is sent again is stored once. A
/// sender has few under way whose acknowledgement it has not seen.
pub const REMEMBERED: usize = 1024;

/// Everything of it.
pub trait Hub: Agents + Mailboxes {}

impl<T: Agents + Mailboxes> Hub for T {}

/// The port for who registered.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Keeps what an agent says of itself, in place of what it said before. `false` when there are
    /// [`MAX_REGISTERED`] others.
    ///
    /// # Errors
    /// [`HubError`].
    async fn register(
        &self,
        agent: &AgentId,
        registration: &Registration,
    ) -> Result<bool, HubError>;

    /// Whether `agent` registered.
    ///
    /// # Errors
    /// [`HubError`].
    async fn is_registered(&self, agent: &AgentId) -> Result<bool, HubError>;

    /// Everyone who registered. What cannot be read is left out.
    ///
    /// # Errors
    /// [`HubError`].
    async fn registered(&self) -> Result<BTreeMap<AgentId, Registration>, HubError>;
}

/// The port for who is connected.
#[async_trait]
pub trait Connections: Send + Sync {
    /// Makes `hold` the agent's one connection, and its mailbox where there is none. With the cursor of the last
    /// letter that the agent has, everything up to it leaves the mailbox.
    ///
    /// # Errors
    /// [`HubError::Unavailable`].
    async fn take(&self, hold: &Hold, last: Option<&Cursor>) -> Result<Taken, HubError>;

    /// Says that the connection lives; to be said several times within [`Bounds::presence`].
    ///
    /// # Errors
    /// [`HubError`].
    async fn renew(&self, hold: &Hold) -> Result<(), HubError>;

    /// Says that the connection is over, unless there is a newer one. The mailbox stays.
    ///
    /// # Errors
    /// [`HubError::Unavailable`].
    async fn leave(&self, hold: &Hold) -> Result<(), HubError>;

    /// Who is connected, anywhere.
    ///
    /// # Errors
    /// [`HubError::Unavailable`].
    async fn present(&self) -> Result<BTreeSet<AgentId>, HubError>;
}

/// The port for mailboxes. An agent has one from its first connection until [`Bounds::life`] after its last.
#[async_trait]
pub trait Mailboxes: Connections {
    /// Puts a letter into the mailbox of each receiver, or into none. One with an id that the sender used before
    /// is in there already.
    ///
    /// # Errors
    /// [`HubError`]; when unavailable, it may be in there.
    async fn post(&self, hold: &Hold, letter: &Letter) -> Result<Posted, HubError>;

    /// The letters after `after`, in their order, at most [`PAGE`].
    ///
    /// # Errors
    /// [`HubError`].
    async fn read(&self, hold: &Hold, after: u64) -> Result<Vec<(u64, Bytes)>, HubError>;

    /// Takes the letters up to `upto` out of the mailbox; says how many are left.
    ///
    /// # Errors
    /// [`HubError`].
    async fn acknowledge(&self, hold: &Hold, upto: u64) -> Result<u64, HubError>;

    /// Hears whose mailbox or connection has changed, from now on. Best effort: whoever listens also looks.
    ///
    /// # Errors
    /// [`HubError::Unavailable`].
    async fn listen(&self) -> Result<BoxStream<'static, Wake>, HubError>;
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Most letters of one mailbox. A full one refuses its senders.
    pub letters: u64,
    /// Most bytes of them.
    pub bytes: u64,
    /// How long a connection that says nothing counts as present, in milliseconds.
    pub presence_ms: u64,
    /// How long a mailbox outlives its agent's last connection, in milliseconds.
    pub life_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            letters: 1_000,
            // With a thousand agents, 4 GiB at the very worst; letters are small.
            bytes: 4 * 1024 * 1024,
            presence_ms: 15_000,
            // A dead agent stops the others' broadcasts no longer than this.
            life_ms: 3_600_000,
        }
    }
}

impl Bounds {
    /// [`Self::presence_ms`] as time.
    pub fn presence(&self) -> Duration {
        Duration::from_millis(self.presence_ms)
    }

    /// [`Self::life_ms`] as time.
    pub fn life(&self) -> Duration {
        Duration::from_millis(self.life_ms)
    }
}

/// What an agent says of itself; the JSON of the plan's hash `agents:registry`, and more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Its own word for how it is.
    #[serde(default = "active")]
    pub status: String,
    /// When it said so; text, since the plan's clients leave out the time zone.
    #[serde(default)]
    pub registered_at: String,
    /// How much it has to do, in units of its own.
    #[serde(default)]
    pub workload: u64,
    /// How well it does: 0 to 1.
    #[serde(default = "perfect")]
    pub performance_score: f64,
}

/// What an agent is that does not say.
pub fn active() -> String {
    "active".to_owned()
}

/// How well an agent does that does not say.
pub fn perfect() -> f64 {
    1.0
}

/// One connection of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The agent.
    pub agent: AgentId,
    /// The connection: an id that no other has.
    pub connection: String,
}

impl Hold {
    /// A new connection of `agent`.
    pub fn new(agent: AgentId) -> Self {
        let connection = uuid::Uuid::now_v7().simple().to_string();
        Self { agent, connection }
    }
}

/// A place in a mailbox: which mailbox, since one that was forgotten is counted anew, and the letter there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The mailbox.
    pub mailbox: String,
    /// The letter; 0 before the first.
    pub letter: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.mailbox, self.letter)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (mailbox, letter) = text.split_once('-').ok_or(())?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if mailbox.is_empty() || mailbox.len() > 32 || !mailbox.bytes().all(hex) {
            return Err(());
        }
        Ok(Self {
            mailbox: mailbox.to_owned(),
            letter: letter.parse().map_err(|_| ())?,
        })
    }
}

/// What a new connection finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The mailbox, and the last letter that has left it.
    pub cursor: Cursor,
    /// Whether it goes on where the agent says that it stopped.
    pub resumed: bool,
    /// Letters that wait.
    pub waiting: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its sender's name for it.
    pub id: String,
    /// Who gets it.
    pub to: Receivers,
    /// A JSON object that is not empty.
    pub body: Bytes,
}

/// Who gets a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receivers {
    /// This agent.
    One(AgentId),
    /// Everyone who has a mailbox, but for the sender.
    Others,
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It is in the mailboxes.
    Stored {
        /// How many.
        receivers: u64,
        /// Letters in the fullest of them.
        deepest: u64,
    },
    /// It was before.
    Repeated,
    /// The mailboxes of these are full; nobody got it.
    Full(Vec<AgentId>),
    /// The receiver has no mailbox.
    NoMailbox,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Something in the mailbox of this agent, or its connection.
    Agent(AgentId),
    /// Who is present.
    Presence,
    /// Anything; something may not have been heard.
    All,
}

/// Why a call had no effect.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The agent has a newer connection.
    #[error("the agent has a newer connection")]
    Replaced,
    /// There is no such mailbox (any more): it was forgotten, or the backend lost its memory.
    #[error("the mailbox is gone")]
    Gone,
    /// The backend cannot be reached, or did not answer in time. Try again later.
    #[error("hub unavailable: {detail}")]
    Unavailable {
        /// What came back; without credentials.
        detail: String,
    },
    /// The configuration cannot work at all.
    #[error("hub configuration: {detail}")]
    Config {
        /// What is wrong; without credentials.
        detail: String,
    },
}

/// The hub beside the store that `config` names. A server that is not there yet is waited for in the background.
///
/// # Errors
/// [`HubError::Config`] when the configuration cannot work at all.
pub fn connect(config: &config::Store, bounds: Bounds) -> Result<Arc<dyn Hub>, HubError> {
    match config {
        config::Store::Memory { .. } => Ok(Arc::new(MemoryHub::new(bounds))),
        config::Store::Redis { url, .. } => Ok(Arc::new(RedisHub::connect(url, bounds)?)),
    }
}

/// The time of a registration.
pub fn now() -> String {
    Timestamp::now().to_string()
}

/// A mailbox's name.
fn new_mailbox() -> String {
    // The last part of a random UUID is enough to tell two mailboxes of one agent apart.
    let id = uuid::Uuid::now_v7().simple().to_string();
    id.get(16..).unwrap_or(&id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        let cursor = Cursor {
            mailbox: new_mailbox(),
            letter: 57,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "-",
            "7",
            "a-",
            "-7",
            "xyz-7",
            "a-7-8",
            "a--7",
            "A-1",
            &format!("{}-1", "a".repeat(33)),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(()), "{bad}");
        }
    }
}
