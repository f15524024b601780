//! The `rate_limit` filter: how much each caller may ask for.
//!
//! A token bucket per limit and key ([`gcra`]), in state that all workers of the gateway change by
//! compare and swap ([`table`]): what passes is within the limit to the request, however many workers
//! there are. Where several limits apply, all are asked in their order, and what the earlier ones gave is
//! given back when a later one refuses: for a moment less may pass than is allowed, never more.
//!
//! ```text
//!  head ──▶ keys ──▶ take from each limit ──▶ all gave: pass, RateLimit headers on the response
//!                            └─ one refused: give back, 429 with Retry-After
//! ```

mod answer;
mod gcra;
mod keys;
mod table;

use crate::config::{Cost, LimitHeaders, RateLimit, Unit, WhenUnusable};
use crate::host::{Host, Unshared};
use crate::{ConfigError, Decision, Filter, Pass, Refusal, RequestHead};
use answer::{Standing, headers};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gcra::{Rate, Taken};
use hmac::{Hmac, KeyInit};
use keys::{Keys, Networks};
use mesh_protocol::problem::Problem;
use sha2::Sha256;
use std::collections::BTreeSet;
use table::{Kept, Place, Table};

/// Most limits of one configuration: each costs two calls of the gateway per request.
const MAX_LIMITS: usize = 8;
/// Slots of the table. Few make keys push each other out, more than this fit in no gateway's memory.
const SLOTS: std::ops::RangeInclusive<u32> = 64..=1_048_576;
/// Shortest key of the table, in bytes.
const MIN_KEY: usize = 32;

/// A compiled `rate_limit` configuration.
#[derive(Debug)]
pub struct Policy {
    limits: Vec<Limit>,
    table: Table,
    trusted: Networks,
    shown: LimitHeaders,
    when_unusable: WhenUnusable,
}

#[derive(Debug)]
struct Limit {
    name: String,
    quota: u64,
    window_s: u64,
    keys: Keys,
    counts: Counts,
    cost: Option<Cost>,
}

#[derive(Debug)]
enum Counts {
    Requests(Rate),
    Concurrent { most: u16, lost_after_ns: u64 },
}

/// What is kept of one request.
#[derive(Debug, Default)]
pub struct Request {
    /// Where each limit stands after this request, in the order of the limits.
    standings: Vec<Standing>,
    /// Concurrent requests that this one counts among.
    held: Vec<Place>,
}

/// What one limit gave, to be given back.
struct Given {
    limit: usize,
    place: Place,
    cost: u64,
}

impl Filter for Policy {
    const NAME: &'static str = "rate_limit";
    type Config = RateLimit;
    type Request = Request;

    fn revision(config: &RateLimit) -> &str {
        &config.revision
    }

    fn compile(config: &RateLimit) -> Result<Self, Vec<ConfigError>> {
        compile(config)
    }

    fn decide(&self, request: &mut Request, head: &dyn RequestHead, host: &dyn Host) -> Decision {
        match self.take_all(request, head, host) {
            Ok(()) => Decision::Pass(Pass::because("within_limits")),
            Err(Stop::Refused(refusal)) => Decision::Refuse(refusal),
            Err(Stop::Unusable) => match self.when_unusable {
                WhenUnusable::Pass => Decision::Pass(Pass::because("unlimited")),
                WhenUnusable::Refuse => Decision::Refuse(Refusal::host_failure()),
            },
        }
    }

    fn response_headers(&self, request: &Request) -> Vec<(&'static str, String)> {
        headers(self.shown, &request.standings)
    }

    fn end(&self, request: &mut Request, host: &dyn Host) {
        for place in std::mem::take(&mut request.held) {
            // A place that cannot be given back is given up when the request counts as lost.
            let _ = self.release(place, host);
        }
    }
}

/// Why not every limit gave.
enum Stop {
    Refused(Refusal),
    Unusable,
}

impl From<Unshared> for Stop {
    fn from(_: Unshared) -> Self {
        Self::Unusable
    }
}

impl From<crate::Unreadable> for Stop {
    fn from(unreadable: crate::Unreadable) -> Self {
        Self::Refused(unreadable.into())
    }
}

