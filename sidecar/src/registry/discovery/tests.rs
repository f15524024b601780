//! A registry that fails as it is told to.

use super::{Discovery, Known, MAX_SERVICES, State, Times};
use crate::config::ServiceName;
use crate::registry::contract::{instance, pass};
use crate::registry::{Health, Instances, Memory, Metrics, Registered, Registry, RegistryError};
use async_trait::async_trait;
use mesh_tests::{wait_for, within};
use prometheus::{Encoder, TextEncoder};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The memory registry behind a fault, and the questions it was asked.
struct Faulty {
    memory: Mutex<Arc<Memory>>,
    fault: watch::Sender<Option<RegistryError>>,
    asked: AtomicUsize,
    afters: Mutex<Vec<Option<u64>>>,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Mutex::new(Memory::new()),
            fault: watch::Sender::new(None),
            asked: AtomicUsize::new(0),
            afters: Mutex::default(),
        })
    }

    fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.lock().unwrap())
    }

    fn away(&self, why: &str) {
        let error = RegistryError::Away(why.to_owned());
        self.fault.send_replace(Some(error));
    }

    /// Comes back with nothing in it, and an index of its own.
    fn comes_back_empty(&self) {
        *self.memory.lock().unwrap() = Memory::new();
        self.fault.send_replace(None);
    }
}

#[async_trait]
impl Registry for Faulty {
    async fn register(&self, instance: &Registered) -> Result<(), RegistryError> {
        self.memory().register(instance).await
    }

    async fn report(&self, id: &str, health: &Health) -> Result<(), RegistryError> {
        self.memory().report(id, health).await
    }

