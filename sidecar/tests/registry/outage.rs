//! A real Consul that is killed, and comes back empty.

use crate::setup::{Announced, Watch, are, at, follow, ids, metric, stale, until};
use mesh_sidecar::registry::contract::instance;
use mesh_sidecar::registry::{Discovery, Health, Registered, Registry, shown};
use mesh_tests::{consul, wait_for};
use std::sync::Arc;
use std::time::Duration;

fn short(number: u16) -> Registered {
    Registered {
        ttl: Duration::from_secs(2),
        ..instance("agent", number)
    }
}

async fn announce(registry: &Arc<dyn Registry>, count: u16) -> Vec<Announced> {
    let mut all: Vec<_> = (1..=count)
        .map(|number| Announced::start(registry, short(number)))
        .collect();
    for announced in &mut all {
        announced.registered().await;
    }
    all
}

/// Keeps the fewest instances that a user saw.
fn fewest(mut watch: Watch) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut fewest = usize::MAX;
        loop {
            fewest = fewest.min(watch.borrow_and_update().instances.len());
            if watch.changed().await.is_err() {
                return fewest;
            }
        }
    })
}

#[tokio::test]
async fn health_goes_with_the_registration() {
    let consul = consul::shared().await;
    let registry = at(&consul.url());
    let mut one = Announced::start(&registry, instance("healthy", 1));
    one.registered().await;
    let (_discovery, mut watch) = follow(&registry, "healthy");
    are(&mut watch, &["healthy-1"]).await;
    // Far sooner than the next report, which is due in 100 seconds.
    one.health
        .send_replace(Health::Critical("agent answers 503".to_owned()));
    are(&mut watch, &[]).await;
    let checks = consul.get("/v1/health/checks/healthy").await;
    assert_eq!(checks[0]["Output"], "agent answers 503");
    one.health.send_replace(Health::Passing);
    are(&mut watch, &["healthy-1"]).await;
    one.leave().await;
    are(&mut watch, &[]).await;
}

#[tokio::test]
async fn a_consul_that_comes_later_is_waited_for() {
    let mut consul = consul::start().await;
    let registry = at(&consul.url());
    consul.kill().await;
    let mut one = Announced::start(&registry, short(1));
    let (discovery, mut watch) = follow(&registry, "agent");
    wait_for("the reason", || async {
        one.announcement
            .reason()
            .is_some_and(|reason| reason.contains("refused"))
    })
    .await;
    consul.start_again().await;
    one.registered().await;
    are(&mut watch, &["agent-1"]).await;
    wait_for("the zone", || async { one.announcement.zone().is_some() }).await;
    assert_eq!(one.announcement.zone().as_deref(), Some("dc1"));
    let shown = shown(Some(&one.announcement), Some(&discovery));
    assert_eq!(shown["registration"]["state"], "registered");
    assert_eq!(shown["services"]["agent"]["instances"][0]["zone"], "dc1");
}

#[tokio::test]
async fn a_consul_that_is_killed_and_restarted_empty_costs_nobody() {
    let mut consul = consul::start().await;
    let registry = at(&consul.url());
    let mut all = announce(&registry, 3).await;
    let (discovery, mut watch) = follow(&registry, "agent");
    let everybody = ["agent-1", "agent-2", "agent-3"];
    are(&mut watch, &everybody).await;
    let fewest = fewest(watch.clone());
    consul.kill().await;
    let known = until(&mut watch, "stale", stale).await;
    assert_eq!(ids(&known.instances), everybody);
    // Still registered, as far as anybody can say.
    assert!(all.iter().all(|one| one.announcement.reason().is_none()));
    // Killed while Consul is away: found out by those who call it, and dropped in the end.
    let killed = all.pop().unwrap();
    killed.running.abort();
    consul.start_again().await;
    are(&mut watch, &everybody).await;
    wait_for("everybody to be registered again", || async {
        let services = consul.get("/v1/agent/services").await;
        services.as_object().unwrap().len() == 2
    })
    .await;
    are(&mut watch, &everybody[..2]).await;
    for one in &all {
        assert_eq!(
            metric(&one.metrics, "sidecar_registry_registrations_total"),
            2.0
        );
        assert_eq!(metric(&one.metrics, "sidecar_registry_up"), 1.0);
    }
    // Nobody was missing before that, not even for a moment.
    discovery.close().await;
    drop((watch, discovery));
    assert_eq!(fewest.await.unwrap(), 2);
}

#[tokio::test]
async fn who_is_deregistered_behind_its_back_registers_again() {
    let consul = consul::shared().await;
    let registry = at(&consul.url());
    let mine = Registered {
        ttl: Duration::from_secs(1),
        ..instance("entropy", 1)
    };
    let mut one = Announced::start(&registry, mine);
    one.registered().await;
    let (_discovery, mut watch) = follow(&registry, "entropy");
    are(&mut watch, &["entropy-1"]).await;
    registry.deregister("entropy-1").await.unwrap();
    wait_for("a second registration", || async {
        metric(&one.metrics, "sidecar_registry_registrations_total") == 2.0
    })
    .await;
    are(&mut watch, &["entropy-1"]).await;
    one.leave().await;
}

#[tokio::test]
async fn a_consul_that_stood_still_makes_nobody_vanish() {
    let consul = consul::start().await;
    let registry = at(&consul.url());
    let all = announce(&registry, 2).await;
    // Beside one of them, as in a sidecar: what one half of it finds out, the other knows.
    let discovery = Discovery::new(Arc::clone(&registry), Arc::clone(&all[0].counted));
    let mut watch = discovery.watch(&"agent".parse().unwrap());
    are(&mut watch, &["agent-1", "agent-2"]).await;
    let fewest = fewest(watch.clone());
    let signal = |signal: &str| {
        let kill = std::process::Command::new("kill")
            .args([signal, &consul.pid().to_string()])
            .status();
        assert!(kill.unwrap().success());
    };
    let up = async |value: f64| {
        wait_for("reports", || async {
            all.iter()
                .all(|one| metric(&one.metrics, "sidecar_registry_up") == value)
        })
        .await;
    };
    signal("-STOP");
    up(0.0).await;
    // Every TTL has run out by now, and is found to have as soon as it goes on.
    signal("-CONT");
    up(1.0).await;
    wait_for("them to pass again", || async {
        let passing = consul.get("/v1/health/service/agent?passing").await;
        passing.as_array().unwrap().len() == 2
    })
    .await;
    are(&mut watch, &["agent-1", "agent-2"]).await;
    discovery.close().await;
    drop((watch, discovery));
    assert_eq!(fewest.await.unwrap(), 2);
}