impl Policy {
    fn take_all(
        &self,
        request: &mut Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Result<(), Stop> {
        let now_ns = host.now_ns()?;
        let mut given: Vec<Given> = Vec::new();
        for (number, limit) in self.limits.iter().enumerate() {
            let cost = limit.cost(head)?;
            let place = limit
                .keys
                .place(&self.table, &limit.name, &self.trusted, head, host)?;
            let (standing, wait_ns) = match &limit.counts {
                Counts::Requests(rate) => self.take(*rate, limit, place, now_ns, cost, host)?,
                Counts::Concurrent {
                    most,
                    lost_after_ns,
                } => self.enter(*most, *lost_after_ns, limit, place, now_ns, host)?,
            };
            request.standings.push(standing);
            if let Some(wait_ns) = wait_ns {
                // Given back here, and not once more when the request ends.
                request.held.clear();
                for earlier in given {
                    self.give_back(&earlier, now_ns, host)?;
                }
                return Err(Stop::Refused(answer::exceeded(
                    self.shown,
                    &request.standings,
                    &limit.name,
                    wait_ns,
                )));
            }
            if let Counts::Concurrent { .. } = limit.counts {
                request.held.push(place);
            }
            given.push(Given {
                limit: number,
                place,
                cost,
            });
        }
        Ok(())
    }

    fn take(
        &self,
        rate: Rate,
        limit: &Limit,
        place: Place,
        now_ns: u64,
        cost: u64,
        host: &dyn Host,
    ) -> Result<(Standing, Option<u64>), Unshared> {
        self.table.change(host, place, now_ns, |kept| {
            match rate.take(kept.until_ns, now_ns, cost) {
                Taken::Passes { full_at_ns, left } => {
                    let kept = Kept {
                        count: 0,
                        until_ns: full_at_ns,
                    };
                    let standing = limit.standing(left, full_at_ns.saturating_sub(now_ns));
                    (Some(kept), (standing, None))
                }
                Taken::Refused { wait_ns, left } => {
                    let standing = limit.standing(left, kept.until_ns.saturating_sub(now_ns));
                    (None, (standing, Some(wait_ns)))
                }
                // No wait helps; the longest that makes sense is told.
                Taken::Never => {
                    let standing = limit.standing(0, kept.until_ns.saturating_sub(now_ns));
                    let wait_ns = limit.window_s.saturating_mul(1_000_000_000);
                    (None, (standing, Some(wait_ns)))
                }
            }
        })
    }

    fn enter(
        &self,
        most: u16,
        lost_after_ns: u64,
        limit: &Limit,
        place: Place,
        now_ns: u64,
        host: &dyn Host,
    ) -> Result<(Standing, Option<u64>), Unshared> {
        self.table.change(host, place, now_ns, |kept| {
            if kept.count >= most {
                // One of those inside may leave at any moment.
                return (None, (limit.standing(0, 0), Some(1)));
            }
            let kept = Kept {
                count: kept.count.saturating_add(1),
                until_ns: now_ns.saturating_add(lost_after_ns),
            };
            let left = u64::from(most.saturating_sub(kept.count));
            (Some(kept), (limit.standing(left, 0), None))
        })
    }

    fn give_back(&self, given: &Given, now_ns: u64, host: &dyn Host) -> Result<(), Unshared> {
        match self.limits.get(given.limit).map(|limit| &limit.counts) {
            Some(Counts::Requests(rate)) => self.table.change(host, given.place, now_ns, |kept| {
                let kept = Kept {
                    count: 0,
                    until_ns: rate.give_back(kept.until_ns, given.cost),
                };
                (Some(kept), ())
            }),
            Some(Counts::Concurrent { .. }) => self.release(given.place, host),
            None => Ok(()),
        }
    }

    fn release(&self, place: Place, host: &dyn Host) -> Result<(), Unshared> {
        let now_ns = host.now_ns().map_err(|_| Unshared)?;
        self.table.change(host, place, now_ns, |kept| {
            if kept.count == 0 {
                // It counted as lost and the cell was taken up again.
                return (None, ());
            }
            let kept = Kept {
                count: kept.count.saturating_sub(1),
                ..kept
            };
            (Some(kept), ())
        })
    }
}

impl Limit {
    /// What the request costs here.
    fn cost(&self, head: &dyn RequestHead) -> Result<u64, Stop> {
        let Some(Cost::Header { name, max }) = &self.cost else {
            return Ok(1);
        };
        let values = head.header(name)?;
        let Some(value) = values.first() else {
            return Ok(1);
        };
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .filter(|cost| values.len() == 1 && (1..=*max).contains(cost))
            .ok_or_else(|| {
                let detail = format!("the header {name} must be one whole number from 1 to {max}");
                let problem = Problem::new(400, "wrong-cost", "the request's cost cannot be read")
                    .with_detail(detail);
                Stop::Refused(Refusal::new("wrong_cost", &problem))
            })
    }

