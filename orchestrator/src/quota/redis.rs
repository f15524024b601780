//! Quotas in Redis: one script for each exchange, so that all of it happens, or nothing, and by Redis'
//! own clock.
//!
//! ```text
//!  {quota}:gateways   sorted set: gateways by the time until which they count
//!  {quota}:b:<key>    the time at which the bucket is full again, in microseconds; expires soon after
//! ```
//!
//! The braces keep all of it on one node of a Redis Cluster.
//!
//! A gateway whose exchange had no answer tells the same again, and more. What Redis carries out after
//! that (it was frozen, or the network was) would count all of it several times; so each script says until
//! when somebody waits for it, on Redis' clock as it was last seen, and does nothing when it comes late.

use super::{MAX_GATEWAYS, Quota, QuotaError, ago_us, cost_us, life_us, max_debt_us};
use crate::config::StoreUrl;
use crate::redis_link;
use async_trait::async_trait;
use mesh_protocol::quota::{Standings, Usage};
use redis::aio::ConnectionManager;
use redis::{Client, RedisError, RedisResult, Script};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const GATEWAYS: &str = "{quota}:gateways";
const BUCKET: &str = "{quota}:b:";
/// Exchanges that wait for Redis at the same time; more hear at once that they have to come again. One
/// with all entries that are allowed takes Redis some milliseconds, so more would not be answered in time.
const MAX_WAITING: usize = 64;

/// A connection that says nothing for so many times the patience is replaced: one to a machine that is gone
/// would not end for a quarter of an hour.
const SILENCE: u32 = 5;

/// The quotas.
pub struct RedisQuota {
    client: Client,
    patience: Duration,
    script: Script,
    waiting: Semaphore,
    line: Mutex<Line>,
}

/// The connection, and what is known of the server at its other end.
struct Line {
    connection: ConnectionManager,
    /// When it was laid, or last said something.
    heard: Instant,
    clock: Option<Clock>,
}

/// Redis' clock, as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Clock {
    us: u64,
    seen: Instant,
}

impl RedisQuota {
    /// Quotas on the server of `url`; the first exchange connects. An exchange that takes longer than
    /// `patience` fails.
    ///
    /// # Errors
    /// [`QuotaError::Config`] when the URL is none for this client.
    pub fn connect(url: &StoreUrl, patience: Duration) -> Result<Self, QuotaError> {
        let config = |e: RedisError| QuotaError::Config {
            detail: e.to_string(),
        };
        let client = Client::open(url.expose()).map_err(config)?;
        Ok(Self {
            line: Mutex::new(Line {
                connection: redis_link::lazy(&client, patience, 1).map_err(config)?,
                heard: Instant::now(),
                clock: None,
            }),
            client,
            patience,
            script: Script::new(include_str!("redis/exchange.lua")),
            waiting: Semaphore::new(MAX_WAITING),
        })
    }

    async fn ask(&self, usage: &Usage, begun: Instant) -> RedisResult<Option<Standings>> {
        let (mut connection, clock) = {
            let line = self.line();
            (line.connection.clone(), line.clock)
        };
        let mut clock = match clock {
            Some(clock) => clock,
            None => {
                let (s, us): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
                self.see(s.saturating_mul(1_000_000).saturating_add(us))
            }
        };
        // Twice, since Redis' clock may have been set, or another Redis taken its place.
        for _ in 0..2 {
            let mut script = self.script.prepare_invoke();
            script
                .key(GATEWAYS)
                .arg(&usage.gateway)
                .arg(life_us(usage))
                .arg(MAX_GATEWAYS)
                .arg(max_debt_us())
                .arg(clock.at(begun + self.patience));
            for used in &usage.used {
                script
                    .key(format!("{BUCKET}{}", used.key))
                    .arg(cost_us(used))
                    .arg(ago_us(used, usage));
            }
            let answer: Vec<u64> = script.invoke_async(&mut connection).await?;
            let mut answer = answer.into_iter();
            clock = self.see(answer.next().unwrap_or(0));
            if let Some(gateways) = answer.next() {
                return Ok(Some(Standings {
                    gateways: u32::try_from(gateways).unwrap_or(u32::MAX),
                    debts_ns: answer.map(|us| us.saturating_mul(1_000)).collect(),
                }));
            }
        }
        Ok(None)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, us: u64) -> Clock {
        // Seen when the answer is here: so it is rather taken to be earlier than it is, and a script
        // rather does nothing than too late.
        let seen = Instant::now();
        let clock = Clock { us, seen };
        let mut line = self.line();
        line.clock = Some(clock);
        line.heard = seen;
        clock
    }

    fn unanswered(&self) {
        let mut line = self.line();
        if line.heard.elapsed() < self.patience * SILENCE {
            return;
        }
        if let Ok(connection) = redis_link::lazy(&self.client, self.patience, 1) {
            line.connection = connection;
            line.heard = Instant::now();
        }
    }
}

impl Clock {
    /// What it shows at `when`.
    fn at(self, when: Instant) -> u64 {
        let ahead = when.saturating_duration_since(self.seen).as_micros();
        self.us
            .saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl Quota for RedisQuota {
    async fn exchange(&self, usage: &Usage) -> Result<Standings, QuotaError> {
        let unavailable = |detail: String| QuotaError::Unavailable { detail };
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(unavailable("too many exchanges wait for Redis".to_owned()));
        };
        let asked = self.ask(usage, Instant::now());
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(Some(standings))) => Ok(standings),
            Ok(Ok(None)) => Err(unavailable("Redis carried it out too late".to_owned())),
            // The client library writes the address, never the credentials, into its errors.
            Ok(Err(error)) => {
                if error.is_timeout() {
                    self.unanswered();
                }
                Err(unavailable(error.to_string()))
            }
            Err(_) => {
                self.unanswered();
                Err(unavailable("no answer in time".to_owned()))
            }
        }
    }
}
