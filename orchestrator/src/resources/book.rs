//! Leases and queues as plain data, told what time it is: the memory arbiter, and what the scripts of Redis do in Lua.

use super::{
    AGE, Amounts, Ask, Asked, Claim, Grant, Holder, Key, MAX_HELD, MAX_SHOWN, MAX_WAITING, Renewed,
    Stand, Standing, excess,
};
use crate::store::ReplicaId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// What is held and who waits. Times are those since some beginning.
pub(super) struct Book {
    capacity: Amounts,
    /// How long who waits is remembered without a word.
    life: Duration,
    used: Amounts,
    leases: HashMap<String, Lease>,
    asks: HashMap<String, Waiting>,
    /// For each resource, who waits for it, in the order in which they are granted.
    queues: BTreeMap<String, BTreeSet<(i64, String)>>,
    token: u64,
    expired: u64,
    /// Nothing expires before.
    earliest: Duration,
    /// Grants that nobody has been told of.
    fresh: Vec<(ReplicaId, Grant)>,
}

struct Lease {
    ask: Ask,
    token: u64,
    until: Duration,
}

struct Waiting {
    ask: Ask,
    since: Duration,
    order: i64,
    until: Duration,
}

impl Book {
    pub(super) fn new(capacity: Amounts, life: Duration) -> Self {
        Self {
            capacity,
            life,
            used: Amounts::new(),
            leases: HashMap::new(),
            asks: HashMap::new(),
            queues: BTreeMap::new(),
            token: 0,
            expired: 0,
            earliest: Duration::MAX,
            fresh: Vec::new(),
        }
    }

    /// Grants since the last call, and who asked for them.
    pub(super) fn fresh(&mut self) -> Vec<(ReplicaId, Grant)> {
        std::mem::take(&mut self.fresh)
    }

    pub(super) fn ask(&mut self, ask: &Ask, now: Duration) -> Asked {
        self.expire(now);
        let id = &ask.key.id;
        if let Some(lease) = self.leases.get_mut(id) {
            let theirs = &lease.ask.key;
            if theirs.holder != ask.key.holder || theirs.generation > ask.key.generation {
                return Asked::Superseded;
            }
            if theirs.generation < ask.key.generation {
                self.token += 1;
                lease.token = self.token;
            }
            lease.ask.key = ask.key.clone();
            lease.ask.owner = ask.owner;
            lease.until = now + ask.ttl;
            self.earliest = self.earliest.min(lease.until);
            return Asked::Granted { token: lease.token };
        }
        if ask.needs.is_empty() || excess(&ask.needs, &self.capacity).is_some() {
            return Asked::TooMuch;
        }
        if let Some(waiting) = self.asks.get_mut(id) {
            let theirs = &waiting.ask.key;
            if theirs.holder != ask.key.holder || theirs.generation > ask.key.generation {
                return Asked::Superseded;
            }
            waiting.ask = Ask {
                needs: waiting.ask.needs.clone(),
                ..ask.clone()
            };
            waiting.until = now + self.life;
        } else {
            self.enqueue(ask, now);
        }
        if ask.running {
            self.grant(id, now);
        } else {
            self.serve(ask.needs.keys().cloned().collect(), now);
        }
        if let Some(lease) = self.leases.get(id) {
            let token = lease.token;
            self.fresh.retain(|(_, grant)| grant.id != *id);
            return Asked::Granted { token };
        }
        if self.asks.len() > MAX_WAITING {
            self.leave(id);
            return Asked::Full;
        }
        Asked::Waiting
    }

    pub(super) fn renew(&mut self, claims: &[Claim], ttl: Duration, now: Duration) -> Renewed {
        self.expire(now);
        let mut renewed = Renewed::default();
        for Claim { key, held } in claims {
            if let Some(lease) = self.leases.get_mut(&key.id) {
                if lease.ask.key != *key {
                    renewed.superseded.push(key.id.clone());
                    continue;
                }
                lease.until = now + if *held { ttl } else { lease.ask.ttl };
                self.earliest = self.earliest.min(lease.until);
                if !held {
                    renewed.granted.push(Grant {
                        id: key.id.clone(),
                        generation: key.generation,
                        token: lease.token,
                    });
                }
            } else if let Some(waiting) = self.asks.get_mut(&key.id) {
                if waiting.ask.key != *key {
                    renewed.superseded.push(key.id.clone());
                } else if *held {
                    renewed.gone.push(key.id.clone());
                } else {
                    waiting.until = now + self.life;
                }
            } else {
                renewed.gone.push(key.id.clone());
            }
        }
        renewed
    }

    pub(super) fn give_back(&mut self, key: &Key, now: Duration) -> bool {
        self.expire(now);
        let names = if self.leases.get(&key.id).is_some_and(|l| l.ask.key == *key) {
            self.free(&key.id)
        } else if self.asks.get(&key.id).is_some_and(|w| w.ask.key == *key) {
            self.leave(&key.id)
        } else {
            return false;
        };
        self.serve(names, now);
        true
    }

