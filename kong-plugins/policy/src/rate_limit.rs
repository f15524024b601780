//! The `rate_limit` filter: how much each caller may ask for.
//!
//! A token bucket per limit and key ([`gcra`]), in state that all workers of the gateway change by
//! compare and swap ([`table`]): what passes is within the limit to the request, however many workers
//! there are. Where several limits apply, all are asked in their order, and what the earlier ones gave is
//! given back when a later one refuses: for a moment less may pass than is allowed, never more. Limits
//! that all gateways keep together are told of on ticks ([`sharing`]).
//!
//! ```text
//!  head ──▶ keys ──▶ take from each limit ──▶ all gave: pass, RateLimit headers on the response
//!  body ──▶ cost ──▶ take from the limits that need it ──┘
//!                            └─ one refused: give back, 429 with Retry-After
//! ```

mod answer;
mod compile;
mod cost;
mod gcra;
mod keys;
mod sharing;
mod table;

pub use compile::compile;

use crate::callers::Calling;
use crate::config::{Cost, LimitHeaders, RateLimit, WhenUnusable};
use crate::host::{Host, Unshared};
use crate::{ConfigError, Decision, Fetch, Fetched, Filter, Pass, Refusal, RequestHead};
use answer::{Standing, headers};
use cost::Priced;
use gcra::{Rate, Shared, Taken};
use keys::{Keys, Networks};
use mesh_protocol::problem::Problem;
use sharing::{Reach, Sharing};
use table::{Kept, Key, Place, Table};

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
    sharing: Option<Sharing>,
}

#[derive(Debug)]
struct Limit {
    name: String,
    quota: u64,
    window_s: u64,
    keys: Keys,
    counts: Counts,
    cost: Option<Cost>,
    shared: bool,
}

#[derive(Debug)]
enum Counts {
    Requests(Rate),
    Concurrent { most: u16, lost_after_ns: u64 },
}

/// What is kept of one request.
#[derive(Debug, Default)]
pub struct Request {
    /// Where each limit stands after this request, in the order in which they were asked.
    standings: Vec<Standing>,
    /// Concurrent requests that this one counts among.
    held: Vec<Place>,
    /// What was given, until everything is.
    given: Vec<Given>,
    /// Limits, by number, that the body decides the cost of.
    by_body: Vec<(usize, Key)>,
    /// Whether a shared limit could not keep in mind to tell of it.
    untold: bool,
}

/// What one limit gave, to be given back.
#[derive(Debug)]
struct Given {
    limit: usize,
    key: Key,
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

    fn tick_ms(&self) -> Option<u32> {
        self.sharing.as_ref().map(Sharing::interval_ms)
    }

    fn tick(&self, host: &dyn Host) -> Vec<Fetch> {
        match &self.sharing {
            Some(sharing) => sharing.tick(host),
            None => Vec::new(),
        }
    }

    fn fetched(&self, id: u32, fetched: Fetched, host: &dyn Host) {
        if let Some(sharing) = &self.sharing {
            sharing.fetched(id, &fetched, &self.table, host);
        }
    }

    fn decide(&self, request: &mut Request, head: &dyn RequestHead, host: &dyn Host) -> Decision {
        let taken = self.take_by_head(request, head, host);
        self.decided(request, taken, host)
    }

    fn wants_body(&self, request: &Request) -> bool {
        !request.by_body.is_empty()
    }

