//! Shares by weight and by response time, ejection and return, zones; with chosen randomness and clocks.

use super::*;
use crate::proxy::outlier::Outcome;
use http::StatusCode;
use std::collections::BinaryHeap;

const OK: Outcome = Outcome::Answered(StatusCode::OK);

fn settings() -> config::Settings {
    config::Settings {
        balance: config::Balance {
            slow_start_ms: 0,
            ..config::Balance::default()
        },
        ..config::Settings::default()
    }
}

fn instance(number: u16, weight: u16, zone: Option<&str>) -> Instance {
    Instance {
        id: format!("i{number}").into(),
        address: ([127, 0, 0, 1], 1_000 + number).into(),
        weight,
        zone: zone.map(Arc::from),
        meta: Default::default(),
    }
}

fn even(count: u16) -> Vec<Instance> {
    (0..count).map(|n| instance(n, 1, None)).collect()
}

/// A balancer, a clock and the instances' behaviour.
struct Simulation {
    balancer: Balancer,
    now: Instant,
    /// Response time of an instance, in milliseconds, and what it says.
    behaviour: Box<dyn Fn(u16, Instant) -> (u64, Outcome)>,
    events: Vec<Event>,
}

impl Simulation {
    fn new(settings: &config::Settings, zone: Option<&str>, instances: &[Instance]) -> Self {
        let balancer = Balancer::seeded(settings, zone.map(Arc::from), 7);
        let now = Instant::now();
        balancer.update(instances, now);
        Self {
            balancer,
            now,
            behaviour: Box::new(|_, _| (10, OK)),
            events: Vec::new(),
        }
    }

    fn behaving(mut self, behaviour: impl Fn(u16, Instant) -> (u64, Outcome) + 'static) -> Self {
        self.behaviour = Box::new(behaviour);
        self
    }

    /// Sends `count` requests, `at_once` at a time; how many each instance got.
    fn send(&mut self, count: usize, at_once: usize) -> HashMap<u16, f64> {
        let mut got = HashMap::new();
        // Ends of those under way, the earliest on top.
        let mut under_way = BinaryHeap::new();
        let mut picked = HashMap::new();
        for number in 0..count {
            if under_way.len() == at_once {
                self.end_one(&mut under_way, &mut picked);
            }
            let choice = self.balancer.pick(&[], self.now).unwrap();
            let port = choice.address().port() - 1_000;
            *got.entry(port).or_insert(0.0) += 1.0;
            let (millis, _) = (self.behaviour)(port, self.now);
            let end = self.now + Duration::from_millis(millis);
            under_way.push((std::cmp::Reverse(end), number));
            picked.insert(number, choice);
        }
        while !under_way.is_empty() {
            self.end_one(&mut under_way, &mut picked);
        }
        got
    }

    fn end_one(
        &mut self,
        under_way: &mut BinaryHeap<(std::cmp::Reverse<Instant>, usize)>,
        picked: &mut HashMap<usize, Picked>,
    ) {
        let (end, number) = under_way.pop().unwrap();
        self.now = self.now.max(end.0);
        let choice = picked.remove(&number).unwrap();
        let (_, outcome) = (self.behaviour)(choice.address().port() - 1_000, self.now);
        self.events.extend(choice.finished(outcome, self.now));
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn out(&self) -> usize {
        self.balancer.counts(self.now).out
    }
}

fn close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= wanted * 0.15
}

#[test]
fn no_instance_is_no_choice() {
    let balancer = Balancer::new(&settings(), None);
    let now = Instant::now();
    assert!(balancer.pick(&[], now).is_none());
    balancer.update(&even(1), now);
    let picked = balancer.pick(&[], now).unwrap();
    assert_eq!(picked.id().to_string(), "i0");
    balancer.update(&[], now);
    assert!(balancer.pick(&[], now).is_none());
    assert_eq!(picked.finished(Outcome::BrokeOff, now), None);
}

