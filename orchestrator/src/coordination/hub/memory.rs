//! The hub in this process: for one-process meshes and tests. Empty after a restart.

use super::{
    Agents, Bounds, Connections, Cursor, Hold, HubError, Letter, MAX_REGISTERED, Mailboxes, PAGE,
    Posted, REMEMBERED, Receivers, Registration, Taken, Wake, new_mailbox,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use mesh_protocol::AgentId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Wakes that a listener may be behind; then it looks at everything.
const BEHIND: usize = 1024;

/// The hub.
pub struct MemoryHub {
    bounds: Bounds,
    inner: Mutex<Inner>,
    wakes: broadcast::Sender<Wake>,
}

#[derive(Default)]
struct Inner {
    registered: BTreeMap<AgentId, Registration>,
    mailboxes: BTreeMap<AgentId, Mailbox>,
}

struct Mailbox {
    name: String,
    connection: String,
    present: bool,
    heard: Instant,
    /// The last letter that was put in.
    last: u64,
    letters: VecDeque<(u64, Bytes)>,
    bytes: u64,
    /// What its agent sent.
    sent: VecDeque<String>,
}

impl MemoryHub {
    /// Nobody is registered, nobody connected.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            inner: Mutex::default(),
            wakes: broadcast::Sender::new(BEHIND),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for mailbox in inner.mailboxes.values_mut() {
            mailbox.present &= now.duration_since(mailbox.heard) < self.bounds.presence();
        }
        inner
            .mailboxes
            .retain(|_, mailbox| now.duration_since(mailbox.heard) < self.bounds.life());
        inner
    }

    fn wake(&self, wake: Wake) {
        // Nobody listens, perhaps.
        let _heard = self.wakes.send(wake);
    }
}

impl Inner {
    fn held(&mut self, hold: &Hold) -> Result<&mut Mailbox, HubError> {
        let mailbox = self.mailboxes.get_mut(&hold.agent).ok_or(HubError::Gone)?;
        if mailbox.connection == hold.connection {
            Ok(mailbox)
        } else {
            Err(HubError::Replaced)
        }
    }
}

impl Mailbox {
    fn acknowledge(&mut self, upto: u64) {
        while let Some((number, body)) = self.letters.front()
            && *number <= upto
        {
            self.bytes = self.bytes.saturating_sub(size(body));
            self.letters.pop_front();
        }
    }

    fn before(&self) -> u64 {
        self.letters
            .front()
            .map_or(self.last, |(number, _)| number - 1)
    }

    fn depth(&self) -> u64 {
        u64::try_from(self.letters.len()).unwrap_or(u64::MAX)
    }

    fn takes(&self, letter: &Letter, bounds: &Bounds) -> bool {
        self.depth() < bounds.letters && self.bytes + size(&letter.body) <= bounds.bytes
    }
}

fn size(body: &Bytes) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Agents for MemoryHub {
    async fn register(
        &self,
        agent: &AgentId,
        registration: &Registration,
    ) -> Result<bool, HubError> {
        let mut inner = self.lock();
        let known = inner.registered.contains_key(agent);
        if !known && inner.registered.len() >= MAX_REGISTERED {
            return Ok(false);
        }
        inner.registered.insert(agent.clone(), registration.clone());
        Ok(true)
    }

    async fn is_registered(&self, agent: &AgentId) -> Result<bool, HubError> {
        Ok(self.lock().registered.contains_key(agent))
    }

    async fn registered(&self) -> Result<BTreeMap<AgentId, Registration>, HubError> {
        Ok(self.lock().registered.clone())
    }
}

#[async_trait]
impl Connections for MemoryHub {
    async fn take(&self, hold: &Hold, last: Option<&Cursor>) -> Result<Taken, HubError> {
        let mut inner = self.lock();
        let new = || Mailbox {
            name: new_mailbox(),
            connection: String::new(),
            present: false,
            heard: Instant::now(),
            last: 0,
            letters: VecDeque::new(),
            bytes: 0,
            sent: VecDeque::new(),
        };
        let mailbox = inner.mailboxes.entry(hold.agent.clone());
        let mailbox = mailbox.or_insert_with(new);
        mailbox.connection.clone_from(&hold.connection);
        mailbox.present = true;
        mailbox.heard = Instant::now();
        let resumed =
            last.filter(|last| last.mailbox == mailbox.name && last.letter <= mailbox.last);
        if let Some(last) = resumed {
            mailbox.acknowledge(last.letter);
        }
        let taken = Taken {
            cursor: Cursor {
                mailbox: mailbox.name.clone(),
                letter: mailbox.before(),
            },
            resumed: resumed.is_some(),
            waiting: mailbox.depth(),
        };
        drop(inner);
        self.wake(Wake::Agent(hold.agent.clone()));
        self.wake(Wake::Presence);
        Ok(taken)
    }

