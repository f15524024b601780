//! What the tests begin with.

use mesh_sidecar::config;
use mesh_sidecar::registry::{
    Announcement, Announcer, Consul, Discovery, Health, Instance, Known, Metrics, Registered,
    Registry, State,
};
use mesh_tests::within;
use prometheus::{Encoder, TextEncoder};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub fn at(url: &str) -> Arc<dyn Registry> {
    Arc::new(Consul::new(&config::Consul::at(url)).unwrap())
}

/// Metrics, and where they are seen.
pub fn metrics() -> (prometheus::Registry, Arc<Metrics>) {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry, &"self".parse().unwrap()).unwrap();
    (registry, metrics)
}

/// The value of a line that begins with `line`.
pub fn metric(registry: &prometheus::Registry, line: &str) -> f64 {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let found = text.lines().find(|found| found.starts_with(line));
    let found = found.unwrap_or_else(|| panic!("no {line} in {text}"));
    found.rsplit(' ').next().unwrap().parse().unwrap()
}

/// An announcer at work.
pub struct Announced {
    pub announcement: Announcement,
    pub health: watch::Sender<Health>,
    pub metrics: prometheus::Registry,
    pub counted: Arc<Metrics>,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<()>,
}

impl Announced {
    pub fn start(registry: &Arc<dyn Registry>, instance: Registered) -> Self {
        let (seen, counted) = metrics();
        let health = watch::Sender::new(Health::Passing);
        let announcer = Announcer::new(
            Arc::clone(registry),
            instance,
            health.subscribe(),
            Arc::clone(&counted),
        );
        let (announcement, shutdown) = (announcer.announcement(), CancellationToken::new());
        Self {
            announcement,
            health,
            metrics: seen,
            counted,
            shutdown: shutdown.clone(),
            running: tokio::spawn(announcer.run(shutdown)),
        }
    }

    pub async fn registered(&mut self) {
        within("the registration", self.announcement.registered()).await;
        assert_eq!(self.announcement.reason(), None);
    }

    pub async fn leave(self) {
        self.shutdown.cancel();
        within("the announcer", self.running).await.unwrap();
    }
}

pub type Watch = watch::Receiver<Arc<Known>>;

pub fn follow(registry: &Arc<dyn Registry>, service: &str) -> (Discovery, Watch) {
    let discovery = Discovery::new(Arc::clone(registry), metrics().1);
    let watch = discovery.watch(&service.parse().unwrap());
    (discovery, watch)
}

pub async fn until(watch: &mut Watch, what: &str, wanted: impl Fn(&Known) -> bool) -> Arc<Known> {
    let waited = watch.wait_for(|known| wanted(known));
    Arc::clone(&within(what, waited).await.unwrap())
}

/// Waits until the registry says that these are all.
pub async fn are(watch: &mut Watch, ids: &[&str]) -> Arc<Known> {
    until(watch, &format!("{ids:?}"), |known| {
        known.state == State::Fresh && self::ids(&known.instances) == ids
    })
    .await
}

pub fn ids(list: &[Instance]) -> Vec<&str> {
    list.iter().map(|instance| &*instance.id).collect()
}

pub fn stale(known: &Known) -> bool {
    matches!(known.state, State::Stale { .. })
}
