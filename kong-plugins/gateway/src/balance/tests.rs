//! Turns, weights, and the counters of health.

use super::*;
use mesh_declarative::{Healthchecks, Passive, Unhealthy, UpstreamTarget};

fn upstream(targets: &[(&str, u16)]) -> Upstream {
    Upstream {
        name: "pool".into(),
        targets: targets
            .iter()
            .map(|(target, weight)| UpstreamTarget {
                target: (*target).to_owned(),
                weight: *weight,
                tags: Vec::new(),
            })
            .collect(),
        ..Upstream::default()
    }
}

fn pool(upstream: &Upstream) -> Pool {
    let mut problems = Vec::new();
    let pool = Pool::read(upstream, &mut problems);
    assert_eq!(problems, Vec::<String>::new());
    pool
}

fn turns(pool: &Pool, number: usize) -> Vec<usize> {
    (0..number)
        .filter_map(|_| pool.next(&[]).map(|(index, _)| index))
        .collect()
}

#[test]
fn turns_follow_the_weights_and_are_spread() {
    let pool = pool(&upstream(&[
        ("127.0.0.1:1", 5),
        ("127.0.0.1:2", 1),
        ("127.0.0.1:3", 0),
        ("127.0.0.1:4", 1),
    ]));
    assert_eq!(turns(&pool, 7), [0, 0, 1, 0, 3, 0, 0]);
    assert_eq!(turns(&pool, 700).iter().filter(|i| **i == 0).count(), 500);
}

#[test]
fn what_was_tried_is_passed_over() {
    let pool = pool(&upstream(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]));
    for _ in 0..3 {
        assert_eq!(pool.next(&[0]).map(|(i, _)| i), Some(1));
    }
    assert!(pool.next(&[0, 1]).is_none());
}

#[test]
fn failures_in_a_row_take_a_target_out_and_successes_bring_it_back() {
    let mut upstream = upstream(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]);
    upstream.healthchecks = Some(Healthchecks {
        passive: Some(Passive {
            healthy: Some(mesh_declarative::Healthy {
                successes: Some(2),
                ..Default::default()
            }),
            unhealthy: Some(Unhealthy {
                http_failures: Some(2),
                tcp_failures: Some(3),
                ..Default::default()
            }),
            ..Default::default()
        }),
        threshold: Some(50.0),
        ..Default::default()
    });
    let pool = pool(&upstream);
    let healthy = || pool.targets[0].is_healthy();
    for (event, expected) in [
        (Event::Status(500), true),
        (Event::Status(200), true),
        (Event::Status(500), true),
        // Neither good nor bad, and timeouts are not counted.
        (Event::Status(404), true),
        (Event::Timeout, true),
        (Event::Tcp, true),
        (Event::Status(500), false),
        (Event::Status(200), false),
        (Event::Status(503), false),
        (Event::Status(200), false),
        (Event::Status(200), true),
    ] {
        pool.saw(0, event);
        assert_eq!(healthy(), expected, "{event:?}");
    }
    for _ in 0..3 {
        pool.saw(0, Event::Tcp);
    }
    assert_eq!(turns(&pool, 3), [1, 1, 1]);
    for _ in 0..2 {
        pool.saw(1, Event::Status(500));
    }
    assert!(pool.next(&[]).is_none());
}

#[test]
fn what_cannot_be_run_is_named() {
    let mut hashing = upstream(&[]);
    hashing.algorithm = Some("consistent-hashing".into());
    for (upstream, word) in [
        (upstream(&[("example.com:80", 1)]), "example.com"),
        (upstream(&[("127.0.0.1:0", 1)]), "127.0.0.1:0"),
        (upstream(&[("::1:80", 1)]), "::1:80"),
        (upstream(&[("127.0.0.1:1", 1), ("localhost:1", 2)]), "twice"),
        (hashing, "consistent-hashing"),
    ] {
        let mut problems = Vec::new();
        Pool::read(&upstream, &mut problems);
        assert!(problems.iter().any(|p| p.contains(word)), "{problems:?}");
    }
}
