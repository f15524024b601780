//! One service, as one thread sees it: who may be asked, and the connections to them.

use super::Mesh;
use super::connect::{Ground, Security, Target};
use super::interim::{Discovery, Known, State};
use super::metrics::{Directed, PeerCounts};
use crate::config::{ServiceName, Settings};
use http::HeaderValue;
use http::uri::Authority;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) settings: Settings,
    pub(crate) counts: Arc<PeerCounts>,
    pub(crate) authority: Authority,
    pub(crate) host: HeaderValue,
    known: watch::Receiver<Arc<Known>>,
    next: AtomicUsize,
    targets: Mutex<HashMap<SocketAddr, Arc<Target>>>,
    mesh: Mesh,
    max_head: usize,
    ground: Ground,
}

impl Service {
    pub(crate) fn new(
        name: ServiceName,
        settings: Settings,
        discovery: &Discovery,
        metrics: &Directed,
        mesh: Mesh,
        max_head: usize,
        ground: Ground,
    ) -> Self {
        Self {
            known: discovery.watch(&name),
            counts: metrics.peer(&name),
            authority: Authority::try_from(name.as_str()).unwrap_or(Authority::from_static("mesh")),
            host: HeaderValue::try_from(name.as_str()).unwrap_or(HeaderValue::from_static("mesh")),
            name,
            settings,
            next: AtomicUsize::new(0),
            targets: Mutex::default(),
            mesh,
            max_head,
            ground,
        }
    }

    pub(crate) async fn answered(&self) {
        let mut known = self.known.clone();
        let _ = known
            .wait_for(|known| !matches!(known.state, State::Unanswered))
            .await;
    }

    pub(crate) fn pick(&self) -> Option<Arc<Target>> {
        let known = Arc::clone(&self.known.borrow());
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let instance = known.instances.get(n % known.instances.len().max(1))?;
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(targets.entry(instance.address).or_insert_with(
            || {
                Arc::new(Target::new(
                    instance.address,
                    Security::Mutual {
                        identity: self.mesh.identity.clone(),
                        service: self.name.clone(),
                    },
                    Duration::from_millis(self.settings.connect_timeout_ms),
                    self.max_head,
                    self.ground.clone(),
                ))
            },
        )))
    }

    pub(crate) fn sweep(&self, now: tokio::time::Instant) -> usize {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.values().map(|t| t.sweep(now)).sum()
    }
}
