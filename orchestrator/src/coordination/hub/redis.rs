//! The hub in Redis: the plan's hash `agents:registry`, and for each agent a mailbox.
//!
//! ```text
//!  agents:registry       hash: what each agent says of itself
//!  {agents}:mailbox:<id> hash: name, connection, last letter, bytes; lives as long as the mailbox
//!  {agents}:letters:<id> stream: the letters, by their numbers
//!  {agents}:sent:<id>    sorted set: ids of what the agent sent last
//!  {agents}:present      sorted set: agents by the time until which they count as connected
//!  {agents}:joined       sorted set: agents by the time until which they have a mailbox
//!  {agents}:wake         channel: whose mailbox has changed
//! ```
//!
//! The braces keep all of it but the registry on one node of a Redis Cluster. Each call is one script: all of it
//! happens, or nothing. All are idempotent, so one whose answer was lost is made again.

use super::{
    Agents, Bounds, Connections, Cursor, Hold, HubError, Letter, MAX_REGISTERED, Mailboxes, PAGE,
    Posted, REMEMBERED, Receivers, Registration, Taken, Wake, new_mailbox,
};
use crate::config::StoreUrl;
use crate::redis_link::{self, PATIENCE};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mesh_protocol::AgentId;
use redis::aio::ConnectionManager;
use redis::{Client, FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const REGISTRY: &str = "agents:registry";
const PRESENT: &str = "{agents}:present";
const JOINED: &str = "{agents}:joined";
const WAKE: &str = "{agents}:wake";

/// The hub.
pub struct RedisHub {
    /// For connections that listen.
    client: Client,
    connection: ConnectionManager,
    bounds: Bounds,
    register: Script,
    take: Script,
    renew: Script,
    present: Script,
    post: Script,
    read: Script,
    acknowledge: Script,
}

impl RedisHub {
    /// A hub on the server of `url`; the first call connects.
    ///
    /// # Errors
    /// [`HubError::Config`] when the URL is none for this client.
    pub fn connect(url: &StoreUrl, bounds: Bounds) -> Result<Self, HubError> {
        let config = |e: RedisError| HubError::Config {
            detail: e.to_string(),
        };
        let client = Client::open(url.expose()).map_err(config)?;
        Ok(Self {
            connection: redis_link::lazy(&client, PATIENCE, 2).map_err(config)?,
            client,
            bounds,
            register: Script::new(include_str!("redis/register.lua")),
            take: Script::new(include_str!("redis/take.lua")),
            renew: Script::new(include_str!("redis/renew.lua")),
            present: Script::new(include_str!("redis/present.lua")),
            post: Script::new(include_str!("redis/post.lua")),
            read: Script::new(include_str!("redis/read.lua")),
            acknowledge: Script::new(include_str!("redis/acknowledge.lua")),
        })
    }

    async fn call<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, HubError> {
        let attempt = || async {
            let mut connection = self.connection.clone();
            script.invoke_async::<T>(&mut connection).await
        };
        again(attempt).await.map_err(unavailable)
    }

    /// Says that a connection lives for so long; 0: that it is over.
    async fn say(&self, hold: &Hold, presence_ms: u64) -> Result<(), HubError> {
        let mut script = self.renew.prepare_invoke();
        keys(&mut script, hold)
            .arg(hold.agent.as_str())
            .arg(&hold.connection)
            .arg(presence_ms)
            .arg(self.bounds.life_ms);
        holds(&self.call::<String>(&script).await?)
    }
}

fn mailbox(agent: &AgentId) -> String {
    format!("{{agents}}:mailbox:{agent}")
}

fn letters(agent: &AgentId) -> String {
    format!("{{agents}}:letters:{agent}")
}

fn sent(agent: &AgentId) -> String {
    format!("{{agents}}:sent:{agent}")
}

fn keys<'a, 's>(script: &'a mut ScriptInvocation<'s>, hold: &Hold) -> &'a mut ScriptInvocation<'s> {
    script
        .key(mailbox(&hold.agent))
        .key(letters(&hold.agent))
        .key(sent(&hold.agent))
        .key(PRESENT)
        .key(JOINED)
}

fn holds(answer: &str) -> Result<(), HubError> {
    match answer {
        "replaced" => Err(HubError::Replaced),
        "gone" => Err(HubError::Gone),
        _ => Ok(()),
    }
}

/// The first command after a connection was lost says so: then once more.
async fn again<T, F: Future<Output = RedisResult<T>>>(attempt: impl Fn() -> F) -> RedisResult<T> {
    match attempt().await {
        Err(error) if error.is_io_error() || error.is_connection_dropped() => attempt().await,
        answer => answer,
    }
}

/// The client library writes the address, never the credentials, into its errors.
fn unavailable(error: RedisError) -> HubError {
    HubError::Unavailable {
        detail: error.to_string(),
    }
}

#[async_trait]
impl Agents for RedisHub {
    async fn register(
        &self,
        agent: &AgentId,
        registration: &Registration,
    ) -> Result<bool, HubError> {
        let mut script = self.register.prepare_invoke();
        script
            .key(REGISTRY)
            .arg(agent.as_str())
            // Texts and numbers always serialise.
            .arg(serde_json::to_vec(registration).unwrap_or_default())
            .arg(MAX_REGISTERED);
        self.call(&script).await
    }

    async fn is_registered(&self, agent: &AgentId) -> Result<bool, HubError> {
        let attempt = || async {
            let mut connection = self.connection.clone();
            // Both spellings: the plan's clients write either.
            let mut command = redis::cmd("HMGET");
            command
                .arg(REGISTRY)
                .arg(agent.as_str())
                .arg(agent.underscored());
            command
                .query_async::<Vec<Option<Vec<u8>>>>(&mut connection)
                .await
        };
        let said = again(attempt).await.map_err(unavailable)?;
        let is_one = |said: &Vec<u8>| serde_json::from_slice::<Registration>(said).is_ok();
        Ok(said.iter().flatten().any(is_one))
    }

    async fn registered(&self) -> Result<BTreeMap<AgentId, Registration>, HubError> {
        let attempt = || async {
            let mut connection = self.connection.clone();
            let command = redis::Cmd::hgetall(REGISTRY);
            command
                .query_async::<HashMap<String, Vec<u8>>>(&mut connection)
                .await
        };
        let fields = again(attempt).await.map_err(unavailable)?;
        let read = fields.into_iter().filter_map(|(agent, registration)| {
            let registration = serde_json::from_slice(&registration).ok()?;
            Some((agent.parse().ok()?, registration))
        });
        Ok(read.take(MAX_REGISTERED).collect())
    }
}

#[async_trait]
impl Connections for RedisHub {
    async fn take(&self, hold: &Hold, last: Option<&Cursor>) -> Result<Taken, HubError> {
        let mut script = self.take.prepare_invoke();
        keys(&mut script, hold)
            .arg(hold.agent.as_str())
            .arg(&hold.connection)
            .arg(new_mailbox())
            .arg(last.map_or("", |last| last.mailbox.as_str()))
            .arg(last.map_or(0, |last| last.letter))
            .arg(self.bounds.presence_ms)
            .arg(self.bounds.life_ms);
        let (mailbox, letter, resumed, waiting): (String, u64, u8, u64) =
            self.call(&script).await?;
        Ok(Taken {
            cursor: Cursor { mailbox, letter },
            resumed: resumed == 1,
            waiting,
        })
    }

    async fn renew(&self, hold: &Hold) -> Result<(), HubError> {
        self.say(hold, self.bounds.presence_ms).await
    }

    async fn leave(&self, hold: &Hold) -> Result<(), HubError> {
        match self.say(hold, 0).await {
            Err(HubError::Replaced | HubError::Gone) => Ok(()),
            said => said,
        }
    }

    async fn present(&self) -> Result<BTreeSet<AgentId>, HubError> {
        let mut script = self.present.prepare_invoke();
        script.key(PRESENT);
        let agents: Vec<String> = self.call(&script).await?;
        Ok(agents.iter().filter_map(|id| id.parse().ok()).collect())
    }
}

#[async_trait]
impl Mailboxes for RedisHub {
    async fn post(&self, hold: &Hold, letter: &Letter) -> Result<Posted, HubError> {
        let to = match &letter.to {
            Receivers::One(agent) => agent.as_str(),
            Receivers::Others => "",
        };
        let mut script = self.post.prepare_invoke();
        script
            .key(mailbox(&hold.agent))
            .key(sent(&hold.agent))
            .key(JOINED)
            .arg(hold.agent.as_str())
            .arg(&hold.connection)
            .arg(&letter.id)
            .arg(to)
            .arg(&letter.body[..])
            .arg(self.bounds.letters)
            .arg(self.bounds.bytes)
            .arg(REMEMBERED);
        let (answer, receivers, deepest, full): (String, u64, u64, Vec<String>) =
            self.call(&script).await?;
        holds(&answer)?;
        Ok(match answer.as_str() {
            "repeated" => Posted::Repeated,
            "no_mailbox" => Posted::NoMailbox,
            "full" => Posted::Full(full.iter().filter_map(|id| id.parse().ok()).collect()),
            _ => Posted::Stored { receivers, deepest },
        })
    }

    async fn read(&self, hold: &Hold, after: u64) -> Result<Vec<(u64, Bytes)>, HubError> {
        let mut script = self.read.prepare_invoke();
        script
            .key(mailbox(&hold.agent))
            .key(letters(&hold.agent))
            .arg(&hold.connection)
            .arg(after)
            .arg(PAGE);
        let (answer, numbers, bodies): (String, Vec<u64>, Vec<Vec<u8>>) =
            self.call(&script).await?;
        holds(&answer)?;
        let bodies = bodies.into_iter().map(Bytes::from);
        Ok(numbers.into_iter().zip(bodies).collect())
    }

    async fn acknowledge(&self, hold: &Hold, upto: u64) -> Result<u64, HubError> {
        let mut script = self.acknowledge.prepare_invoke();
        script
            .key(mailbox(&hold.agent))
            .key(letters(&hold.agent))
            .arg(&hold.connection)
            .arg(upto);
        let (answer, left): (String, u64) = self.call(&script).await?;
        holds(&answer)?;
        Ok(left)
    }

    async fn listen(&self) -> Result<BoxStream<'static, Wake>, HubError> {
        let messages = redis_link::listen(&self.client, WAKE)
            .await
            .map_err(unavailable)?;
        let wakes = messages.map(|message| {
            let agent = std::str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
            // What is no agent is about all of them.
            agent.parse().map_or(Wake::Presence, Wake::Agent)
        });
        Ok(wakes.boxed())
    }
}
