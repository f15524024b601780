//! Connections to Redis, as every backend makes them. Each backend has one of its own: what waits on one would hold
//! up the others.

use futures_util::Stream;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Msg, RedisError, RedisResult};
use std::time::Duration;

/// How long a server has for a connection, and for each answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that mends itself and asks `retries` times more; its first command connects.
pub(crate) fn lazy(
    client: &Client,
    patience: Duration,
    retries: usize,
) -> RedisResult<ConnectionManager> {
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience))
        .set_number_of_retries(retries)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_secs(1));
    ConnectionManager::new_lazy_with_config(client.clone(), settings)
}

/// What is published on `channel` from now on, over a connection of its own.
///
/// # Errors
/// Why nobody listens; no answer within [`PATIENCE`] is one.
pub(crate) async fn listen(
    client: &Client,
    channel: &str,
) -> RedisResult<impl Stream<Item = Msg> + Send + use<>> {
    let subscribed = async {
        let mut pubsub = client.get_async_pubsub().await?;
        pubsub.subscribe(channel).await?;
        Ok::<_, RedisError>(pubsub.into_on_message())
    };
    tokio::time::timeout(PATIENCE, subscribed)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}