#[test]
fn equal_instances_get_equal_shares() {
    for (count, at_once) in [(2, 1), (2, 16), (10, 1), (10, 64)] {
        let got = Simulation::new(&settings(), None, &even(count)).send(10_000, at_once);
        for n in 0..count {
            assert!(
                close(got[&n], 10_000.0 / f64::from(count)),
                "{count} {at_once}: {got:?}"
            );
        }
    }
}

#[test]
fn shares_follow_weights() {
    for at_once in [1, 16, 64] {
        for weights in [&[1, 3][..], &[1, 1, 2], &[5, 1, 1, 1], &[100, 300, 600]] {
            let instances: Vec<_> = (0..)
                .zip(weights)
                .map(|(n, w)| instance(n, *w, None))
                .collect();
            let got = Simulation::new(&settings(), None, &instances).send(20_000, at_once);
            let sum: u16 = weights.iter().sum();
            for (n, weight) in (0..).zip(weights) {
                let wanted = 20_000.0 * f64::from(*weight) / f64::from(sum);
                // Two at random differ by weight only as far as there is something to choose.
                let near = (got[&n] - wanted).abs() <= wanted * 0.4;
                assert!(near, "{weights:?} {at_once}: {got:?}");
            }
        }
    }
}

#[test]
fn a_light_one_among_heavy_ones_gets_something() {
    let mut instances = even(20);
    for instance in &mut instances[1..] {
        instance.weight = 1_000;
    }
    let got = Simulation::new(&settings(), None, &instances[..2]).send(100_000, 1);
    assert!((50.0..200.0).contains(&got[&0]), "{got:?}");
}

#[test]
fn a_slow_instance_gets_few() {
    for (count, at_once) in [(2, 1), (2, 16), (5, 1), (5, 64)] {
        let mut simulation = Simulation::new(&settings(), None, &even(count))
            .behaving(|n, _| (if n == 0 { 500 } else { 5 }, OK));
        let got = simulation.send(20_000, at_once);
        let share = got[&0] / (20_000.0 / f64::from(count));
        assert!(share < 0.1, "{count} {at_once}: {got:?}");
    }
}

#[test]
fn one_that_was_slow_is_found_out_to_be_fast_again() {
    let begin = Instant::now();
    let mut simulation = Simulation::new(&settings(), None, &even(2)).behaving(move |n, now| {
        let slow = n == 0 && now < begin + Duration::from_secs(5);
        (if slow { 400 } else { 5 }, OK)
    });
    let before = simulation.send(1_000, 1);
    assert!(before[&0] < 100.0, "{before:?}");
    simulation.wait(60_000);
    let after = simulation.send(1_000, 1);
    assert!(close(after[&0], 500.0), "{after:?}");
}

#[test]
fn refusing_quickly_is_not_being_fast() {
    let settings = config::Settings {
        // Never ejected.
        outlier: config::Outlier {
            consecutive_failures: 1_000_000,
            ..config::Outlier::default()
        },
        ..settings()
    };
    let begin = Instant::now();
    let mut simulation = Simulation::new(&settings, None, &even(2)).behaving(move |n, now| {
        if n == 0 && now > begin + Duration::from_secs(1) {
            return (0, Outcome::NotSent);
        }
        (5, OK)
    });
    simulation.send(400, 1);
    let got = simulation.send(2_000, 1);
    assert!(got[&0] < 40.0, "{got:?}");
}

