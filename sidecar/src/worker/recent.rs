//! Which steps are at the agent, and what it answered lately, by idempotency key.
//!
//! A delivery can come again only while it is unsettled, so as many entries as there are places would
//! do for the broker. The table is larger for an orchestrator that starts again and sends out once
//! more what it has no result for. Beyond it the agent's own honouring of the key counts. With a journal it outlives
//! the process: an answer is in there before anybody hears of it.

use super::invoke::{Answer, Answered};
use super::journal::Journal;
use mesh_protocol::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Most answers kept: what an orchestrator may have had under way at one agent when it stopped.
pub(super) const MAX_ANSWERS: usize = 1024;
/// Most bytes of answers kept, so that large answers do not make a small process large.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long an answer is kept: as long as a task can last, after which no step of it is sent.
pub(super) const MAX_AGE: Duration = Duration::from_secs(86_400);

type Watched = watch::Receiver<Option<Arc<Answer>>>;

/// The table.
#[derive(Default)]
pub(super) struct Recent {
    table: Mutex<Table>,
    journal: Option<Arc<Mutex<Journal>>>,
}

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
    /// A table that holds what the journal in `directory` does, and writes there what it comes to hold.
    ///
    /// # Errors
    /// The directory cannot be made, read or written, or another process uses it.
    pub(super) fn kept_in(directory: &Path) -> io::Result<Self> {
        let (journal, answers) = Journal::open(directory)?;
        let mut table = Table::default();
        for (key, answer) in answers {
            table.forget(&key);
            table.keep(key.into(), Arc::new(answer));
        }
        Ok(Self {
            table: Mutex::new(table),
            journal: Some(Arc::new(Mutex::new(journal))),
        })
    }

    // Every change below leaves the table whole.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known under `key`; nothing makes the caller the one who asks. A failure counts as nothing for whoever
    /// asks `anew`.
    pub(super) fn begin(&self, key: &str, anew: bool) -> Known<'_> {
        let mut table = self.table();
        if let Some(Entry::Answered(answer)) = table.entries.get(key) {
            let failed = matches!(answer.answered, Answered::Failed(_));
            let old = Timestamp::now().since(answer.finished_at) > MAX_AGE;
            if (failed && anew) || old {
                table.forget(key);
            }
        }
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
    pub(super) async fn finish(mut self, answer: &Arc<Answer>) {
        let keep = answer.lasting && answer.size() <= MAX_BYTES;
        if keep && let Some(journal) = self.recent.journal.clone() {
            write(journal, Arc::clone(&self.key), Arc::clone(answer)).await;
        }
        self.finished = true;
        let mut table = self.recent.table();
        if keep {
            table.keep(Arc::clone(&self.key), Arc::clone(answer));
        } else {
            table.entries.remove(&self.key);
        }
        drop(table);
        self.tell.send_replace(Some(Arc::clone(answer)));
    }
}

/// Writes an answer, off the runtime's threads. One that cannot be written is known in memory all the same.
async fn write(journal: Arc<Mutex<Journal>>, key: Arc<str>, answer: Arc<Answer>) {
    let written = tokio::task::spawn_blocking(move || {
        // A journal says itself what of it is whole.
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(&key, &answer)
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "an answer is not in the journal"),
        Err(error) => tracing::warn!(%error, "an answer is not in the journal"),
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
    /// Forgets an answer.
    fn forget(&mut self, key: &str) {
        if let Some(Entry::Answered(answer)) = self.entries.get(key) {
            self.bytes -= answer.size();
            self.entries.remove(key);
            self.order.retain(|other| **other != *key);
        }
    }

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
        let mut answer = Answer::completed(Bytes::from(vec![b'1'; size]));
        answer.finished_at = Timestamp::now();
        Arc::new(answer)
    }

    fn lead<'a>(recent: &'a Recent, key: &str) -> Lead<'a> {
        match recent.begin(key, false) {
            Known::No(lead) => lead,
            _ => panic!("{key} is known"),
        }
    }

    #[tokio::test]
    async fn one_asks_the_others_wait() {
        let recent = Recent::default();
        let first = lead(&recent, "a");
        let Known::AtAgent(watched) = recent.begin("a", false) else {
            panic!("not at the agent")
        };
        first.finish(&answer(1)).await;
        assert!(watched.borrow().is_some());
        assert!(matches!(recent.begin("a", false), Known::Answered(_)));
    }

    #[test]
    fn who_gives_up_makes_room() {
        let recent = Recent::default();
        drop(lead(&recent, "a"));
        drop(lead(&recent, "a"));
    }

    #[tokio::test]
    async fn the_table_is_bounded_by_number_and_size() {
        let recent = Recent::default();
        for n in 0..MAX_ANSWERS * 2 {
            lead(&recent, &n.to_string()).finish(&answer(1)).await;
        }
        assert_eq!(recent.table().entries.len(), MAX_ANSWERS);
        assert!(matches!(recent.begin("0", false), Known::No(_)));
        for n in 0..40 {
            lead(&recent, &format!("large-{n}"))
                .finish(&answer(MAX_BYTES / 10))
                .await;
        }
        {
            let table = recent.table();
            assert!(table.bytes <= MAX_BYTES);
            let kept = |e: &Entry| match e {
                Entry::Answered(a) => a.size(),
                Entry::AtAgent(_) => 0,
            };
            assert_eq!(table.entries.values().map(kept).sum::<usize>(), table.bytes);
        }
        lead(&recent, "huge").finish(&answer(MAX_BYTES + 1)).await;
        assert!(matches!(recent.begin("huge", false), Known::No(_)));
    }
    fn failed(finished_at: Timestamp) -> Arc<Answer> {
        let mut answer = Answer::refused("no");
        answer.finished_at = finished_at;
        Arc::new(answer)
    }

    #[tokio::test]
    async fn a_failure_is_asked_for_anew_and_a_result_is_not() {
        let recent = Recent::default();
        lead(&recent, "result").finish(&answer(1)).await;
        lead(&recent, "failure")
            .finish(&failed(Timestamp::now()))
            .await;
        assert!(matches!(recent.begin("result", true), Known::Answered(_)));
        assert!(matches!(recent.begin("failure", false), Known::Answered(_)));
        let Known::No(lead) = recent.begin("failure", true) else {
            panic!("not asked anew")
        };
        lead.finish(&answer(1)).await;
        assert_eq!(recent.table().order.len(), 2);
        assert_eq!(recent.table().bytes, 2);
    }

    #[tokio::test]
    async fn what_is_older_than_any_task_is_forgotten() {
        let recent = Recent::default();
        let old = failed(Timestamp::from_millis(1));
        lead(&recent, "old").finish(&old).await;
        drop(lead(&recent, "old"));
    }

    #[tokio::test]
    async fn what_is_kept_outlives_the_table() {
        let directory = tempfile::tempdir().unwrap();
        let recent = Recent::kept_in(directory.path()).unwrap();
        lead(&recent, "a").finish(&answer(3)).await;
        lead(&recent, "b").finish(&failed(Timestamp::now())).await;
        let taken = Recent::kept_in(directory.path());
        assert!(taken.is_err(), "two at the same time");
        drop(recent);
        let again = Recent::kept_in(directory.path()).unwrap();
        let Known::Answered(answer) = again.begin("a", false) else {
            panic!("forgotten")
        };
        assert!(matches!(&answer.answered, Answered::Completed(json) if json == "111"));
        assert!(matches!(again.begin("b", false), Known::Answered(_)));
    }
}
