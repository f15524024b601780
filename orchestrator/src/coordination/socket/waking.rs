//! What wakes sessions: the hub's word, and looking at who is there.

use super::Sockets;
use crate::coordination::hub::Wake;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Before the hub is listened to again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at who is there: a replica that died says nothing, its agents' presence runs out.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two looks, however many come and go.
const BREATH: Duration = Duration::from_millis(50);

/// Wakes those whose mailbox has changed.
pub(super) async fn listen(sockets: Arc<Sockets>) {
    let stopping = sockets.stopping.clone();
    let listening = async {
        loop {
            match sockets.hub.listen().await {
                Ok(mut wakes) => {
                    // What was not heard meanwhile.
                    sockets.wake_all();
                    sockets.changed.notify_one();
                    while let Some(wake) = wakes.next().await {
                        match wake {
                            Wake::Agent(agent) => sockets.wake(&agent),
                            Wake::Presence => sockets.changed.notify_one(),
                            Wake::All => {
                                sockets.wake_all();
                                sockets.changed.notify_one();
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "mailboxes are looked into, not listened to"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    stopping.run_until_cancelled(listening).await;
}

/// Looks who is there, for sessions to tell.
pub(super) async fn presence(sockets: Arc<Sockets>) {
    let stopping = sockets.stopping.clone();
    let looking = async {
        loop {
            tokio::select! {
                () = sockets.changed.notified() => tokio::time::sleep(BREATH).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = if sockets.sessions().is_empty() {
                // Whoever comes next is told of everyone.
                BTreeSet::new()
            } else {
                match sockets.hub.present().await {
                    Ok(now) => now,
                    Err(_) => continue,
                }
            };
            sockets.presence.send_if_modified(|before| {
                let changed = **before != now;
                *before = Arc::new(now);
                changed
            });
        }
    };
    stopping.run_until_cancelled(looking).await;
}
