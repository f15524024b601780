//! Resources in Redis: one script for each call, so that all of it happens, or nothing, by Redis' own clock. The scripts
//! begin with the same functions, `book.lua`, which names the keys.
//!
//! Nothing is granted for a while by a store that knows nothing: it may have lost what others hold. And what is held does
//! not expire by the time in which nobody could reach the store.

use super::{
    AGE, Amounts, Arbiter, ArbiterError, Ask, Asked, Claim, Grant, Holder, Key, MAX_HELD,
    MAX_SHOWN, MAX_WAITING, Renewed, Stand, Standing, Times, excess, millis,
};
use crate::config::StoreUrl;
use crate::redis_link::{self, PATIENCE};
use crate::store::ReplicaId;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::aio::ConnectionManager;
use redis::{Client, FromRedisValue, RedisError, Script, ScriptInvocation};
use std::time::Duration;

/// The arbiter.
pub struct RedisArbiter {
    client: Client,
    connection: ConnectionManager,
    capacity: Amounts,
    /// The same as JSON, as every script is told.
    written: String,
    times: Times,
    ask: Script,
    renew: Script,
    give_back: Script,
    look: Script,
}

impl RedisArbiter {
    /// An arbiter on the server of `url`; its first call connects.
    ///
    /// # Errors
    /// [`ArbiterError::Config`] when the URL is none for this client.
    pub fn connect(url: &StoreUrl, capacity: Amounts, times: Times) -> Result<Self, ArbiterError> {
        let config = |detail: String| ArbiterError::Config { detail };
        let client = Client::open(url.expose()).map_err(|e| config(e.to_string()))?;
        let connection =
            redis_link::lazy(&client, PATIENCE, 2).map_err(|e| config(e.to_string()))?;
        let written = serde_json::to_string(&capacity).map_err(|e| config(e.to_string()))?;
        let script = |body: &str| Script::new(&format!("{}{body}", include_str!("redis/book.lua")));
        Ok(Self {
            client,
            connection,
            capacity,
            written,
            times,
            ask: script(include_str!("redis/ask.lua")),
            renew: script(include_str!("redis/renew.lua")),
            give_back: script(include_str!("redis/give_back.lua")),
            look: script(include_str!("redis/look.lua")),
        })
    }

    fn prepare<'a>(&'a self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut prepared = script.prepare_invoke();
        prepared
            .arg(&self.written)
            .arg(millis(self.times.life))
            .arg(millis(self.times.settle))
            .arg(MAX_HELD)
            .arg(millis(AGE));
        prepared
    }

    async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, ArbiterError> {
        let mut connection = self.connection.clone();
        let called = script.invoke_async(&mut connection).await;
        called.map_err(unavailable)
    }
}

/// The client library writes the address, never the credentials, into its errors.
#[allow(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unavailable(error: RedisError) -> ArbiterError {
    ArbiterError::Unavailable {
        detail: error.to_string(),
    }
}

fn odd(what: &str) -> ArbiterError {
    ArbiterError::Unavailable {
        detail: format!("what the store holds cannot be read: {what}"),
    }
}

#[async_trait]
impl Arbiter for RedisArbiter {
    async fn ask(&self, ask: &Ask) -> Result<Asked, ArbiterError> {
        if ask.needs.is_empty() || excess(&ask.needs, &self.capacity).is_some() {
            return Ok(Asked::TooMuch);
        }
        let needs = serde_json::to_string(&ask.needs).map_err(|e| odd(&e.to_string()))?;
        let mut script = self.prepare(&self.ask);
        script
            .arg(&ask.key.id)
            .arg(&ask.key.holder)
            .arg(ask.key.generation)
            .arg(ask.owner.to_string())
            .arg(needs)
            .arg(ask.priority)
            .arg(millis(ask.ttl))
            .arg(millis(ask.waited))
            .arg(u8::from(ask.running))
            .arg(MAX_WAITING);
        let (came, token): (String, String) = self.call(&script).await?;
        match came.as_str() {
            "granted" => Ok(Asked::Granted {
                token: token.parse().map_err(|_| odd("a token"))?,
            }),
            "waiting" => Ok(Asked::Waiting),
            "full" => Ok(Asked::Full),
            _ => Ok(Asked::Superseded),
        }
    }

    async fn renew(&self, claims: &[Claim], ttl: Duration) -> Result<Renewed, ArbiterError> {
        let mut script = self.prepare(&self.renew);
        script.arg(millis(ttl));
        for Claim { key, held } in claims {
            script
                .arg(&key.id)
                .arg(&key.holder)
                .arg(key.generation)
                .arg(u8::from(*held));
        }
        let answer: (Vec<String>, Vec<String>, Vec<String>) = self.call(&script).await?;
        let (granted, gone, superseded) = answer;
        let grants = granted.chunks(3).filter_map(|row| match row {
            [id, generation, token] => grant(id, generation, token),
            _ => None,
        });
        Ok(Renewed {
            granted: grants.collect(),
            gone,
            superseded,
        })
    }

    async fn give_back(&self, key: &Key) -> Result<bool, ArbiterError> {
        let mut script = self.prepare(&self.give_back);
        script.arg(&key.id).arg(&key.holder).arg(key.generation);
        Ok(self.call::<u8>(&script).await? == 1)
    }

    async fn look(&self) -> Result<Standing, ArbiterError> {
        let mut script = self.prepare(&self.look);
        script.arg(MAX_SHOWN);
        let answer: (Vec<String>, Vec<String>, u64, i64, u64) = self.call(&script).await?;
        let (resources, holders, waiting, oldest, expired) = answer;
        let stands = resources.chunks(3).filter_map(|row| {
            let [name, in_use, waiting] = row else {
                return None;
            };
            let stand = Stand {
                capacity: self.capacity.get(name).copied()?,
                in_use: in_use.parse().unwrap_or(0),
                waiting: waiting.parse().unwrap_or(0),
            };
            Some((name.clone(), stand))
        });
        let holders = holders.chunks(3).filter_map(|row| {
            let [id, lease, left] = row else { return None };
            let mut holder: Holder = serde_json::from_str(lease).ok()?;
            holder.id.clone_from(id);
            holder.left = Duration::from_millis(left.parse().unwrap_or(0));
            Some(holder)
        });
        Ok(Standing {
            resources: stands.collect(),
            holders: holders.collect(),
            waiting,
            oldest_wait: u64::try_from(oldest).ok().map(Duration::from_millis),
            expired,
        })
    }

    async fn listen(&self, owner: ReplicaId) -> Result<BoxStream<'static, Grant>, ArbiterError> {
        let messages = redis_link::listen(&self.client, &format!("resources:granted:{owner}"))
            .await
            .map_err(unavailable)?;
        let grants = messages.filter_map(|message| {
            let text = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
            let mut words = text.split(' ');
            let read = match (words.next(), words.next(), words.next()) {
                (Some(id), Some(generation), Some(token)) => grant(id, generation, token),
                _ => None,
            };
            std::future::ready(read)
        });
        Ok(grants.boxed())
    }
}

fn grant(id: &str, generation: &str, token: &str) -> Option<Grant> {
    Some(Grant {
        id: id.to_owned(),
        generation: generation.parse().ok()?,
        token: token.parse().ok()?,
    })
}
