//! The suite that every backend passes: what announcing and finding rely on.
//!
//! A case gets a registry that may be shared with other cases, and uses services of its own name. What was
//! written may take a moment to be found: a registry of many machines is one.
//! [`registry_contract!`](crate::registry_contract) turns the cases into tests.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the cases run in tests only; their names say what holds"
)]

use super::{Health, Instance, Instances, Registered, Registry, RegistryError};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Makes a test of each case. `$make` is an `async fn() -> Arc<dyn Registry>`.
#[macro_export]
macro_rules! registry_contract {
    ($make:path) => {
        $crate::registry_contract! { $make:
            an_instance_is_found_as_it_was_registered, an_instance_is_critical_until_its_first_report,
            a_critical_instance_is_not_found, nobody_can_report_who_is_not_registered,
            who_deregisters_is_gone, deregistering_nobody_is_no_error,
            who_is_silent_is_gone_and_comes_back_with_a_word, who_reports_outlives_the_ttl,
            registering_again_replaces, a_question_waits_for_news, a_service_without_instances_has_an_index,
            instances_come_in_the_order_of_their_ids, services_are_named_once,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::registry::contract::$case(&*$make().await).await;
        }
    )*};
}

/// Far more than anything here takes, for a machine that is shared.
const GENEROUS: Duration = Duration::from_secs(60);
/// Longer than any case.
const LONG: Duration = Duration::from_secs(300);
/// A TTL that is waited for.
const SHORT: Duration = Duration::from_secs(2);

/// An instance `number` of `service`, with as little as can be.
pub fn instance(service: &str, number: u16) -> Registered {
    Registered {
        id: format!("{service}-{number}"),
        service: service.parse().unwrap(),
        address: SocketAddr::from(([127, 0, 0, 1], 20_000 + number)),
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weight: 1,
        ttl: LONG,
        forget_after: LONG,
    }
}

/// Registers and reports as passing.
pub async fn pass(registry: &dyn Registry, instance: &Registered) {
    registry.register(instance).await.unwrap();
    let passing = registry.report(&instance.id, &Health::Passing);
    passing.await.unwrap();
}

/// Follows `service` as its users do, until its instances are as wanted.
pub async fn found(
    registry: &dyn Registry,
    service: &str,
    wanted: impl Fn(&[Instance]) -> bool,
) -> Instances {
    let service = service.parse().unwrap();
    let followed = async {
        let mut after = None;
        loop {
            let instances = registry.instances(&service, after).await.unwrap();
            assert!(instances.index > 0, "an index is never 0");
            if wanted(&instances.list) {
                return instances;
            }
            after = (Some(instances.index) >= after).then_some(instances.index);
        }
    };
    match tokio::time::timeout(GENEROUS, followed).await {
        Ok(instances) => instances,
        Err(_) => panic!("waited in vain for instances of {service}"),
    }
}

fn ids(list: &[Instance]) -> Vec<&str> {
    list.iter().map(|instance| &*instance.id).collect()
}

pub async fn an_instance_is_found_as_it_was_registered(registry: &dyn Registry) {
    let whole = Registered {
        tags: vec!["mesh".to_owned()],
        meta: BTreeMap::from([
            ("capabilities".to_owned(), "a,b".to_owned()),
            ("version".to_owned(), "1.2".to_owned()),
        ]),
        weight: 7,
        address: "[::1]:20001".parse().unwrap(),
        ..instance("found-whole", 1)
    };
    pass(registry, &whole).await;
    let instances = found(registry, "found-whole", |list| list.len() == 1).await;
    let instance = instances.list.first().unwrap();
    assert_eq!(*instance.id, *whole.id);
    assert_eq!(instance.address, whole.address);
    assert_eq!(instance.weight, 7);
    assert_eq!(*instance.meta, whole.meta);
}

pub async fn an_instance_is_critical_until_its_first_report(registry: &dyn Registry) {
    let (quiet, loud) = (instance("first-report", 1), instance("first-report", 2));
    registry.register(&quiet).await.unwrap();
    pass(registry, &loud).await;
    let instances = found(registry, "first-report", |list| !list.is_empty()).await;
    assert_eq!(ids(&instances.list), ["first-report-2"]);
    let passing = registry.report(&quiet.id, &Health::Passing).await;
    passing.unwrap();
    found(registry, "first-report", |list| list.len() == 2).await;
}

pub async fn a_critical_instance_is_not_found(registry: &dyn Registry) {
    let one = instance("critical", 1);
    pass(registry, &one).await;
    found(registry, "critical", |list| list.len() == 1).await;
    // Whatever an agent answers becomes a reason: long, and with more than ASCII.
    let why = format!("agent answered 500: {}", "grün".repeat(5000));
    let critical = Health::Critical(why);
    registry.report(&one.id, &critical).await.unwrap();
    found(registry, "critical", <[_]>::is_empty).await;
    let passing = registry.report(&one.id, &Health::Passing);
    passing.await.unwrap();
    found(registry, "critical", |list| list.len() == 1).await;
}

