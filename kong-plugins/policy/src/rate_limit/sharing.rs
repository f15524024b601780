//! One limit that several gateways keep together.
//!
//! On its tick each worker tells the orchestrator what it let pass, by key, and hears the debt of each
//! key that all gateways made together (`mesh_protocol::quota`). Between two exchanges a gateway takes at
//! most its share of what was left at the last ([`super::gcra::Rate::take_shared`]). So all gateways
//! together let at most `gateways × rate × interval` more pass than the limit, interval and round trip
//! taken together; of requests that cost more than that, one per gateway. A gateway that meets a key for
//! the first time takes it for full, and may pass its share of the burst before it hears otherwise; one that
//! has just started takes what one interval refills until the others count it. While the others are out of
//! reach nothing is kept to be told: nobody pays later for what each gateway let pass on its own.
//!
//! ```text
//!  request ──▶ cell of the key: when full, as far as known here       (shared data, all workers)
//!         └──▶ cell of what was told: when full, as all told          (shared data, all workers)
//!         └──▶ units that are to be told                              (this worker's own memory)
//!  tick    ──▶ POST units ──▶ debts ──▶ both cells
//! ```

use super::gcra::Rate;
use super::table::{Kept, Key, Table};
use crate::config::{Exchange, WhenUnreachable};
use crate::fetch::Service;
use crate::host::{Host, Swapped, Unshared};
use crate::{ConfigError, Fetch, Fetched};
use mesh_protocol::quota::{self, MAX_ENTRIES, Standings, Usage, Used};
use std::cell::RefCell;
use std::collections::HashMap;

/// Calls of one tick; each takes [`MAX_ENTRIES`] keys.
const CALLS: u32 = 4;
/// Keys that a worker tells of: as many as one tick takes.
const MAX_KEYS: usize = MAX_ENTRIES * CALLS as usize;
/// Exchanges that may fail in a row before the others count as out of reach.
const PATIENCE: u64 = 3;
/// Exchanges after which all others count this gateway.
const SETTLING: u64 = 2;
/// Shared value that names this gateway; the name must be none of a slot.
const GATEWAY: &str = "rl-gateway";
const NS_PER_MS: u64 = 1_000_000;

/// The exchange of one configuration.
#[derive(Debug)]
pub(super) struct Sharing {
    service: Service,
    interval_ms: u32,
    when_unreachable: WhenUnreachable,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    untold: HashMap<[u8; 16], Untold>,
    gateways: Option<u32>,
    /// When the exchange began, and when it last succeeded.
    since_ns: Option<u64>,
    told_ns: Option<u64>,
    /// When it first did.
    known_ns: Option<u64>,
    /// What each call tells, in the order of its entries.
    calls: HashMap<u32, Vec<[u8; 16]>>,
}

#[derive(Debug)]
struct Untold {
    key: Key,
    rate: Rate,
    units: u64,
    /// When the first of them passed, in nanoseconds since 1970.
    first_ns: u64,
    /// Of those, what is on its way.
    sent: u64,
    sent_ns: u64,
    /// Whether a call tells of it.
    on_its_way: bool,
}

/// How a limit that is shared may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// With so many gateways; none before they can be known.
    Gateways(Option<u32>),
    /// Alone, since the others are out of reach.
    Alone,
    /// Not at all, since the others are out of reach.
    Refused,
}

impl Sharing {
    pub(super) fn compile(exchange: &Exchange, faults: &mut Vec<ConfigError>) -> Self {
        let host = exchange.host.as_deref().unwrap_or_default();
        let service = Service::compile(
            &exchange.authority,
            host,
            &exchange.token,
            "exchange",
            faults,
        );
        let mut wrong = |field: &str, what: &str| {
            faults.push(ConfigError::new(format!("exchange.{field}"), what));
        };
        if exchange.token.is_empty() {
            wrong("token", "is needed");
        }
        if exchange.host.as_ref().is_some_and(String::is_empty) {
            wrong("host", "must be a host's name");
        }
        if !(100..=60_000).contains(&exchange.interval_ms) {
            wrong("interval_ms", "must be from 100 to 60000");
        }
        Self {
            service,
            interval_ms: exchange.interval_ms,
            when_unreachable: exchange.when_unreachable,
            state: RefCell::default(),
        }
    }

    pub(super) fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    pub(super) fn interval_ns(&self) -> u64 {
        u64::from(self.interval_ms).saturating_mul(NS_PER_MS)
    }