    fn standing(&self, left: u64, full_in_ns: u64) -> Standing {
        Standing {
            name: self.name.clone(),
            quota: self.quota,
            window_s: match self.counts {
                Counts::Requests(_) => Some(self.window_s),
                Counts::Concurrent { .. } => None,
            },
            left,
            full_in_s: full_in_ns.div_ceil(1_000_000_000),
        }
    }
}

/// Checks and prepares a configuration.
///
/// # Errors
/// Every fault, by path.
pub fn compile(config: &RateLimit) -> Result<Policy, Vec<ConfigError>> {
    let mut faults = Vec::new();
    if config.limits.is_empty() || config.limits.len() > MAX_LIMITS {
        faults.push(ConfigError::new(
            "limits",
            format!("1 to {MAX_LIMITS} are needed"),
        ));
    }
    let mut names = BTreeSet::new();
    let mut limits = Vec::new();
    for (number, limit) in config.limits.iter().enumerate() {
        let path = format!("limits[{number}]");
        if !names.insert(&limit.name) {
            faults.push(ConfigError::new(format!("{path}.name"), "is there twice"));
        }
        limits.extend(compile_limit(limit, &path, &mut faults));
    }
    let secret = URL_SAFE_NO_PAD
        .decode(&config.table_key)
        .ok()
        .filter(|key| key.len() >= MIN_KEY)
        .and_then(|key| Hmac::<Sha256>::new_from_slice(&key).ok());
    if secret.is_none() {
        faults.push(ConfigError::new(
            "table_key",
            format!("needs {MIN_KEY} bytes or more in unpadded base64url"),
        ));
    }
    if !SLOTS.contains(&config.slots) {
        faults.push(ConfigError::new(
            "slots",
            format!("must be from {} to {}", SLOTS.start(), SLOTS.end()),
        ));
    }
    let trusted = Networks::compile(&config.trusted_proxies, "trusted_proxies", &mut faults);
    match secret {
        Some(secret) if faults.is_empty() => Ok(Policy {
            limits,
            table: Table::new(secret, config.slots),
            trusted,
            shown: config.headers,
            when_unusable: config.when_unusable,
        }),
        _ => Err(faults),
    }
}

fn compile_limit(
    limit: &crate::config::Limit,
    path: &str,
    faults: &mut Vec<ConfigError>,
) -> Option<Limit> {
    let before = faults.len();
    let mut wrong = |field: &str, what: String| {
        faults.push(ConfigError::new(format!("{path}.{field}"), what));
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if !(1..=32).contains(&limit.name.len()) || !limit.name.bytes().all(plain) {
        wrong("name", "must be 1 to 32 of a-z, 0-9, - and _".to_owned());
    }
    let counts = match limit.unit {
        Unit::Requests => {
            let burst = limit.burst.unwrap_or(limit.quota);
            let rate = Rate::new(limit.quota, limit.window_s, burst).map(Counts::Requests);
            if rate.is_none() {
                wrong(
                    "quota",
                    "no such rate: quota, window_s and burst must be 1 or more, with at most one unit \
                     a nanosecond and a full burst within 366 days"
                        .to_owned(),
                );
            }
            rate
        }
        Unit::ConcurrentRequests => {
            if limit.burst.is_some() || limit.cost.is_some() {
                wrong(
                    "unit",
                    "requests at the same time have no burst and cost 1 each".to_owned(),
                );
            }
            if !(1..=86_400).contains(&limit.window_s) {
                wrong("window_s", "must be from 1 to 86400".to_owned());
            }
            let most = u16::try_from(limit.quota).ok().filter(|most| *most > 0);
            if most.is_none() {
                wrong("quota", format!("must be from 1 to {}", u16::MAX));
            }
            most.map(|most| Counts::Concurrent {
                most,
                lost_after_ns: limit.window_s.saturating_mul(1_000_000_000),
            })
        }
    };
    if let Some(Cost::Header { name, max }) = &limit.cost
        && (!keys::is_header_name(name) || *max == 0)
    {
        wrong(
            "cost.header",
            "needs a header's name in lower case and a max of 1 or more".to_owned(),
        );
    }
    let keys = Keys::compile(&limit.by, &format!("{path}.by"), faults);
    let counts = counts?;
    (faults.len() == before).then(|| Limit {
        name: limit.name.clone(),
        quota: limit.quota,
        window_s: limit.window_s,
        keys,
        counts,
        cost: limit.cost.clone(),
    })
}

#[cfg(test)]
mod tests;
