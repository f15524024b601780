//! What is known of one service: the registry's last answer, and when its word alone is not enough.
//!
//! - **After an outage nobody is dropped at once.** A Consul that was restarted empty answers truly that there is
//!   nobody, and a moment later that there is one: until everybody had the time to register again
//!   ([`super::Times::grace`]), who was known stays known beside who is new. Whoever really left meanwhile is found out by
//!   those who call it.
//! - **Who comes and goes is taken in more slowly each time.** From the third departure within [`WINDOW`] on, an
//!   instance that returns waits one second, then two, four, up to [`LONGEST`]; unless there is nobody else.
//!
//! Nothing here waits or asks: times come in, [`Cache::due`] says when to look again.

use crate::registry::Instance;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Departures count together when there is no longer time between two of them.
const WINDOW: Duration = Duration::from_secs(60);
/// Departures that are nobody's business: a restart, and another.
const FREE: u32 = 2;
/// The first pause, doubled each time, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// Most departures remembered of one service, as many as a long answer has instances.
const MAX_DEPARTURES: usize = 4096;

/// What is known of one service.
#[derive(Debug)]
pub(super) struct Cache {
    /// How long after an outage the registry's word alone drops nobody.
    grace: Duration,
    /// The last answer, by id.
    answer: Vec<Instance>,
    /// Who is shown, by id.
    shown: Vec<Instance>,
    departures: HashMap<Arc<str>, Departures>,
    /// Until when nobody is dropped.
    lenient: Option<Instant>,
}

#[derive(Debug)]
struct Departures {
    count: u32,
    last: Instant,
    /// When it came back, if it did.
    back: Option<Instant>,
}

impl Departures {
    /// Until when it has to wait.
    fn held_until(&self) -> Option<Instant> {
        let beyond = self.count.checked_sub(FREE + 1)?;
        let pause = PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST);
        Some(self.back? + pause)
    }
}

impl Cache {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            answer: Vec::new(),
            shown: Vec::new(),
            departures: HashMap::new(),
            lenient: None,
        }
    }

    /// Who is to be asked.
    pub(super) fn shown(&self) -> &[Instance] {
        &self.shown
    }

    /// Whose return is being waited out.
    pub(super) fn held(&self) -> usize {
        self.answer.len()
            - self
                .answer
                .iter()
                .filter(|i| has(&self.shown, &i.id))
                .count()
    }

    /// Takes an answer, in the order of ids. `outage` is when the registry was away last, or began anew.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        answer: Vec<Instance>,
        outage: Option<Instant>,
    ) {
        let lenient = outage
            .map(|outage| outage + self.grace)
            .filter(|end| *end > now);
        self.lenient = self.lenient.filter(|end| *end > now).max(lenient);
        if self.lenient.is_none() {
            self.count_departures(now, &answer);
        }
        self.answer = answer;
        self.show(now);
    }

    /// Shows who is to be shown now; to be called when [`Self::due`] has come.
    pub(super) fn show(&mut self, now: Instant) {
        let mut shown = Vec::with_capacity(self.answer.len());
        shown.extend(self.answer.iter().filter(|i| !self.holds(now, i)).cloned());
        if shown.is_empty() {
            // Somebody who flaps is better than nobody.
            shown.clone_from(&self.answer);
        }
        self.lenient = self.lenient.filter(|end| *end > now);
        if self.lenient.is_some() {
            let missing = self.shown.iter().filter(|known| {
                let again = |i: &Instance| i.id == known.id || i.address == known.address;
                !shown.iter().any(again)
            });
            let missing: Vec<_> = missing.cloned().collect();
            shown.extend(missing);
            shown.sort_by(|a, b| a.id.cmp(&b.id));
        }
        self.shown = shown;
    }

    /// When something changes without an answer.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let held = self.departures.values().filter_map(Departures::held_until);
        held.filter(|end| *end > now).chain(self.lenient).min()
    }

    /// Whether an instance has to wait; who is shown already does not.
    fn holds(&self, now: Instant, instance: &Instance) -> bool {
        if has(&self.shown, &instance.id) {
            return false;
        }
        let until = self
            .departures
            .get(&instance.id)
            .and_then(Departures::held_until);
        until.is_some_and(|until| until > now)
    }

    fn count_departures(&mut self, now: Instant, answer: &[Instance]) {
        self.departures
            .retain(|_, known| now - known.last <= WINDOW);
        let gone = self.answer.iter().filter(|i| !has(answer, &i.id));
        let gone: Vec<_> = gone.map(|i| Arc::clone(&i.id)).collect();
        for id in gone {
            self.departed(now, id);
        }
        for (id, known) in &mut self.departures {
            if known.back.is_none() && has(answer, id) {
                known.back = Some(now);
            }
        }
    }

    fn departed(&mut self, now: Instant, id: Arc<str>) {
        if self.departures.len() >= MAX_DEPARTURES && !self.departures.contains_key(&id) {
            return;
        }
        let known = self.departures.entry(id).or_insert(Departures {
            count: 0,
            last: now,
            back: None,
        });
        known.count += 1;
        known.last = now;
        known.back = None;
    }
}

/// Whether a list in the order of ids has one of this id.
fn has(list: &[Instance], id: &str) -> bool {
    list.binary_search_by(|instance| (*instance.id).cmp(id))
        .is_ok()
}

#[cfg(test)]
mod tests;
