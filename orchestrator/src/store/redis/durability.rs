//! Whether a Redis keeps what it is given, as it says itself (`INFO`, `CONFIG GET`).

use crate::config::StoreUrl;
use crate::store::StoreError;
use redis::{Client, RedisError};
use std::collections::HashMap;
use std::time::Duration;

/// How long the server has for the connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a Redis does with what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durability {
    /// Its version, such as `7.0.15`.
    pub version: String,
    /// Whether it takes writes, rather than follows another one.
    pub primary: bool,
    /// Whether it writes an append-only file.
    pub append_only: bool,
    /// When it syncs that file: `always`, `everysec`, `no`; nothing where it does not say.
    pub sync: Option<String>,
    /// Whether it writes snapshots by itself; nothing where it does not say.
    pub snapshots: Option<bool>,
    /// What it puts out when memory is full, such as `noeviction`.
    pub eviction: String,
    /// Most bytes it may take; 0 without a limit.
    pub max_memory: u64,
    /// Bytes that it takes.
    pub used_memory: u64,
}

/// Asks the server of `url`.
///
/// # Errors
/// [`StoreError::Config`] when the URL is none for this client, [`StoreError::Unavailable`] without an answer.
pub async fn durability(url: &StoreUrl) -> Result<Durability, StoreError> {
    let client = Client::open(url.expose()).map_err(|e| StoreError::Config {
        detail: e.to_string(),
    })?;
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        // Managed servers refuse it.
        let config: Result<HashMap<String, String>, RedisError> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(&["appendfsync", "save"])
            .query_async(&mut connection)
            .await;
        Ok::<_, RedisError>(read(&info, &config.unwrap_or_default()))
    };
    match tokio::time::timeout(PATIENCE * 2, asked).await {
        Ok(answer) => answer.map_err(super::unavailable),
        Err(_) => Err(StoreError::Unavailable {
            detail: "no answer in time".to_owned(),
            reached: false,
        }),
    }
}

fn read(info: &str, config: &HashMap<String, String>) -> Durability {
    let fields: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or_default();
    Durability {
        version: text("redis_version").to_owned(),
        primary: text("role") == "master",
        append_only: text("aof_enabled") == "1",
        sync: config.get("appendfsync").cloned(),
        snapshots: config.get("save").map(|save| !save.trim().is_empty()),
        eviction: text("maxmemory_policy").to_owned(),
        max_memory: number("maxmemory"),
        used_memory: number("used_memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrole:slave\r\naof_enabled:1\r\n\
            maxmemory:1048576\r\nused_memory:900\r\nmaxmemory_policy:allkeys-lru\r\nodd\r\n";
        let config = HashMap::from([("appendfsync".to_owned(), "no".to_owned())]);
        let read = read(info, &config);
        assert!(!read.primary && read.append_only);
        assert_eq!((read.sync.as_deref(), read.snapshots), (Some("no"), None));
        assert_eq!((read.max_memory, read.used_memory), (1_048_576, 900));
        assert_eq!(read.eviction, "allkeys-lru");
    }
}
