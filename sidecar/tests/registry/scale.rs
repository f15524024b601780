//! More services than Consul takes connections.

use crate::setup::{Watch, at, metric, metrics, stale, until};
use mesh_sidecar::registry::contract::{instance, pass};
use mesh_sidecar::registry::{Discovery, State};
use mesh_tests::{consul, wait_for};
use std::sync::Arc;

const SERVICES: usize = 100;

/// Connections of this process to a port.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let to = format!(":{port:04X} 01 ");
    table.lines().filter(|line| line.contains(&to)).count()
}

async fn has(watch: &mut Watch, count: usize) {
    until(watch, "instances", |known| {
        known.state == State::Fresh && known.instances.len() == count
    })
    .await;
}

#[tokio::test]
async fn a_hundred_services_are_followed_over_few_connections() {
    let mut consul = consul::start().await;
    let registry = at(&consul.url());
    let (seen, counted) = metrics();
    let discovery = Discovery::new(Arc::clone(&registry), counted);
    let names: Vec<_> = (0..SERVICES)
        .map(|number| format!("s{number:03}"))
        .collect();
    let mut watches: Vec<_> = names
        .iter()
        .map(|name| discovery.watch(&name.parse().unwrap()))
        .collect();
    for watch in &mut watches {
        has(watch, 0).await;
    }
    for round in 1..=2 {
        for name in &names {
            pass(&*registry, &instance(name, round)).await;
        }
        for watch in &mut watches {
            has(watch, usize::from(round)).await;
        }
    }
    // One at the end of the line is heard of as well, with nothing else going on.
    for name in [&names[0], &names[SERVICES - 1]] {
        registry.deregister(&format!("{name}-1")).await.unwrap();
    }
    has(&mut watches[0], 1).await;
    has(&mut watches[SERVICES - 1], 1).await;
    assert_eq!(metric(&seen, "sidecar_registry_watched_services"), 100.0);
    wait_for("connections to be few", || async {
        connections(consul.http_port) <= 60
    })
    .await;
    // Whoever asks for all tells all: nobody takes a dead Consul for a quiet one.
    consul.kill().await;
    for watch in &mut watches {
        until(watch, "stale", stale).await;
    }
    consul.start_again().await;
    for watch in &mut watches {
        until(watch, "fresh", |known| known.state == State::Fresh).await;
    }
    assert_eq!(watches[1].borrow().instances.len(), 2);
    discovery.close().await;
}
