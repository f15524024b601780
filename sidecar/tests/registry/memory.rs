//! What the memory registry does sooner than a Consul, which forgets after a minute at the earliest.

use mesh_sidecar::registry::contract::{found, instance, pass};
use mesh_sidecar::registry::{Health, Memory, Registered, Registry, RegistryError};
use mesh_tests::wait_for;
use std::time::Duration;

#[tokio::test]
async fn who_is_critical_for_long_is_forgotten() {
    let registry = Memory::new();
    let brief = Registered {
        ttl: Duration::from_millis(100),
        forget_after: Duration::from_millis(100),
        ..instance("brief", 1)
    };
    let unwell = Registered {
        forget_after: Duration::from_millis(100),
        ..instance("unwell", 1)
    };
    pass(&*registry, &brief).await;
    pass(&*registry, &unwell).await;
    found(&*registry, "brief", <[_]>::is_empty).await;
    // A report that it is unwell is no reason to be remembered.
    wait_for("all to be forgotten", || async {
        let critical = Health::Critical("no".to_owned());
        let _ = registry.report("unwell-1", &critical).await;
        registry.services().await.unwrap().is_empty()
    })
    .await;
    let reported = registry.report("brief-1", &Health::Passing).await;
    assert_eq!(reported, Err(RegistryError::Unknown));
}

#[tokio::test]
async fn an_id_that_goes_to_another_service_leaves_the_first() {
    let registry = Memory::new();
    pass(&*registry, &instance("first", 1)).await;
    let before = found(&*registry, "first", |list| list.len() == 1).await;
    let moved = Registered {
        id: "first-1".to_owned(),
        ..instance("second", 1)
    };
    pass(&*registry, &moved).await;
    let service = "first".parse().unwrap();
    let after = registry.instances(&service, Some(before.index)).await;
    assert!(after.unwrap().list.is_empty());
}
