//! The run store over a real Redis.

use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::store::contract::{all, sample, what_makes_room_is_counted};
use mesh_orchestrator::store::{Leases, RedisStore, ReplicaId, RunStore, StoreError};
use mesh_tests::redis;
use std::sync::Arc;
use std::time::Duration;

async fn store(url: String, retention: Duration) -> RedisStore {
    let url = StoreUrl::try_from(url).unwrap();
    RedisStore::connect(&url, retention).await.unwrap()
}

#[tokio::test]
async fn passes_the_contract() {
    let server = redis::shared().await;
    all(|retention| {
        let url = server.database();
        async move { Arc::new(store(url, retention).await) as Arc<dyn RunStore> }
    })
    .await;
}

#[tokio::test]
async fn the_log_is_bounded() {
    let server = redis::shared().await;
    let store = store(server.database(), Duration::from_secs(3600)).await;
    what_makes_room_is_counted(&store.keeping(100)).await;
}

#[tokio::test]
async fn survives_a_restart_of_the_server() {
    let mut server = redis::start().await;
    let store = store(server.url(), Duration::from_secs(3600)).await;
    let (before, after, by) = (sample(None), sample(None), ReplicaId::random());
    store.create(&before, by).await.unwrap();
    server.kill().await;
    let away = store.create(&after, by).await;
    assert!(
        matches!(away, Err(StoreError::Unavailable { .. })),
        "{away:?}"
    );
    server.start_again().await;
    mesh_tests::wait_for("the store to answer again", async || {
        store.create(&after, by).await.is_ok()
    })
    .await;
    for run in [before, after] {
        assert_eq!(store.load(&run.task_id).await.unwrap(), Some(run));
    }
}

#[tokio::test]
async fn errors_hold_no_password() {
    // Nobody listens on port 1.
    let url = "redis://user:very-secret@127.0.0.1:1/0".to_owned();
    let store = store(url, Duration::from_secs(1)).await;
    let replica = ReplicaId::random();
    for error in [
        store.release(replica).await.unwrap_err(),
        store.listen(replica).await.err().unwrap(),
    ] {
        assert!(!format!("{error} {error:?}").contains("very-secret"));
    }
}
