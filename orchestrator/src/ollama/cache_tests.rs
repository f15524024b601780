//! What is kept, found again, and dropped.

use super::*;
use crate::config::Agent;
use crate::planner::check;
use crate::planner::draft::Draft;
use prometheus::Registry;
use serde_json::{Value, json};

const BOUNDS: Bounds = Bounds {
    max_steps: 10,
    max_width: 5,
};

fn agents(description: &str) -> Catalog {
    Catalog::new(vec![Agent {
        id: "a".parse().unwrap(),
        capabilities: vec!["x".to_owned()],
        description: description.to_owned(),
        queue_kind: None,
        concurrency: 1,
        resources: Default::default(),
        originators: None,
    }])
}

fn cache_of(config: &config::Ollama, catalog: &Catalog, bounds: Bounds) -> Arc<PlanCache> {
    let metrics = Arc::new(Metrics::new(&Registry::new()).unwrap());
    PlanCache::new(config, catalog, bounds, metrics).unwrap()
}

fn config() -> config::Ollama {
    config::Ollama::new("http://127.0.0.1:1", "m")
}

fn cache() -> Arc<PlanCache> {
    cache_of(&config(), &agents("one"), BOUNDS)
}

fn task(task_type: &str, payload: &Value) -> TaskRequest {
    let task = json!({"task": task_type, "payload": payload});
    TaskRequest::from_json(task.to_string().as_bytes()).unwrap()
}

fn plan(action: &str, source: PlanSource) -> CheckedPlan {
    let draft = json!({"execution_plan": [{"id": "s", "agent": "a", "action": action}]});
    let draft = Draft::from_json(&draft).unwrap();
    check::check(draft, source, &agents("one"), BOUNDS).unwrap()
}

#[test]
fn a_plan_is_found_for_the_same_kind_of_task_and_for_a_while() {
    let cache = cache();
    let first = task("x", &json!({"text": "hello", "n": 1}));
    assert!(cache.find(&first, None).is_none());
    cache.completed(&first, None, plan("read it", PlanSource::Ollama));
    let alike = task("x", &json!({"n": 2, "text": "other"}));
    let found = cache.find(&alike, None).unwrap();
    assert_eq!(found.plan.risks, [RISK]);
    assert_eq!(found.dag.len(), 1);
    for other in [
        task("y", &json!({"text": "hello", "n": 1})),
        task("x", &json!({"text": "hello"})),
        task("x", &json!({"text": 1, "n": 1})),
    ] {
        assert!(cache.find(&other, None).is_none(), "{other:?}");
    }
    let until = |cache: &PlanCache| cache.plans().peek(&cache.key(&first, None)).unwrap().until;
    let before = until(&cache);
    // One that was found is not kept anew, so it does not live for ever.
    cache.completed(&alike, None, cache.find(&alike, None).unwrap());
    assert_eq!(until(&cache), before);
    for (_, kept) in cache.plans().iter_mut() {
        kept.until = Instant::now();
    }
    assert!(cache.find(&first, None).is_none());
    assert!(cache.plans().is_empty());
}

#[test]
fn what_the_rules_made_or_what_speaks_of_values_is_not_kept() {
    let cache = cache();
    let first = task("x", &json!({"text": "hello"}));
    cache.completed(&first, None, plan("read it", PlanSource::Rules));
    cache.completed(&first, None, plan("translate hello", PlanSource::Ollama));
    assert!(cache.find(&first, None).is_none());
}

#[test]
fn a_plan_that_failed_is_forgotten_unless_any_would_have() {
    let cache = cache();
    let first = task("x", &json!({}));
    for (code, stays) in [
        ("agent_unreachable", true),
        ("cancelled", true),
        ("not_allowed", false),
        ("agent_status", false),
        ("unroutable", false),
    ] {
        cache.completed(&first, None, plan("read it", PlanSource::Ollama));
        cache.failed(&first, None, Some(&StepError::new(code, "")));
        assert_eq!(cache.find(&first, None).is_some(), stays, "{code}");
    }
    cache.completed(&first, None, plan("read it", PlanSource::Ollama));
    cache.failed(&first, None, None);
    assert!(cache.find(&first, None).is_none());
}

#[test]
fn other_agents_another_model_or_other_bounds_are_another_version() {
    let first = task("x", &json!({}));
    let wide = Bounds {
        max_width: 6,
        ..BOUNDS
    };
    let other = config::Ollama {
        model: "n".to_owned(),
        ..config()
    };
    let one = cache_of(&config(), &agents("one"), BOUNDS);
    assert_eq!(one.key(&first, None), cache().key(&first, None));
    for another in [
        cache_of(&config(), &agents("two"), BOUNDS),
        cache_of(&config(), &Catalog::new(Vec::new()), BOUNDS),
        cache_of(&config(), &agents("one"), wide),
        cache_of(&other, &agents("one"), BOUNDS),
    ] {
        assert_ne!(one.key(&first, None), another.key(&first, None));
    }
}

#[test]
fn as_many_plans_as_allowed_the_ones_not_asked_for_leave() {
    let mut small = config();
    small.cache.entries = 2;
    let cache = cache_of(&small, &agents("one"), BOUNDS);
    let [a, b, c] = ["a", "b", "c"].map(|kind| task(kind, &json!({})));
    cache.completed(&a, None, plan("go", PlanSource::Ollama));
    cache.completed(&b, None, plan("go", PlanSource::Ollama));
    assert!(cache.find(&a, None).is_some());
    cache.completed(&c, None, plan("go", PlanSource::Ollama));
    assert!(cache.find(&a, None).is_some() && cache.find(&c, None).is_some());
    assert!(cache.find(&b, None).is_none());
    small.cache.entries = 0;
    let metrics = Arc::new(Metrics::new(&Registry::new()).unwrap());
    assert!(PlanCache::new(&small, &agents("one"), BOUNDS, metrics).is_none());
}

#[test]
fn a_plan_whose_agents_were_chosen_by_their_load_is_not_kept() {
    let cache = cache();
    let request = task("x", &json!({}));
    let mut chosen = plan("read it", PlanSource::Ollama);
    let assignment = json!({"capability": "x", "chosen": "a", "why": "soonest"});
    chosen.plan.execution_plan[0].assignment = serde_json::from_value(assignment).unwrap();
    cache.completed(&request, None, chosen);
    assert!(cache.find(&request, None).is_none());
}

#[test]
fn nobody_is_given_a_plan_of_another_originator_or_has_it_taken_away() {
    let owner = |origin: &str, sub: &str| {
        Some(Owner {
            origin: origin.to_owned(),
            sub: sub.to_owned(),
        })
    };
    let all = [
        None,
        owner("i", "a"),
        owner("i", "b"),
        owner("j", "a"),
        owner("ia", ""),
        owner("", ""),
    ];
    let request = task("x", &json!({"text": "hello"}));
    for one in &all {
        let cache = cache();
        let plan = plan("do as I was told", PlanSource::Ollama);
        cache.completed(&request, one.as_ref(), plan);
        for other in all.iter().filter(|other| *other != one) {
            assert!(
                cache.find(&request, other.as_ref()).is_none(),
                "{one:?} {other:?}"
            );
            cache.failed(&request, other.as_ref(), None);
        }
        assert!(cache.find(&request, one.as_ref()).is_some(), "{one:?}");
    }
}
