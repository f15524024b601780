//! The arbiter over a real Redis.

use mesh_orchestrator::config::StoreUrl;
use mesh_orchestrator::resources::contract::{all, amounts, ask};
use mesh_orchestrator::resources::{
    Amounts, Arbiter, ArbiterError, Asked, Claim, RedisArbiter, Times,
};
use mesh_tests::{redis, wait_for};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn arbiter(url: String, capacity: Amounts, times: Times) -> RedisArbiter {
    let url = StoreUrl::try_from(url).unwrap();
    RedisArbiter::connect(&url, capacity, times).unwrap()
}

fn gpu() -> Amounts {
    amounts(&[("gpu", 1)])
}

#[tokio::test]
async fn passes_the_contract() {
    let server = redis::shared().await;
    all(async |capacity, times| {
        Arc::new(arbiter(server.database(), capacity, times)) as Arc<dyn Arbiter>
    })
    .await;
}

/// A store that was emptied grants nothing until those who hold something have said so.
#[tokio::test]
async fn an_emptied_store_is_filled_again_before_it_grants() {
    const SETTLE: Duration = Duration::from_secs(2);
    let mut server = redis::start().await;
    let times = Times {
        life: Duration::from_secs(600),
        settle: SETTLE,
    };
    let (one, other) = (
        arbiter(server.url(), gpu(), times),
        arbiter(server.url(), gpu(), times),
    );
    let (mut a, b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    // A new store knows no more than an emptied one.
    assert_eq!(one.ask(&a).await.unwrap(), Asked::Waiting);
    let claims = [Claim {
        key: a.key.clone(),
        held: false,
    }];
    wait_for("the first grant", async || {
        let renewed = one.renew(&claims, times.life).await.unwrap();
        !renewed.granted.is_empty()
    })
    .await;
    server.kill().await;
    server.forget();
    server.start_again().await;
    // Whoever comes first does not get what the other holds.
    wait_for("the store to answer again", async || {
        match other.ask(&b).await {
            Ok(asked) => {
                assert_eq!(asked, Asked::Waiting);
                true
            }
            Err(_) => false,
        }
    })
    .await;
    let emptied = Instant::now();
    let held = [Claim {
        key: a.key.clone(),
        held: true,
    }];
    wait_for("the store to answer its holder", async || {
        let renewed = one.renew(&held, times.life).await;
        renewed.is_ok_and(|renewed| renewed.gone == ["a"])
    })
    .await;
    a.running = true;
    assert!(matches!(one.ask(&a).await.unwrap(), Asked::Granted { .. }));
    while emptied.elapsed() < SETTLE + Duration::from_millis(500) {
        let claims = [Claim {
            key: b.key.clone(),
            held: false,
        }];
        let renewed = other.renew(&claims, times.life).await.unwrap();
        assert!(renewed.granted.is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(one.give_back(&a.key).await.unwrap());
    assert!(matches!(
        other.ask(&b).await.unwrap(),
        Asked::Granted { .. }
    ));
}

/// Nobody could renew while the server was away: what is held does not expire by that.
#[tokio::test]
async fn leases_outlive_an_absence_of_the_server() {
    let mut server = redis::start().await;
    let life = Duration::from_secs(2);
    let times = Times {
        life,
        settle: Duration::ZERO,
    };
    let arbiter = arbiter(server.url(), gpu(), times);
    let (mut a, b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    a.ttl = life;
    assert!(matches!(
        arbiter.ask(&a).await.unwrap(),
        Asked::Granted { .. }
    ));
    server.kill().await;
    let away = arbiter.ask(&b).await;
    assert!(
        matches!(away, Err(ArbiterError::Unavailable { .. })),
        "{away:?}"
    );
    tokio::time::sleep(life * 2).await;
    server.start_again().await;
    wait_for("the store to answer again", async || {
        match arbiter.ask(&b).await {
            Ok(asked) => {
                assert_eq!(asked, Asked::Waiting);
                true
            }
            Err(_) => false,
        }
    })
    .await;
    // But it does by a life in which others could.
    wait_for("the lease to expire", async || {
        matches!(arbiter.ask(&b).await.unwrap(), Asked::Granted { .. })
    })
    .await;
}

/// A clock that was set back gives nobody who asks later the place of one who waits.
#[tokio::test]
async fn who_waits_keeps_its_place_when_the_clock_is_set_back() {
    const HOUR_MS: u64 = 3_600_000;
    let server = redis::shared().await;
    let url = server.database();
    let times = Times {
        settle: Duration::ZERO,
        ..Times::default()
    };
    let arbiter = arbiter(url.clone(), gpu(), times);
    let [holds, waits, late] = ["a", "b", "c"].map(|id| ask(id, &[("gpu", 1)]));
    assert!(matches!(
        arbiter.ask(&holds).await.unwrap(),
        Asked::Granted { .. }
    ));
    assert_eq!(arbiter.ask(&waits).await.unwrap(), Asked::Waiting);
    // As if all of that had been written an hour later than now.
    let cli = |arguments: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        let done = command.args(["-u", &url]).args(arguments).status();
        assert!(done.unwrap().success());
    };
    let ms = HOUR_MS.to_string();
    cli(&["HINCRBY", "{resources}:state", "last", &ms]);
    for (key, shift, id) in [
        ("until", HOUR_MS, "a"),
        ("asked", HOUR_MS, "b"),
        ("since", HOUR_MS, "b"),
        ("queue:gpu", HOUR_MS * 1_000, "b"),
    ] {
        let key = format!("{{resources}}:{key}");
        cli(&["ZINCRBY", &key, &shift.to_string(), id]);
    }
    assert_eq!(arbiter.ask(&late).await.unwrap(), Asked::Waiting);
    let waited = arbiter.look().await.unwrap().oldest_wait.unwrap();
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    assert!(arbiter.give_back(&holds.key).await.unwrap());
    assert_eq!(arbiter.ask(&late).await.unwrap(), Asked::Waiting);
    assert!(matches!(
        arbiter.ask(&waits).await.unwrap(),
        Asked::Granted { .. }
    ));
}

#[tokio::test]
async fn errors_hold_no_password() {
    // Nobody listens on port 1.
    let url = "redis://user:very-secret@127.0.0.1:1/0".to_owned();
    let arbiter = arbiter(url, gpu(), Times::default());
    let error = arbiter.look().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("very-secret"));
}