    /// Whether the other gateways can be heard.
    pub(super) fn reach(&self, now_ns: u64) -> Reach {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return Reach::Gateways(None);
        };
        let since = *state.since_ns.get_or_insert(now_ns);
        let heard = state.told_ns.unwrap_or(since);
        let patience = self.interval_ns().saturating_mul(PATIENCE);
        if now_ns.saturating_sub(heard) <= patience {
            // Until the others have heard of this gateway, they share without it.
            let settling = self.interval_ns().saturating_mul(SETTLING);
            let settled = state
                .known_ns
                .is_some_and(|known| now_ns.saturating_sub(known) >= settling);
            return Reach::Gateways(state.gateways.filter(|_| settled));
        }
        match self.when_unreachable {
            WhenUnreachable::HoldLocally => Reach::Alone,
            WhenUnreachable::Refuse => Reach::Refused,
        }
    }

    /// `units` of the key passed and are to be told; false where too many keys are already.
    pub(super) fn passed(&self, key: Key, rate: Rate, units: u64, now_ns: u64) -> bool {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return false;
        };
        if state.untold.len() >= MAX_KEYS && !state.untold.contains_key(&key.name) {
            return false;
        }
        let untold = state.untold.entry(key.name).or_insert(Untold {
            key,
            rate,
            units: 0,
            first_ns: now_ns,
            sent: 0,
            sent_ns: now_ns,
            on_its_way: false,
        });
        if untold.units == 0 {
            untold.first_ns = now_ns;
        }
        untold.units = untold.units.saturating_add(units);
        true
    }

    /// Units that did not pass after all; what was told already stays told.
    pub(super) fn took_back(&self, key: Key, units: u64) {
        if let Ok(mut state) = self.state.try_borrow_mut()
            && let Some(untold) = state.untold.get_mut(&key.name)
        {
            untold.units = untold.units.saturating_sub(units).max(untold.sent);
        }
    }

    /// What is to be told now.
    pub(super) fn tick(&self, host: &dyn Host) -> Vec<Fetch> {
        // A gateway that shares no data limits nothing, and has nothing to tell.
        let (Ok(Some(gateway)), Ok(now_ns)) = (gateway(host), host.now_ns()) else {
            return Vec::new();
        };
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return Vec::new();
        };
        let state = &mut *state;
        let mut fetches = Vec::new();
        let mut waiting: Vec<_> = state
            .untold
            .iter_mut()
            .filter(|(_, untold)| !untold.on_its_way)
            .collect();
        for id in 0..CALLS {
            if state.calls.contains_key(&id) || (waiting.is_empty() && id > 0) {
                continue;
            }
            let first = waiting.len().saturating_sub(MAX_ENTRIES);
            let (mut names, mut used) = (Vec::new(), Vec::new());
            for (name, untold) in waiting.drain(first..) {
                untold.sent = untold.units;
                untold.sent_ns = now_ns;
                untold.on_its_way = true;
                names.push(*name);
                used.push(Used {
                    key: hex(name),
                    emission_ns: untold.rate.debt_ns(1),
                    units: untold.units,
                    first_ago_ns: match untold.units {
                        0 => 0,
                        _ => now_ns.saturating_sub(untold.first_ns),
                    },
                });
            }
            state.calls.insert(id, names);
            fetches.push(self.fetch(id, &gateway, used));
        }
        fetches
    }

    fn fetch(&self, id: u32, gateway: &str, used: Vec<Used>) -> Fetch {
        let usage = Usage {
            gateway: gateway.to_owned(),
            interval_ms: self.interval_ms.into(),
            used,
        };
        let mut fetch = self.service.get(id, quota::PATH);
        fetch.method = "POST";
        fetch
            .headers
            .push(("content-type", "application/json".to_owned()));
        // Strings and numbers always serialise.
        fetch.body = serde_json::to_vec(&usage).unwrap_or_default();
        // Longer than the orchestrator waits for its store.
        fetch.timeout_ms = self.interval_ms.max(2_000);
        fetch
    }

    /// What all gateways told, or that they could not be reached.
    pub(super) fn fetched(&self, id: u32, fetched: &Fetched, table: &Table, host: &dyn Host) {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return;
        };
        let names = state.calls.remove(&id).unwrap_or_default();
        let standings = match fetched {
            Fetched::Answer { status: 200, body } => serde_json::from_slice::<Standings>(body).ok(),
            _ => None,
        };
        let answer = standings
            .filter(|standings| standings.debts_ns.len() == names.len())
            .zip(host.now_ns().ok());
        let Some((standings, now_ns)) = answer else {
            for name in names {
                if let Some(untold) = state.untold.get_mut(&name) {
                    untold.on_its_way = false;
                    untold.sent = 0;
                }
            }
            return;
        };
        state.gateways = Some(standings.gateways.max(1));
        state.told_ns = Some(now_ns);
        state.known_ns.get_or_insert(now_ns);
        for (name, debt_ns) in names.into_iter().zip(standings.debts_ns) {
            let Some(untold) = state.untold.get_mut(&name) else {
                continue;
            };
            untold.on_its_way = false;
            untold.units = untold.units.saturating_sub(untold.sent);
            untold.sent = 0;
            // What is left passed after the call was made.
            untold.first_ns = untold.sent_ns;
            // Shared data that cannot be used now is no loss: the next exchange tells it again.
            let _ = hear(table, untold, debt_ns, now_ns, host);
            if untold.units == 0 && debt_ns == 0 {
                state.untold.remove(&name);
            }
        }
    }
}

/// Writes what all gateways told of a key into its two cells.
fn hear(
    table: &Table,
    untold: &Untold,
    debt_ns: u64,
    now_ns: u64,
    host: &dyn Host,
) -> Result<(), Unshared> {
    let raise = |until_ns: u64, lower: bool| {
        move |kept: Kept| {
            let changes = kept.until_ns < until_ns || (lower && kept.until_ns > until_ns);
            let new = Kept { count: 0, until_ns };
            (changes.then_some(new), ())
        }
    };
    let told_ns = now_ns.saturating_add(debt_ns);
    table.change(host, untold.key.told, now_ns, raise(told_ns, true))?;
    let here_ns = told_ns.saturating_add(untold.rate.debt_ns(untold.units));
    table.change(host, untold.key.place, now_ns, raise(here_ns, false))
}

/// The name of this gateway, the same for all its workers: made by whichever comes first.
fn gateway(host: &dyn Host) -> Result<Option<String>, Unshared> {
    if let Some((cell, _)) = host.cell(GATEWAY)? {
        return Ok(Some(hex(&cell)));
    }
    let Ok(random) = host.random() else {
        return Ok(None);
    };
    match host.swap(GATEWAY, random, None)? {
        Swapped::Written => Ok(Some(hex(&random))),
        Swapped::Changed => Ok(host.cell(GATEWAY)?.map(|(cell, _)| hex(&cell))),
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}