#[test]
fn a_dead_instance_is_left_alone_and_returns() {
    let begin = Instant::now();
    let alive = begin + Duration::from_secs(30);
    let mut simulation =
        Simulation::new(&config::Settings::default(), None, &even(3)).behaving(move |n, now| {
            if n == 0 && now < alive {
                (0, Outcome::NotSent)
            } else {
                (10, OK)
            }
        });
    let got = simulation.send(2_000, 4);
    // Five in a row at first; then one, and what was under way with it, for each time that it is tried.
    assert!((5.0..20.0).contains(&got[&0]), "{got:?}");
    let lengths: Vec<_> = simulation
        .events
        .iter()
        .map(|e| match e {
            Event::Ejected { id, length } if id.to_string() == "i0" => length.as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths.first(), Some(&5));
    assert!(lengths.is_sorted(), "{lengths:?}");
    simulation.now = simulation.now.max(alive) + Duration::from_secs(60);
    assert_eq!(simulation.out(), 0);
    // It comes back slowly.
    let first = simulation.send(60, 1);
    assert!(first.get(&0).copied().unwrap_or(0.0) < 15.0, "{first:?}");
    simulation.wait(10_000);
    let later = simulation.send(3_000, 1);
    assert!(close(later[&0], 1_000.0), "{later:?}");
    assert_eq!(simulation.out(), 0);
}

#[test]
fn never_more_are_left_alone_than_may_be() {
    let mut simulation = Simulation::new(&settings(), None, &even(4))
        .behaving(|_, _| (1, Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE)));
    simulation.send(200, 1);
    assert_eq!(
        simulation.balancer.counts(simulation.now),
        Counts { all: 4, out: 2 }
    );
    // Those of them that are asked are the others.
    let got = simulation.send(100, 1);
    assert_eq!(got.len(), 2);
}

#[test]
fn where_all_are_left_alone_one_is_asked_and_its_answer_brings_it_back() {
    let mut simulation =
        Simulation::new(&settings(), None, &even(1)).behaving(|_, _| (1, Outcome::TimedOut));
    simulation.send(5, 1);
    assert_eq!(simulation.out(), 1);
    let mut before = simulation.balancer.pick(&[], simulation.now).unwrap();
    simulation.wait(1);
    simulation = simulation.behaving(|_, _| (1, OK));
    simulation.events.clear();
    simulation.send(1, 1);
    assert_eq!(simulation.events, [Event::Returned { id: Id::from("i0") }]);
    assert_eq!(simulation.out(), 0);
    // A failure of before it came back is not held against it.
    assert_eq!(before.answered(Outcome::TimedOut, simulation.now), None);
    assert_eq!(simulation.out(), 0);
}

#[test]
fn what_was_tried_is_tried_again_only_when_nothing_else_is_left() {
    let balancer = Balancer::seeded(&settings(), None, 1);
    let now = Instant::now();
    balancer.update(&even(3), now);
    let ids: Vec<_> = (0..3).map(|n| Id::from(format!("i{n}").as_str())).collect();
    for _ in 0..100 {
        let picked = balancer.pick(&ids[..2], now).unwrap();
        assert_eq!(picked.id(), &ids[2]);
        assert!(balancer.pick(&ids, now).is_some());
    }
}

#[test]
fn near_instances_are_preferred_while_enough_of_them_are_well() {
    let zones = [
        Some("a"),
        Some("a"),
        Some("a"),
        Some("a"),
        Some("b"),
        Some("b"),
        None,
    ];
    let instances: Vec<_> = (0..).zip(zones).map(|(n, z)| instance(n, 1, z)).collect();
    let near = |got: &HashMap<u16, f64>| (0..4).filter_map(|n| got.get(&n)).sum::<f64>();
    let mut settings = settings();
    settings.outlier.consecutive_failures = 1;
    let mut simulation = Simulation::new(&settings, Some("a"), &instances);
    assert_eq!(near(&simulation.send(1_000, 8)), 1_000.0);
    let dead = |count: u16| {
        move |n, _| {
            if n < count {
                (1, Outcome::NotSent)
            } else {
                (10, OK)
            }
        }
    };
    // Three of four are well, which is enough; two are not.
    simulation = simulation.behaving(dead(1));
    simulation.send(100, 1);
    assert_eq!((simulation.out(), near(&simulation.send(50, 1))), (1, 50.0));
    simulation = simulation.behaving(dead(2));
    simulation.send(100, 1);
    assert_eq!(simulation.out(), 2);
    let got = simulation.send(100, 1);
    assert!((50.0..90.0).contains(&near(&got)), "{got:?}");
    // Where all are left alone, far ones are asked as well.
    let mut everywhere = Simulation::new(
        &config::Settings {
            outlier: config::Outlier {
                max_ejected_percent: 100,
                ..settings.outlier.clone()
            },
            ..settings.clone()
        },
        Some("a"),
        &instances,
    )
    .behaving(dead(7));
    everywhere.send(100, 1);
    assert_eq!(everywhere.out(), 7);
    let got = everywhere.send(700, 1);
    assert!(close(near(&got), 400.0), "{got:?}");
    // A far one rather than one that was tried.
    let tried: Vec<_> = (0..4).map(|n| Id::from(format!("i{n}").as_str())).collect();
    let picked = simulation.balancer.pick(&tried, simulation.now).unwrap();
    assert!(picked.address().port() >= 1_004);
    for (zone, prefer_local) in [(None, true), (Some("c"), true), (Some("a"), false)] {
        settings.balance.prefer_local = prefer_local;
        let got = Simulation::new(&settings, zone, &instances).send(7_000, 1);
        assert!(close(near(&got), 4_000.0), "{got:?}");
    }
}