    async fn renew(&self, hold: &Hold) -> Result<(), HubError> {
        let mut inner = self.lock();
        let mailbox = inner.held(hold)?;
        mailbox.present = true;
        mailbox.heard = Instant::now();
        Ok(())
    }

    async fn leave(&self, hold: &Hold) -> Result<(), HubError> {
        let left = self
            .lock()
            .held(hold)
            .map(|mailbox| mailbox.present = false);
        if left.is_ok() {
            self.wake(Wake::Presence);
        }
        Ok(())
    }

    async fn present(&self) -> Result<BTreeSet<AgentId>, HubError> {
        let inner = self.lock();
        let present = inner
            .mailboxes
            .iter()
            .filter(|(_, mailbox)| mailbox.present);
        Ok(present.map(|(agent, _)| agent.clone()).collect())
    }
}

#[async_trait]
impl Mailboxes for MemoryHub {
    async fn post(&self, hold: &Hold, letter: &Letter) -> Result<Posted, HubError> {
        let mut inner = self.lock();
        if inner.held(hold)?.sent.contains(&letter.id) {
            return Ok(Posted::Repeated);
        }
        let to: Vec<AgentId> = match &letter.to {
            Receivers::One(agent) if !inner.mailboxes.contains_key(agent) => {
                return Ok(Posted::NoMailbox);
            }
            Receivers::One(agent) => vec![agent.clone()],
            Receivers::Others => {
                let others = inner.mailboxes.keys().filter(|agent| **agent != hold.agent);
                others.cloned().collect()
            }
        };
        let full = |agent: &&AgentId| {
            let mailbox = inner.mailboxes.get(*agent);
            mailbox.is_some_and(|mailbox| !mailbox.takes(letter, &self.bounds))
        };
        let full: Vec<AgentId> = to.iter().filter(full).cloned().collect();
        if !full.is_empty() {
            return Ok(Posted::Full(full));
        }
        let mut deepest = 0;
        for agent in &to {
            if let Some(mailbox) = inner.mailboxes.get_mut(agent) {
                mailbox.last += 1;
                mailbox.bytes += size(&letter.body);
                let place = (mailbox.last, letter.body.clone());
                mailbox.letters.push_back(place);
                deepest = deepest.max(mailbox.depth());
            }
        }
        let sent = &mut inner.held(hold)?.sent;
        sent.push_back(letter.id.clone());
        if sent.len() > REMEMBERED {
            sent.pop_front();
        }
        drop(inner);
        let receivers = u64::try_from(to.len()).unwrap_or(u64::MAX);
        to.into_iter()
            .for_each(|agent| self.wake(Wake::Agent(agent)));
        Ok(Posted::Stored { receivers, deepest })
    }

    async fn read(&self, hold: &Hold, after: u64) -> Result<Vec<(u64, Bytes)>, HubError> {
        let mut inner = self.lock();
        let letters = inner.held(hold)?.letters.iter();
        let new = letters.filter(|(number, _)| *number > after);
        Ok(new.take(PAGE).cloned().collect())
    }

    async fn acknowledge(&self, hold: &Hold, upto: u64) -> Result<u64, HubError> {
        let mut inner = self.lock();
        let mailbox = inner.held(hold)?;
        mailbox.acknowledge(upto);
        Ok(mailbox.depth())
    }

    async fn listen(&self) -> Result<BoxStream<'static, Wake>, HubError> {
        let wakes = stream::unfold(self.wakes.subscribe(), |mut wakes| async move {
            match wakes.recv().await {
                Ok(wake) => Some((wake, wakes)),
                Err(RecvError::Lagged(_)) => Some((Wake::All, wakes)),
                Err(RecvError::Closed) => None,
            }
        });
        Ok(wakes.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn passes_the_contract() {
        super::super::contract::all(async |bounds| {
            Arc::new(MemoryHub::new(bounds)) as Arc<dyn super::super::Hub>
        })
        .await;
    }
}
