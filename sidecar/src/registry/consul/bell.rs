//! One question that tells many waiters when to look again.
//!
//! A blocking query holds a connection, and Consul takes 200 of one address by default
//! (`limits.http_max_conns_per_client`), which all sidecars of a machine share. So one sidecar holds a bounded
//! number of them, and who follows more services than that waits here: a single query blocks on the checks of
//! the whole catalogue, with a filter that no check passes, so that its answers are empty whatever it says.
//! When it returns, something changed somewhere, and all who wait look at their own service.
//!
//! What changes no check (a weight, a tag) does not ring; it is seen when the wait of a question is over.

use crate::api::consul::Agent;
use crate::registry::RegistryError;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

/// Least time between two rings: a mesh that starts changes a hundred times a second.
const PAUSE: Duration = Duration::from_millis(200);
/// Holds for no check.
const NOTHING: (&str, &str) = ("filter", r#"Status == "none""#);

pub(super) struct Bell {
    rung: watch::Sender<u64>,
    /// Whoever holds it asks for all.
    rope: Mutex<Rope>,
}

#[derive(Default)]
struct Rope {
    /// Where the next question begins; `None` before the first and after an error.
    index: Option<u64>,
    next: Option<Instant>,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self {
            rung: watch::Sender::new(0),
            rope: Mutex::default(),
        }
    }

    /// Rings that came before are not heard.
    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.rung.subscribe()
    }

    /// Waits for the next ring, by `heard` or by asking: one of all who wait asks, and when it leaves, another.
    ///
    /// # Errors
    /// What the asking one was told; the others hear a ring, look, and are told the same.
    pub(super) async fn wait(
        &self,
        heard: &mut watch::Receiver<u64>,
        agent: &Agent,
    ) -> Result<(), RegistryError> {
        tokio::select! {
            biased;
            // The sender is in `self`.
            _ = heard.changed() => Ok(()),
            asked = self.ask(agent) => {
                // Its own ring; whoever rings from here on is heard, since the look comes after.
                heard.mark_unchanged();
                asked
            }
        }
    }

    async fn ask(&self, agent: &Agent) -> Result<(), RegistryError> {
        let mut rope = self.rope.lock().await;
        if let Some(next) = rope.next {
            sleep_until(next).await;
        }
        loop {
            const CHECKS: [&str; 4] = ["v1", "health", "state", "any"];
            // Boxed, since a thousand who wait are not a thousand who ask.
            let asked = Box::pin(async {
                let answer = match rope.index {
                    None => agent.get(&CHECKS, &[NOTHING]).await,
                    Some(index) => agent.get_after(&CHECKS, &[NOTHING], index).await,
                };
                answer?.success()
            })
            .await;
            let index = asked.as_ref().map_or(None, |answer| answer.index);
            if index.is_some() && index == rope.index {
                continue;
            }
            rope.index = index;
            rope.next = Some(Instant::now() + PAUSE);
            self.rung.send_modify(|rung| *rung += 1);
            return asked.map(drop).map_err(RegistryError::from);
        }
    }
}