    fn decide_body(&self, request: &mut Request, body: Option<&[u8]>, host: &dyn Host) -> Decision {
        let taken = self.take_by_body(request, body, host);
        self.decided(request, taken, host)
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
    fn decided(&self, request: &mut Request, taken: Result<(), Stop>, host: &dyn Host) -> Decision {
        if taken.is_err() {
            // What cannot be given back comes back by itself, with time.
            let _ = self.give_all_back(request, host);
        }
        match taken {
            Ok(()) if request.untold => Decision::Pass(Pass::because("within_limits_untold")),
            Ok(()) => Decision::Pass(Pass::because("within_limits")),
            Err(Stop::Refused(refusal)) => Decision::Refuse(refusal),
            Err(Stop::Unusable) => match self.when_unusable {
                WhenUnusable::Pass => Decision::Pass(Pass::because("unlimited")),
                WhenUnusable::Refuse => Decision::Refuse(Refusal::host_failure()),
            },
        }
    }

    fn take_by_head(
        &self,
        request: &mut Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Result<(), Stop> {
        // Asked for once, however many limits tell callers apart.
        let calling = Calling::of(host);
        for (number, limit) in self.limits.iter().enumerate() {
            let priced = cost::by_head(limit.cost.as_ref(), head)?;
            let key = limit.keys.key(
                &self.table,
                &limit.name,
                &self.trusted,
                head,
                &calling,
                host,
            )?;
            match priced {
                Priced::ByBody => request.by_body.push((number, key)),
                Priced::Units(cost) => self.take_from(request, number, limit, key, cost, host)?,
            }
        }
        Ok(())
    }

    fn take_by_body(
        &self,
        request: &mut Request,
        body: Option<&[u8]>,
        host: &dyn Host,
    ) -> Result<(), Stop> {
        let Some(body) = body else {
            return Err(Stop::Refused(Refusal::body_too_large()));
        };
        for (number, key) in std::mem::take(&mut request.by_body) {
            let Some(limit) = self.limits.get(number) else {
                continue;
            };
            let cost = cost::by_body(limit.cost.as_ref(), body);
            self.take_from(request, number, limit, key, cost, host)?;
        }
        Ok(())
    }

    /// Takes from one limit.
    fn take_from(
        &self,
        request: &mut Request,
        number: usize,
        limit: &Limit,
        key: Key,
        cost: u64,
        host: &dyn Host,
    ) -> Result<(), Stop> {
        let now_ns = host.now_ns()?;
        let mut together = false;
        let (standing, wait_ns) = match &limit.counts {
            Counts::Requests(rate) => {
                let shared = self.shared(limit, key, now_ns, host)?;
                together = shared.is_some();
                self.take(*rate, limit, key, now_ns, cost, shared, host)?
            }
            Counts::Concurrent {
                most,
                lost_after_ns,
            } => self.enter(*most, *lost_after_ns, limit, key.place, now_ns, host)?,
        };
        request.standings.push(standing);
        if let Some(wait_ns) = wait_ns {
            return Err(Stop::Refused(answer::exceeded(
                self.shown,
                &request.standings,
                &limit.name,
                wait_ns,
            )));
        }
        match &limit.counts {
            Counts::Concurrent { .. } => request.held.push(key.place),
            Counts::Requests(rate) if together => {
                if let Some(sharing) = &self.sharing {
                    request.untold |= !sharing.passed(key, *rate, cost, now_ns);
                }
            }
            Counts::Requests(_) => {}
        }
        request.given.push(Given {
            limit: number,
            key,
            cost,
        });
        Ok(())
    }

    /// What is to be known of a limit that all gateways keep together; none where this one is alone.
    fn shared(
        &self,
        limit: &Limit,
        key: Key,
        now_ns: u64,
        host: &dyn Host,
    ) -> Result<Option<Shared>, Stop> {
        let Some(sharing) = self.sharing.as_ref().filter(|_| limit.shared) else {
            return Ok(None);
        };
        match sharing.reach(now_ns) {
            Reach::Alone => Ok(None),
            Reach::Refused => Err(Stop::Refused(unreachable_quota())),
            Reach::Gateways(gateways) => Ok(Some(Shared {
                full_at_ns: 0,
                told_full_at_ns: self.table.look(host, key.told, now_ns)?.until_ns,
                gateways,
                exchange_ns: sharing.interval_ns(),
            })),
        }
    }

    #[allow(clippy::too_many_arguments)] // all of them say what is taken from where
    fn take(
        &self,
        rate: Rate,
        limit: &Limit,
        key: Key,
        now_ns: u64,
        cost: u64,
        shared: Option<Shared>,
        host: &dyn Host,
    ) -> Result<(Standing, Option<u64>), Unshared> {
        self.table.change(host, key.place, now_ns, |kept| {
            let taken = match shared {
                None => rate.take(kept.until_ns, now_ns, cost),
                Some(shared) => {
                    let full_at_ns = kept.until_ns;
                    rate.take_shared(
                        Shared {
                            full_at_ns,
                            ..shared
                        },
                        now_ns,
                        cost,
                    )
                }
            };
            match taken {
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

    fn give_all_back(&self, request: &mut Request, host: &dyn Host) -> Result<(), Unshared> {
        // Given back here, and not once more when the request ends.
        request.held.clear();
        let now_ns = host.now_ns().map_err(|_| Unshared)?;
        for given in std::mem::take(&mut request.given) {
            self.give_back(&given, now_ns, host)?;
        }
        Ok(())
    }

    fn give_back(&self, given: &Given, now_ns: u64, host: &dyn Host) -> Result<(), Unshared> {
        let Some(limit) = self.limits.get(given.limit) else {
            return Ok(());
        };
        let rate = match &limit.counts {
            Counts::Concurrent { .. } => return self.release(given.key.place, host),
            Counts::Requests(rate) => rate,
        };
        if let Some(sharing) = self.sharing.as_ref().filter(|_| limit.shared) {
            sharing.took_back(given.key, given.cost);
        }
        self.table.change(host, given.key.place, now_ns, |kept| {
            let kept = Kept {
                count: 0,
                until_ns: rate.give_back(kept.until_ns, given.cost),
            };
            (Some(kept), ())
        })
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

/// A limit is shared, and the others cannot be heard.
fn unreachable_quota() -> Refusal {
    let problem = Problem::new(
        503,
        "quota-unreachable",
        "the quota cannot be looked up now",
    );
    Refusal::new("quota_unreachable", &problem).with_header("retry-after", "1".to_owned())
}

#[cfg(test)]
mod tests;