#[test]
fn a_new_instance_starts_slowly_and_the_first_ones_do_not() {
    let mut simulation = Simulation::new(&config::Settings::default(), None, &even(2));
    let first = simulation.send(100, 1);
    assert!(close(first[&0], 50.0), "{first:?}");
    simulation.balancer.update(&even(3), simulation.now);
    let early = simulation.send(100, 1);
    assert!(early.get(&2).copied().unwrap_or(0.0) < 15.0, "{early:?}");
    simulation.wait(10_000);
    let late = simulation.send(3_000, 1);
    assert!(close(late[&2], 1_000.0), "{late:?}");
}

#[test]
fn who_stays_keeps_what_was_measured() {
    let mut simulation = Simulation::new(&settings(), None, &even(2))
        .behaving(|n, _| (if n == 0 { 500 } else { 5 }, OK));
    simulation.send(100, 1);
    let mut held = simulation.balancer.pick(&[], simulation.now).unwrap();
    // Its weight changes, its address does not.
    let mut instances = even(2);
    instances[0].weight = 2;
    simulation.balancer.update(&instances, simulation.now);
    let got = simulation.send(200, 1);
    assert!(got.get(&0).copied().unwrap_or(0.0) < 10.0, "{got:?}");
    // Another address is another instance.
    instances[0].address.set_port(2_000);
    simulation.balancer.update(&instances, simulation.now);
    let picked = simulation
        .balancer
        .pick(&[Id::from("i1")], simulation.now)
        .unwrap();
    assert_eq!(picked.address().port(), 2_000);
    assert_eq!(held.answered(OK, simulation.now), None);
}

#[test]
fn one_whose_clients_give_up_is_not_preferred() {
    let balancer = Balancer::seeded(&settings(), None, 1);
    let now = Instant::now();
    balancer.update(&even(2), now);
    for _ in 0..20 {
        let picked = balancer.pick(&[], now).unwrap();
        if picked.address().port() == 1_001 {
            picked.finished(OK, now + Duration::from_millis(1));
            continue;
        }
        drop(picked);
    }
    let Some(long_ago) = now.checked_sub(Duration::from_secs(3)) else {
        return;
    };
    drop(balancer.pick(&[Id::from("i1")], long_ago).unwrap());
    let later = Instant::now();
    for _ in 0..20 {
        let picked = balancer.pick(&[], later).unwrap();
        assert_eq!(picked.address().port(), 1_001);
        picked.finished(OK, later + Duration::from_millis(1));
    }
}

#[test]
fn many_threads_leave_nothing_under_way() {
    let balancer = Balancer::new(&config::Settings::default(), None);
    balancer.update(&even(5), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..4_u16 {
            let balancer = balancer.clone();
            scope.spawn(move || {
                for n in 0..2_000_u16 {
                    let now = Instant::now();
                    let picked = balancer.pick(&[], now).unwrap();
                    let failed = picked.address().port() == 1_000;
                    picked.finished(if failed { Outcome::BrokeOff } else { OK }, now);
                    if n % 500 == 0 {
                        balancer.update(&even(3 + thread), now);
                    }
                }
            });
        }
    });
    balancer.update(&even(5), Instant::now());
    let busy: u32 = balancer
        .0
        .members()
        .iter()
        .map(|m| m.endpoint.under_way())
        .sum();
    assert_eq!(busy, 0);
}