pub async fn nobody_can_report_who_is_not_registered(registry: &dyn Registry) {
    for health in [Health::Passing, Health::Critical("gone".to_owned())] {
        let reported = registry.report("never-registered-1", &health).await;
        assert_eq!(reported, Err(RegistryError::Unknown));
    }
}

pub async fn who_deregisters_is_gone(registry: &dyn Registry) {
    let one = instance("leaving", 1);
    pass(registry, &one).await;
    found(registry, "leaving", |list| list.len() == 1).await;
    registry.deregister(&one.id).await.unwrap();
    let reported = registry.report(&one.id, &Health::Passing).await;
    assert_eq!(reported, Err(RegistryError::Unknown));
    found(registry, "leaving", <[_]>::is_empty).await;
}

pub async fn deregistering_nobody_is_no_error(registry: &dyn Registry) {
    registry.deregister("never-registered-2").await.unwrap();
}

pub async fn who_is_silent_is_gone_and_comes_back_with_a_word(registry: &dyn Registry) {
    let one = Registered {
        ttl: SHORT,
        ..instance("silent", 1)
    };
    pass(registry, &one).await;
    found(registry, "silent", |list| list.len() == 1).await;
    found(registry, "silent", <[_]>::is_empty).await;
    let passing = registry.report(&one.id, &Health::Passing);
    passing.await.unwrap();
    found(registry, "silent", |list| list.len() == 1).await;
}

pub async fn who_reports_outlives_the_ttl(registry: &dyn Registry) {
    let [quiet, loud] = [1, 2].map(|number| Registered {
        ttl: SHORT,
        ..instance("reporting", number)
    });
    pass(registry, &quiet).await;
    pass(registry, &loud).await;
    found(registry, "reporting", |list| list.len() == 2).await;
    let report = async {
        loop {
            let passing = registry.report(&loud.id, &Health::Passing);
            passing.await.unwrap();
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let instances = tokio::select! {
        () = report => unreachable!(),
        instances = found(registry, "reporting", |list| list.len() < 2) => instances,
    };
    assert_eq!(ids(&instances.list), ["reporting-2"]);
}

pub async fn registering_again_replaces(registry: &dyn Registry) {
    let one = instance("again", 1);
    pass(registry, &one).await;
    found(registry, "again", |list| list.len() == 1).await;
    let moved = Registered {
        address: "127.0.0.1:20009".parse().unwrap(),
        weight: 3,
        ..one
    };
    pass(registry, &moved).await;
    let instances = found(registry, "again", |list| {
        list.iter().any(|instance| instance.weight == 3)
    })
    .await;
    assert_eq!(ids(&instances.list), ["again-1"]);
    assert_eq!(instances.list.first().unwrap().address, moved.address);
}

pub async fn a_question_waits_for_news(registry: &dyn Registry) {
    let (one, two) = (instance("waiting", 1), instance("waiting", 2));
    pass(registry, &one).await;
    let before = found(registry, "waiting", |list| list.len() == 1).await;
    let (news, ()) = tokio::join!(
        wait(registry, "waiting", before.index, 2),
        pass(registry, &two)
    );
    assert!(news.index > before.index);
    assert_eq!(ids(&news.list), ["waiting-1", "waiting-2"]);
}

pub async fn a_service_without_instances_has_an_index(registry: &dyn Registry) {
    let one = instance("nobody", 1);
    let before = found(registry, "nobody", <[_]>::is_empty).await;
    let (news, ()) = tokio::join!(
        wait(registry, "nobody", before.index, 1),
        pass(registry, &one)
    );
    assert_eq!(ids(&news.list), ["nobody-1"]);
}

/// Asks for news beyond `after` until there are as many instances. An answer may come early, with what was known.
async fn wait(registry: &dyn Registry, service: &str, mut after: u64, count: usize) -> Instances {
    let service = service.parse().unwrap();
    loop {
        let answer = registry.instances(&service, Some(after)).await.unwrap();
        if answer.list.len() == count {
            return answer;
        }
        after = answer.index;
    }
}

pub async fn instances_come_in_the_order_of_their_ids(registry: &dyn Registry) {
    for number in [3, 1, 2] {
        pass(registry, &instance("order", number)).await;
    }
    let instances = found(registry, "order", |list| list.len() == 3).await;
    assert_eq!(ids(&instances.list), ["order-1", "order-2", "order-3"]);
}

pub async fn services_are_named_once(registry: &dyn Registry) {
    // A critical instance makes a service, too.
    registry.register(&instance("named", 1)).await.unwrap();
    pass(registry, &instance("named", 2)).await;
    found(registry, "named", |list| !list.is_empty()).await;
    let names = registry.services().await.unwrap();
    let named = names.iter().filter(|name| name.as_str() == "named");
    assert_eq!(named.count(), 1);
    assert!(names.is_sorted());
}
