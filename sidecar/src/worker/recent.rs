//! Which steps are at the agent, and what it answered lately, by idempotency key.
//!
//! A delivery can come again only while it is unsettled, so as many entries as there are places would
//! do for the broker. The table is larger for an orchestrator that starts again and sends out once
//! more what it has no result for. Beyond it the agent's own honouring of the key counts.

use super::invoke::Answer;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Most answers kept: what an orchestrator may have had under way at one agent when it stopped.
const MAX_ANSWERS: usize = 1024;
/// Most bytes of answers kept, so that large answers do not make a small process large.
const MAX_BYTES: usize = 8 * 1024 * 1024;

type Watched = watch::Receiver<Option<Arc<Answer>>>;

/// The table.
#[derive(Default)]
pub(super) struct Recent(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<Arc<str>, Entry>,
    /// Keys of answered entries, oldest first.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

enum Entry {
    AtAgent(Watched),
    Answered(Arc<Answer>),
}

/// What is known of a step.
pub(super) enum Known<'a> {
    /// Nothing: the caller is to ask the agent, and to say what came of it.
    No(Lead<'a>),
    /// Another delivery of it is at the agent.
    AtAgent(Watched),
    /// This.
    Answered(Arc<Answer>),
}

/// The right and the duty to ask the agent. Dropped without an answer, the next one may ask.
pub(super) struct Lead<'a> {
    recent: &'a Recent,
    key: Arc<str>,
    tell: watch::Sender<Option<Arc<Answer>>>,
    finished: bool,
}

impl Recent {
    // Every change below leaves the table whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known under `key`; nothing makes the caller the one who asks.
    pub(super) fn begin(&self, key: &str) -> Known<'_> {
        let mut table = self.table();
        match table.entries.get(key) {
            Some(Entry::AtAgent(watched)) => Known::AtAgent(watched.clone()),
            Some(Entry::Answered(answer)) => Known::Answered(Arc::clone(answer)),
            None => {
                let key: Arc<str> = key.into();
                let (tell, watched) = watch::channel(None);
                table
                    .entries
                    .insert(Arc::clone(&key), Entry::AtAgent(watched));
                Known::No(Lead {
                    recent: self,
                    key,
                    tell,
                    finished: false,
                })
            }
        }
    }
}

impl Lead<'_> {
    /// Tells whoever waits, and remembers an answer that the agent would give again.
    ///
    /// A failure of the moment is not remembered: the step may be sent again to be tried again.
    pub(super) fn finish(mut self, answer: &Arc<Answer>) {
        self.finished = true;
        let mut table = self.recent.table();
        if answer.lasting && answer.size() <= MAX_BYTES {
            table.keep(Arc::clone(&self.key), Arc::clone(answer));
        } else {
            table.entries.remove(&self.key);
        }
        drop(table);
        self.tell.send_replace(Some(Arc::clone(answer)));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.recent.table().entries.remove(&self.key);
        }
    }
}

impl Table {
    fn keep(&mut self, key: Arc<str>, answer: Arc<Answer>) {
        self.bytes += answer.size();
        self.entries
            .insert(Arc::clone(&key), Entry::Answered(answer));
        self.order.push_back(key);
        while self.order.len() > MAX_ANSWERS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(Entry::Answered(answer)) = self.entries.remove(&oldest) {
                self.bytes -= answer.size();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn answer(size: usize) -> Arc<Answer> {
        Arc::new(Answer::completed(Bytes::from(vec![b' '; size])))
    }

    fn lead<'a>(recent: &'a Recent, key: &str) -> Lead<'a> {
        match recent.begin(key) {
            Known::No(lead) => lead,
            _ => panic!("{key} is known"),
        }
    }

    #[test]
    fn one_asks_the_others_wait() {
        let recent = Recent::default();
        let first = lead(&recent, "a");
        let Known::AtAgent(watched) = recent.begin("a") else {
            panic!("not at the agent")
        };
        first.finish(&answer(1));
        assert!(watched.borrow().is_some());
        assert!(matches!(recent.begin("a"), Known::Answered(_)));
    }

    #[test]
    fn who_gives_up_makes_room() {
        let recent = Recent::default();
        drop(lead(&recent, "a"));
        drop(lead(&recent, "a"));
    }

    #[test]
    fn the_table_is_bounded_by_number_and_size() {
        let recent = Recent::default();
        for n in 0..MAX_ANSWERS * 2 {
            lead(&recent, &n.to_string()).finish(&answer(1));
        }
        assert_eq!(recent.table().entries.len(), MAX_ANSWERS);
        assert!(matches!(recent.begin("0"), Known::No(_)));
        for n in 0..40 {
            lead(&recent, &format!("large-{n}")).finish(&answer(MAX_BYTES / 10));
        }
        let table = recent.table();
        assert!(table.bytes <= MAX_BYTES);
        let kept = |e: &Entry| match e {
            Entry::Answered(a) => a.size(),
            Entry::AtAgent(_) => 0,
        };
        assert_eq!(table.entries.values().map(kept).sum::<usize>(), table.bytes);
        drop(table);
        lead(&recent, "huge").finish(&answer(MAX_BYTES + 1));
        assert!(matches!(recent.begin("huge"), Known::No(_)));
    }
}
