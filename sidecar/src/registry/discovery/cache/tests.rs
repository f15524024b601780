//! Outages and flapping, without waiting.

use super::{Cache, LONGEST, PAUSE, WINDOW};
use crate::registry::Instance;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

fn list(ids: &str) -> Vec<Instance> {
    let instance = |id: &str| Instance {
        id: id.into(),
        address: format!("127.0.0.1:{}", 1000 + u32::from(id.as_bytes()[0]))
            .parse()
            .unwrap(),
        weight: 1,
        zone: None,
        meta: Arc::default(),
    };
    ids.split_whitespace().map(instance).collect()
}

fn shown(cache: &Cache) -> String {
    let ids: Vec<_> = cache.shown().iter().map(|i| &*i.id).collect();
    ids.join(" ")
}

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);

#[test]
fn without_an_outage_the_registry_is_believed() {
    let (mut cache, now) = (Cache::new(GRACE), Instant::now());
    for ids in ["a b c", "a", "a d", "", "b"] {
        cache.answered(now, list(ids), None);
        assert_eq!(shown(&cache), ids);
        assert_eq!(cache.due(now), None);
    }
    // One that was long ago is over.
    let later = now + GRACE;
    cache.answered(later, list(""), Some(now));
    assert_eq!(shown(&cache), "");
}

#[test]
fn after_an_outage_nobody_is_dropped_at_once() {
    let (mut cache, now) = (Cache::new(GRACE), Instant::now());
    cache.answered(now, list("a b c"), None);
    // Empty again, and then they register one by one, one of them elsewhere and one anew.
    cache.answered(now, list(""), Some(now));
    assert_eq!(shown(&cache), "a b c");
    cache.answered(now + SECOND, list("b d"), None);
    assert_eq!(shown(&cache), "a b c d");
    let mut moved = list("c d e");
    moved[0].address = "127.0.0.1:1".parse().unwrap();
    // Under the address of `a`, so it is the same one, restarted.
    moved[2].address = list("a")[0].address;
    cache.answered(now + 2 * SECOND, moved.clone(), None);
    assert_eq!(shown(&cache), "b c d e");
    assert_eq!(cache.shown()[1].address, moved[0].address);
    let due = cache.due(now + 2 * SECOND).unwrap();
    assert_eq!(due, now + GRACE);
    cache.show(due);
    assert_eq!(shown(&cache), "c d e");
    assert_eq!(cache.due(due), None);
}

#[test]
fn a_registry_that_stays_empty_is_believed_in_the_end() {
    let (mut cache, now) = (Cache::new(GRACE), Instant::now());
    cache.answered(now, list("a"), None);
    cache.answered(now, list(""), Some(now));
    cache.answered(now + GRACE, list(""), None);
    assert_eq!(shown(&cache), "");
}

/// Departs and comes back at `now`.
fn flap(cache: &mut Cache, now: Instant, rest: &str, id: &str) {
    cache.answered(now, list(rest), None);
    assert_eq!(shown(cache), rest);
    cache.answered(now, list(&format!("{rest} {id}")), None);
}

#[test]
fn who_flaps_waits_longer_each_time() {
    let (mut cache, mut now) = (Cache::new(GRACE), Instant::now());
    cache.answered(now, list("a z"), None);
    for _ in 0..2 {
        flap(&mut cache, now, "a", "z");
        assert_eq!(shown(&cache), "a z");
    }
    for pause in [1, 2, 4, 8, 16, 30].map(|n| n * SECOND) {
        assert!((PAUSE..=LONGEST).contains(&pause));
        flap(&mut cache, now, "a", "z");
        assert_eq!((shown(&cache).as_str(), cache.held()), ("a", 1));
        // Other news does not help it.
        let other = format!("b{}", pause.as_secs());
        cache.answered(now, list(&format!("a {other} z")), None);
        assert_eq!(shown(&cache), format!("a {other}"));
        cache.answered(now, list("a z"), None);
        let due = cache.due(now).unwrap();
        assert_eq!(due, now + pause);
        now = due;
        cache.show(now);
        assert_eq!((shown(&cache).as_str(), cache.held()), ("a z", 0));
        assert_eq!(cache.due(now), None);
    }
    // Steady for a while, and all is forgotten.
    now += WINDOW + SECOND;
    flap(&mut cache, now, "a", "z");
    assert_eq!(shown(&cache), "a z");
}

#[test]
fn who_flaps_is_better_than_nobody() {
    let (mut cache, now) = (Cache::new(GRACE), Instant::now());
    cache.answered(now, list("z"), None);
    for _ in 0..5 {
        flap(&mut cache, now, "", "z");
        assert_eq!(shown(&cache), "z");
    }
    // And stays when somebody else comes.
    cache.answered(now, list("a z"), None);
    assert_eq!(shown(&cache), "a z");
}

#[test]
fn an_outage_makes_nobody_a_flapper() {
    let (mut cache, now) = (Cache::new(GRACE), Instant::now());
    cache.answered(now, list("a z"), None);
    for _ in 0..5 {
        cache.answered(now, list("a"), Some(now));
        cache.answered(now, list("a z"), None);
    }
    cache.answered(now + GRACE, list("a"), None);
    cache.answered(now + GRACE, list("a z"), None);
    assert_eq!(shown(&cache), "a z");
}