    async fn deregister(&self, id: &str) -> Result<(), RegistryError> {
        self.memory().deregister(id).await
    }

    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.afters.lock().unwrap().push(after);
        let (memory, mut fault) = (self.memory(), self.fault.subscribe());
        tokio::select! {
            biased;
            failed = fault.wait_for(Option::is_some) => Err(failed.unwrap().clone().unwrap()),
            found = memory.instances(service, after) => found,
        }
    }

    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError> {
        self.memory().services().await
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

struct Setup {
    registry: Arc<Faulty>,
    discovery: Discovery,
    metrics: prometheus::Registry,
}

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn setup() -> Setup {
    patient(Times::default())
}

fn patient(times: Times) -> Setup {
    let (registry, metrics) = (Faulty::new(), prometheus::Registry::new());
    let counted = Metrics::register(&metrics, &name("self")).unwrap();
    Setup {
        discovery: Discovery::with_times(Arc::<Faulty>::clone(&registry), counted, times),
        registry,
        metrics,
    }
}

impl Setup {
    /// Waits for `more` questions.
    async fn asked(&self, more: usize) {
        let until = self.registry.asked.load(Ordering::Relaxed) + more;
        wait_for("questions", || async {
            self.registry.asked.load(Ordering::Relaxed) >= until
        })
        .await;
    }

    fn metric(&self, name: &str) -> f64 {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.metrics.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

type Watch = watch::Receiver<Arc<Known>>;

async fn until(watch: &mut Watch, what: &str, wanted: impl Fn(&Known) -> bool) -> Arc<Known> {
    let waited = watch.wait_for(|known| wanted(known));
    Arc::clone(&within(what, waited).await.unwrap())
}

async fn numbers(watch: &mut Watch, count: usize) -> Arc<Known> {
    let what = format!("{count} instances");
    until(watch, &what, |known| {
        known.state == State::Fresh && known.instances.len() == count
    })
    .await
}

fn stale(known: &Known) -> bool {
    matches!(known.state, State::Stale { .. })
}

#[tokio::test]
async fn what_changes_is_heard() {
    let setup = setup();
    let mut watch = setup.discovery.watch(&name("a"));
    assert_eq!(watch.borrow().state, State::Unanswered { why: None });
    numbers(&mut watch, 0).await;
    for number in 1..=3 {
        let registry = setup.registry.memory();
        pass(&*registry, &instance("a", number)).await;
        numbers(&mut watch, usize::from(number)).await;
    }
    // A second user of the service has it at once.
    let again = setup.discovery.watch(&name("a"));
    assert_eq!(again.borrow().instances.len(), 3);
    assert_eq!(setup.metric("sidecar_registry_watched_services"), 1.0);
    assert_eq!(setup.metric("sidecar_registry_instances"), 3.0);
    assert_eq!(setup.metric("sidecar_registry_up"), 1.0);
    let shown = setup.discovery.shown();
    assert_eq!(shown["a"]["state"], "fresh");
    assert_eq!(shown["a"]["instances"][2]["id"], "a-3");
    setup.discovery.close().await;
    assert_eq!(setup.metric("sidecar_registry_watched_services"), 0.0);
    assert_eq!(setup.metric("sidecar_registry_instances"), 0.0);
}

#[tokio::test]
async fn a_registry_that_never_answered_says_why() {
    let setup = setup();
    setup.registry.away("connection refused");
    let mut watch = setup.discovery.watch(&name("a"));
    let known = until(&mut watch, "a reason", |known| {
        matches!(known.state, State::Unanswered { why: Some(_) })
    })
    .await;
    let why = Some("registry is away: connection refused".to_owned());
    assert_eq!(known.state, State::Unanswered { why });
    assert_eq!(setup.metric("sidecar_registry_up"), 0.0);
    assert!(setup.metric("sidecar_registry_age_seconds") > 0.0);
    let line = r#"sidecar_registry_errors_total{agent="self",kind="away",operation="instances"}"#;
    assert!(setup.metric(line) >= 1.0);
    assert_eq!(setup.discovery.shown()["a"]["state"], "unanswered");
}

#[tokio::test]
async fn the_last_known_are_served_while_the_registry_is_away() {
    let setup = setup();
    let registry = setup.registry.memory();
    pass(&*registry, &instance("a", 1)).await;
    let mut watch = setup.discovery.watch(&name("a"));
    numbers(&mut watch, 1).await;
    assert_eq!(setup.metric("sidecar_registry_age_seconds"), 0.0);
    setup.registry.away("gone");
    let known = until(&mut watch, "stale", stale).await;
    assert_eq!(known.instances.len(), 1);
    let State::Stale { why, .. } = &known.state else {
        unreachable!()
    };
    assert_eq!(why, "registry is away: gone");
    watch.mark_unchanged();
    setup.asked(3).await;
    // Nobody is woken to hear the same.
    assert!(!watch.has_changed().unwrap());
    assert!(setup.metric("sidecar_registry_age_seconds") > 0.0);
    let shown = setup.discovery.shown();
    assert_eq!(shown["a"]["state"], "stale");
    assert_eq!(shown["a"]["instances"].as_array().unwrap().len(), 1);
    setup.registry.fault.send_replace(None);
    numbers(&mut watch, 1).await;
    assert_eq!(setup.metric("sidecar_registry_age_seconds"), 0.0);
}

/// Three instances, known, and then a registry that is killed and comes back empty.
async fn restarted_empty(grace: Duration) -> (Setup, Watch) {
    let setup = patient(Times {
        grace,
        ..Times::default()
    });
    let registry = setup.registry.memory();
    for number in 1..=3 {
        pass(&*registry, &instance("a", number)).await;
    }
    let mut watch = setup.discovery.watch(&name("a"));
    numbers(&mut watch, 3).await;
    setup.registry.away("killed");
    until(&mut watch, "stale", stale).await;
    setup.registry.comes_back_empty();
    (setup, watch)
}

#[tokio::test]
async fn a_registry_that_was_restarted_empty_drops_nobody_at_once() {
    let (setup, mut watch) = restarted_empty(LONG).await;
    numbers(&mut watch, 3).await;
    let registry = setup.registry.memory();
    for number in 3..=4 {
        pass(&*registry, &instance("a", number)).await;
    }
    numbers(&mut watch, 4).await;
    // An index of before would have blocked on a registry that began anew.
    let afters = setup.registry.afters.lock().unwrap().clone();
    assert!(afters.iter().filter(|after| after.is_none()).count() >= 2);
}

#[tokio::test]
async fn who_does_not_come_back_is_dropped_in_the_end() {
    let (setup, mut watch) = restarted_empty(Duration::from_millis(500)).await;
    let registry = setup.registry.memory();
    pass(&*registry, &instance("a", 2)).await;
    let known = numbers(&mut watch, 1).await;
    assert_eq!(&*known.instances[0].id, "a-2");
}

#[tokio::test]
async fn what_others_found_out_counts_as_an_outage() {
    // A registry that stands still lets all times run out: a question that waits anyway does not notice.
    let setup = patient(Times {
        grace: LONG,
        ..Times::default()
    });
    let registry = setup.registry.memory();
    let one = Registered {
        ttl: Duration::from_millis(300),
        ..instance("a", 1)
    };
    pass(&*registry, &one).await;
    let mut watch = setup.discovery.watch(&name("a"));
    numbers(&mut watch, 1).await;
    // Its own question waits in the memory; another one fails.
    let failed: Result<(), _> = Err(RegistryError::Away("no answer".to_owned()));
    let report = crate::registry::metrics::Operation::Report;
    setup.discovery.0.metrics.heard(report, &failed);
    // Asked again: the time ran out, and the answer that there is nobody was taken.
    setup.asked(1).await;
    let found = registry.instances(&name("a"), None).await.unwrap();
    assert!(found.list.is_empty());
    assert_eq!(watch.borrow().instances.len(), 1);
    setup.discovery.close().await;
}

/// Answers from a script, each at once, and the last one for ever.
struct Script {
    indices: Vec<u64>,
    afters: Mutex<Vec<Option<u64>>>,
}

#[async_trait]
impl Registry for Script {
    async fn register(&self, _: &Registered) -> Result<(), RegistryError> {
        unreachable!()
    }
    async fn report(&self, _: &str, _: &Health) -> Result<(), RegistryError> {
        unreachable!()
    }
    async fn deregister(&self, _: &str) -> Result<(), RegistryError> {
        unreachable!()
    }
    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError> {
        unreachable!()
    }
    async fn instances(
        &self,
        _: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        let mut afters = self.afters.lock().unwrap();
        let index = self.indices.get(afters.len()).or(self.indices.last());
        afters.push(after);
        Ok(Instances {
            index: *index.unwrap(),
            list: Vec::new(),
        })
    }
}

#[tokio::test]
async fn an_index_that_goes_back_means_asking_anew() {
    let script = Arc::new(Script {
        indices: vec![7, 9, 4, 4, 5],
        afters: Mutex::default(),
    });
    let metrics = Metrics::register(&prometheus::Registry::new(), &name("self")).unwrap();
    let discovery = Discovery::new(Arc::<Script>::clone(&script), metrics);
    let _watch = discovery.watch(&name("a"));
    wait_for("six questions", || async {
        script.afters.lock().unwrap().len() >= 6
    })
    .await;
    let afters = script.afters.lock().unwrap()[..6].to_vec();
    assert_eq!(afters, [None, Some(7), Some(9), None, Some(4), Some(5)]);
    discovery.close().await;
}

#[tokio::test]
async fn a_service_that_nobody_uses_is_given_up_after_a_while() {
    let setup = patient(Times {
        idle: Duration::from_millis(50),
        ..Times::default()
    });
    let followed = || setup.metric("sidecar_registry_watched_services");
    drop(setup.discovery.watch(&name("a")));
    wait_for("it to be given up", || async { followed() == 0.0 }).await;
    assert_eq!(setup.discovery.shown(), serde_json::json!({}));
    // And is followed again when it is used again.
    let registry = setup.registry.memory();
    pass(&*registry, &instance("a", 1)).await;
    let mut watch = setup.discovery.watch(&name("a"));
    numbers(&mut watch, 1).await;
    assert_eq!(followed(), 1.0);
    setup.discovery.close().await;
}

#[tokio::test]
async fn no_more_services_are_followed_than_can_be() {
    let setup = setup();
    let all: Vec<_> = (0..MAX_SERVICES)
        .map(|number| setup.discovery.watch(&name(&format!("s{number}"))))
        .collect();
    let beyond = setup.discovery.watch(&name("beyond"));
    let known = Arc::clone(&beyond.borrow());
    let State::Unanswered { why: Some(why) } = &known.state else {
        panic!("{known:?}")
    };
    assert!(why.contains("4096"), "{why}");
    // One that nobody uses makes room.
    drop(all);
    let registry = setup.registry.memory();
    pass(&*registry, &instance("beyond", 1)).await;
    let mut watch = setup.discovery.watch(&name("beyond"));
    numbers(&mut watch, 1).await;
    setup.discovery.close().await;
    assert_eq!(setup.metric("sidecar_registry_watched_services"), 0.0);
}
