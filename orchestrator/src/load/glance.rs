//! How long the queues are, for those who cannot wait for the broker: what it said last, while it is asked again.

use super::Load;
use mesh_bus::Depth;
use mesh_protocol::AgentId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is younger is not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// What is older is rather waited for ...
const STALE: Duration = Duration::from_secs(3);
/// ... this long: a broker answers in milliseconds, and a plan can do without.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the broker said, and when.
#[derive(Debug, Default)]
pub struct Glance {
    /// Never, at first.
    pub at: Option<Instant>,
    /// By agent; without those of which it told nothing.
    pub queues: BTreeMap<AgentId, Depth>,
    /// Steps that were under way here then.
    pub under_way: BTreeMap<AgentId, u64>,
}

pub(super) struct Glances {
    seen: watch::Sender<Arc<Glance>>,
    asking: AtomicBool,
}

impl Default for Glances {
    fn default() -> Self {
        Self {
            seen: watch::Sender::new(Arc::default()),
            asking: AtomicBool::new(false),
        }
    }
}

impl Load {
    /// How long the queues are, as of the last second where somebody asks often; waits a tenth of a second at most.
    pub async fn glance(self: &Arc<Self>) -> Arc<Glance> {
        let seen = self.glances.seen.borrow().clone();
        let age = seen.at.map(|at| at.elapsed());
        if age.is_some_and(|age| age < FRESH) {
            return seen;
        }
        if !self.glances.asking.swap(true, Ordering::Relaxed) {
            let load = Arc::clone(self);
            tokio::spawn(async move {
                let queues = load.consumers.depths().await;
                let at = Some(Instant::now());
                let glance = Glance {
                    at,
                    queues,
                    under_way: load.begin_anew(),
                };
                load.glances.seen.send_replace(Arc::new(glance));
                load.glances.asking.store(false, Ordering::Relaxed);
            });
        }
        if age.is_some_and(|age| age < STALE) {
            return seen;
        }
        let mut heard = self.glances.seen.subscribe();
        let newer = heard.wait_for(|glance| glance.at > seen.at);
        match tokio::time::timeout(PATIENCE, newer).await {
            Ok(Ok(glance)) => Arc::clone(&glance),
            // Better nothing than what was true long ago.
            _ => Arc::default(),
        }
    }
}