    pub(super) fn look(&mut self, now: Duration) -> Standing {
        self.expire(now);
        let resources = self.capacity.iter().map(|(name, &capacity)| {
            let waiting = self.queues.get(name).map_or(0, BTreeSet::len);
            let stand = Stand {
                capacity,
                in_use: self.used.get(name).copied().unwrap_or(0),
                waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
            };
            (name.clone(), stand)
        });
        let mut leases: Vec<&Lease> = self.leases.values().collect();
        leases.sort_by(|a, b| (a.until, &a.ask.key.id).cmp(&(b.until, &b.ask.key.id)));
        let holders = leases.into_iter().take(MAX_SHOWN).map(|lease| Holder {
            id: lease.ask.key.id.clone(),
            holder: lease.ask.key.holder.clone(),
            needs: lease.ask.needs.clone(),
            priority: lease.ask.priority,
            left: lease.until.saturating_sub(now),
        });
        let oldest = self.asks.values().map(|w| w.since).min();
        Standing {
            resources: resources.collect(),
            holders: holders.collect(),
            waiting: u64::try_from(self.asks.len()).unwrap_or(u64::MAX),
            oldest_wait: oldest.map(|since| now.saturating_sub(since)),
            expired: self.expired,
        }
    }

    fn enqueue(&mut self, ask: &Ask, now: Duration) {
        // Finer than one call takes: no two have the same place.
        let signed = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let order = signed(now)
            .saturating_sub(signed(ask.waited))
            .saturating_sub(signed(AGE * u32::from(ask.priority)));
        let id = ask.key.id.clone();
        for name in ask.needs.keys() {
            let queue = self.queues.entry(name.clone()).or_default();
            queue.insert((order, id.clone()));
        }
        let waiting = Waiting {
            ask: ask.clone(),
            since: now.saturating_sub(ask.waited),
            order,
            until: now + self.life,
        };
        self.earliest = self.earliest.min(waiting.until);
        self.asks.insert(id, waiting);
    }

    /// Takes who waits off the queues, and tells which these were.
    fn leave(&mut self, id: &str) -> Vec<String> {
        let Some(waiting) = self.asks.remove(id) else {
            return Vec::new();
        };
        let names: Vec<String> = waiting.ask.needs.into_keys().collect();
        for name in &names {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.remove(&(waiting.order, id.to_owned()));
            }
        }
        names
    }

    /// Takes back what is held, and tells what is free.
    fn free(&mut self, id: &str) -> Vec<String> {
        let Some(lease) = self.leases.remove(id) else {
            return Vec::new();
        };
        for (name, amount) in &lease.ask.needs {
            if let Some(used) = self.used.get_mut(name) {
                *used = used.saturating_sub(*amount);
            }
        }
        lease.ask.needs.into_keys().collect()
    }

    /// Gives to who waits what it waits for.
    fn grant(&mut self, id: &str, now: Duration) {
        let Some(waiting) = self.asks.get(id) else {
            return;
        };
        let ask = waiting.ask.clone();
        self.leave(id);
        for (name, amount) in &ask.needs {
            *self.used.entry(name.clone()).or_default() += amount;
        }
        self.token += 1;
        let grant = Grant {
            id: id.to_owned(),
            generation: ask.key.generation,
            token: self.token,
        };
        self.fresh.push((ask.owner, grant));
        let lease = Lease {
            token: self.token,
            until: now + ask.ttl,
            ask,
        };
        self.earliest = self.earliest.min(lease.until);
        self.leases.insert(id.to_owned(), lease);
    }

    /// Grants to those who are first in all of their queues and whose needs fit, beginning with the queues `names`.
    fn serve(&mut self, mut names: Vec<String>, now: Duration) {
        while let Some(name) = names.pop() {
            let Some((_, id)) = self.queues.get(&name).and_then(BTreeSet::first).cloned() else {
                continue;
            };
            let Some(waiting) = self.asks.get(&id) else {
                continue;
            };
            let needs = &waiting.ask.needs;
            let first = needs.keys().all(|other| {
                let head = self.queues.get(other).and_then(BTreeSet::first);
                head.is_some_and(|(_, head)| *head == id)
            });
            if first && self.fits(needs) {
                names.extend(needs.keys().cloned());
                self.grant(&id, now);
            }
        }
    }

    fn fits(&self, needs: &Amounts) -> bool {
        let fits = needs.iter().all(|(name, amount)| {
            let used = self.used.get(name).copied().unwrap_or(0);
            let there = self.capacity.get(name).copied().unwrap_or(0);
            used.saturating_add(*amount) <= there
        });
        fits && self.leases.len() < MAX_HELD
    }

    fn expire(&mut self, now: Duration) {
        if now < self.earliest {
            return;
        }
        let mut names = Vec::new();
        let leases = self.leases.iter().filter(|(_, lease)| lease.until <= now);
        let leases: Vec<String> = leases.map(|(id, _)| id.clone()).collect();
        for id in leases {
            self.expired += 1;
            names.extend(self.free(&id));
        }
        let asks = self.asks.iter().filter(|(_, ask)| ask.until <= now);
        let asks: Vec<String> = asks.map(|(id, _)| id.clone()).collect();
        for id in asks {
            names.extend(self.leave(&id));
        }
        let leases = self.leases.values().map(|lease| lease.until);
        let asks = self.asks.values().map(|ask| ask.until);
        self.earliest = leases.chain(asks).min().unwrap_or(Duration::MAX);
        self.serve(names, now);
    }
}
