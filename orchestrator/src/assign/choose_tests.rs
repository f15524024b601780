//! The choice over all kinds of figures, and its single rules.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn known(agent: &str) -> Known {
    Known {
        agent: agent.parse().unwrap(),
        consumers: Some(1),
        concurrency: 1,
        queue: 0,
        service: None,
        quiet: Duration::ZERO,
        score: 1.0,
    }
}

fn timed(agent: &str, service: f64, queue: u64) -> Known {
    Known {
        service: Some(service),
        queue,
        ..known(agent)
    }
}

fn chosen(able: &[Known], sticky: Option<&str>) -> (String, Why) {
    let choice = choose(able, sticky, 0).unwrap();
    (able[choice.place].agent.to_string(), choice.why)
}

#[test]
fn the_one_that_finishes_first() {
    // 3 × 100 ms against 1 × 500 ms, then 6 × 100 ms.
    let slow = timed("slow", 500.0, 0);
    let able = |queue| [timed("quick", 100.0, queue), slow.clone()];
    assert_eq!(chosen(&able(2), None), ("quick".into(), Why::Soonest));
    assert_eq!(chosen(&able(6), None), ("slow".into(), Why::Soonest));
    let choice = choose(&able(6), None, 0).unwrap();
    assert_eq!(choice.expected, [Some(700.0), Some(500.0)]);
    // Ten lanes take ten at once.
    let wide = Known {
        consumers: Some(2),
        concurrency: 5,
        ..timed("quick", 100.0, 6)
    };
    assert_eq!(chosen(&[wide, slow], None).0, "quick");
}

#[test]
fn failures_cost_and_then_exclude() {
    let scored = |score| Known {
        score,
        ..timed("a", 100.0, 0)
    };
    let other = timed("b", 120.0, 0);
    assert_eq!(chosen(&[scored(1.0), other.clone()], None).0, "a");
    assert_eq!(chosen(&[scored(0.7), other.clone()], None).0, "b");
    // However quickly it fails, and however long the other takes.
    let fails = Known {
        service: Some(0.1),
        ..scored(0.49)
    };
    let slow = timed("b", 60_000.0, 500);
    assert_eq!(
        chosen(&[fails, slow.clone()], None),
        ("b".into(), Why::Soonest)
    );
    let nobody = Known {
        consumers: Some(0),
        ..timed("a", 1.0, 0)
    };
    assert_eq!(chosen(&[nobody.clone(), slow], None).0, "b");
    assert_eq!(
        chosen(&[nobody.clone(), scored(0.1)], None).1,
        Why::NoneUsable
    );
    assert_eq!(chosen(&[nobody], None).1, Why::Only);
    assert_eq!(choose(&[], None, 0), None);
}

#[test]
fn without_figures_all_take_turns_and_the_shortest_queue_goes_first() {
    let able = [known("a"), known("b"), known("c")];
    let mut times = BTreeMap::new();
    for turn in 0..300 {
        let choice = choose(&able, None, turn).unwrap();
        assert_eq!((choice.why, choice.expected[0]), (Why::Turn, None));
        *times.entry(choice.place).or_insert(0) += 1;
    }
    assert_eq!(times.into_values().collect::<Vec<_>>(), [100, 100, 100]);
    let behind = Known {
        queue: 3,
        ..known("a")
    };
    assert_eq!(chosen(&[behind, known("b")], None).0, "b");
}

#[test]
fn who_is_new_or_was_not_heard_of_is_tried() {
    // As quick as the quickest, until one knows better.
    let able = [timed("a", 100.0, 1), known("b")];
    assert_eq!(chosen(&able, None).0, "b");
    let old = Known {
        quiet: FADES * 20,
        ..timed("b", 5000.0, 0)
    };
    assert_eq!(
        chosen(&[timed("a", 100.0, 0), old.clone()], None).1,
        Why::Turn
    );
    let fresh = Known {
        quiet: Duration::ZERO,
        ..old
    };
    assert_eq!(chosen(&[timed("a", 100.0, 0), fresh], None).1, Why::Soonest);
}

#[test]
fn keys_stick_whatever_the_figures_and_fall_back() {
    let names = ["a", "b", "c", "d"];
    let able: Vec<Known> = names.iter().map(|n| known(n)).collect();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..2000 {
        let key = format!("user-{n}");
        let (home, why) = chosen(&able, Some(&key));
        assert_eq!(why, Why::Sticky);
        *times.entry(home.clone()).or_default() += 1;
        let with = |change: &dyn Fn(&mut Known)| {
            let mut able = able.clone();
            able.iter_mut()
                .filter(|k| k.agent.as_str() == home)
                .for_each(change);
            chosen(&able, Some(&key))
        };
        assert_eq!(with(&|k| k.queue = 10_000), (home.clone(), Why::Sticky));
        let (away, why) = with(&|k| k.consumers = Some(0));
        assert_eq!(why, Why::StickyFallback);
        assert_ne!(away, home);
        // One that leaves moves its own keys only, to where they fell back.
        let rest: Vec<Known> = able
            .iter()
            .filter(|k| k.agent.as_str() != home)
            .cloned()
            .collect();
        assert_eq!(chosen(&rest, Some(&key)).0, away);
        let fewer: Vec<Known> = able
            .iter()
            .filter(|k| k.agent.as_str() != away)
            .cloned()
            .collect();
        assert_eq!(chosen(&fewer, Some(&key)).0, home);
    }
    assert!(
        times.values().all(|&n| (400..600).contains(&n)),
        "{times:?}"
    );
}

fn any_known() -> impl Strategy<Value = Vec<Known>> {
    let one = (
        proptest::option::of(0u32..4),
        0u16..20,
        0u64..1000,
        proptest::option::of(0.0f64..10_000.0),
        0u64..1000,
        0.0f64..=1.0,
    );
    proptest::collection::vec(one, 1..8).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(
            |(n, (consumers, concurrency, queue, service, quiet, score))| Known {
                agent: format!("agent-{n}").parse().unwrap(),
                consumers,
                concurrency,
                queue,
                service,
                quiet: Duration::from_secs(quiet),
                score,
            },
        )
        .collect()
    })
}

proptest! {
    #[test]
    fn a_choice_is_sound(able in any_known(), key in proptest::option::of("[a-z]{1,8}"), turn in any::<u64>()) {
        let choice = choose(&able, key.as_deref(), turn).unwrap();
        prop_assert_eq!(&choice, &choose(&able, key.as_deref(), turn).unwrap());
        let chosen = &able[choice.place];
        let any_usable = able.iter().any(Known::is_usable);
        if able.len() > 1 {
            prop_assert_eq!(chosen.is_usable(), any_usable);
            prop_assert_eq!(choice.why == Why::NoneUsable, !any_usable);
        }
        prop_assert!(choice.costs.iter().all(|c| c.is_finite() && *c > 0.0));
        if key.is_none() && any_usable {
            let least = able.iter().zip(&choice.costs).filter(|(k, _)| k.is_usable()).map(|(_, c)| *c).reduce(f64::min);
            prop_assert!(choice.costs[choice.place] <= least.unwrap() * SAME || able.len() == 1);
        }
        // Whoever is first only gets better by a shorter queue.
        let mut better = able.clone();
        better[choice.place].queue = 0;
        if choice.why == Why::Soonest {
            let again = choose(&better, None, turn).unwrap();
            prop_assert_eq!(again.place, choice.place);
        }
    }
}
