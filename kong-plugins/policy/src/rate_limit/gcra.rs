//! The token bucket as a single point in time: the generic cell rate algorithm (ITU-T I.371, annex A,
//! "virtual scheduling").
//!
//! What a key keeps is its theoretical arrival time: when the bucket would be full again. A request is
//! taken if paying for it does not move that time further ahead of now than the bucket is deep. So a
//! bucket that is full needs no memory at all, and nothing has to be refilled.

/// Longest time that a bucket may take to fill, in nanoseconds: sums of two stay far below 64 bits.
pub(super) const MAX_DEPTH_NS: u64 = 366 * 86_400 * 1_000_000_000;

/// How fast units come back, and how many there are at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Nanoseconds in which one unit comes back, rounded up: never more than the quota passes.
    interval_ns: u64,
    /// Units in a full bucket.
    burst: u64,
}

/// What a gateway knows of a bucket that it shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared {
    /// When the bucket is full again, as far as this gateway knows.
    pub(super) full_at_ns: u64,
    /// When it is full again as all gateways told, this one's untold requests left out.
    pub(super) told_full_at_ns: u64,
    /// How many gateways there are; none while that cannot be known.
    pub(super) gateways: Option<u32>,
    /// How long until they tell one another again, at most.
    pub(super) exchange_ns: u64,
}

/// What came of a request for units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There were enough.
    Passes {
        /// When the bucket is full again.
        full_at_ns: u64,
        /// Units that are left.
        left: u64,
    },
    /// There were too few.
    Refused {
        /// How long until there are enough, in nanoseconds.
        wait_ns: u64,
        /// Units that are there.
        left: u64,
    },
    /// There can never be as many.
    Never,
}

impl Rate {
    /// `quota` units per `window_s` seconds, at most `burst` at once; none where that cannot be kept.
    pub(super) fn new(quota: u64, window_s: u64, burst: u64) -> Option<Self> {
        let window_ns = window_s.checked_mul(1_000_000_000)?;
        if quota == 0 || burst == 0 || quota > window_ns {
            return None;
        }
        let interval_ns = window_ns.div_ceil(quota);
        let depth = interval_ns.checked_mul(burst)?;
        (depth <= MAX_DEPTH_NS).then_some(Self { interval_ns, burst })
    }

    /// Takes `cost` units at `now_ns` from a bucket that is full at `full_at_ns`.
    pub(super) fn take(&self, full_at_ns: u64, now_ns: u64, cost: u64) -> Taken {
        if cost > self.burst {
            return Taken::Never;
        }
        // A clock that was set back leaves a time that no bucket can reach: it counts as empty.
        let start = full_at_ns.clamp(now_ns, now_ns.saturating_add(self.depth_ns()));
        let full_at_ns = start.saturating_add(self.interval_ns.saturating_mul(cost));
        let latest = now_ns.saturating_add(self.depth_ns());
        if full_at_ns > latest {
            return Taken::Refused {
                wait_ns: full_at_ns.saturating_sub(latest),
                left: self.left(start, now_ns),
            };
        }
        Taken::Passes {
            full_at_ns,
            left: self.left(full_at_ns, now_ns),
        }
    }

    /// Takes `cost` units at `now_ns` from a bucket that several gateways share.
    ///
    /// Until the gateways have told one another again, each of them takes at most its share of what was
    /// left when they last did; or one request, if that has more than a share's size and nothing else was
    /// taken.
    pub(super) fn take_shared(&self, shared: Shared, now_ns: u64, cost: u64) -> Taken {
        if cost > self.burst {
            return Taken::Never;
        }
        let depth = self.depth_ns();
        let told = shared.told_full_at_ns.saturating_sub(now_ns);
        // A clock that was set back leaves a time that no bucket can reach.
        let here = shared
            .full_at_ns
            .saturating_sub(now_ns)
            .min(depth.max(told))
            .max(told);
        let untold = here.saturating_sub(told);
        let price = self.interval_ns.saturating_mul(cost);
        let rest = depth.saturating_sub(told);
        let share = match shared.gateways {
            Some(gateways) => rest / u64::from(gateways.max(1)),
            None => shared.exchange_ns.min(rest),
        };
        let debt = here.saturating_add(price);
        if debt > depth {
            return Taken::Refused {
                wait_ns: debt.saturating_sub(depth),
                left: depth.saturating_sub(here) / self.interval_ns.max(1),
            };
        }
        if untold > 0 && untold.saturating_add(price) > share {
            return Taken::Refused {
                wait_ns: shared.exchange_ns,
                left: share.saturating_sub(untold) / self.interval_ns.max(1),
            };
        }
        Taken::Passes {
            full_at_ns: now_ns.saturating_add(debt),
            left: depth.saturating_sub(debt) / self.interval_ns.max(1),
        }
    }

    /// Debt of `units`, in nanoseconds.
    pub(super) fn debt_ns(&self, units: u64) -> u64 {
        self.interval_ns.saturating_mul(units)
    }

    /// The bucket with `cost` units put back.
    pub(super) fn give_back(&self, full_at_ns: u64, cost: u64) -> u64 {
        full_at_ns.saturating_sub(self.interval_ns.saturating_mul(cost))
    }

    /// Units in a bucket that is full at `full_at_ns`.
    fn left(&self, full_at_ns: u64, now_ns: u64) -> u64 {
        let missing = full_at_ns.saturating_sub(now_ns);
        self.depth_ns().saturating_sub(missing) / self.interval_ns.max(1)
    }

    fn depth_ns(&self) -> u64 {
        self.interval_ns.saturating_mul(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_empties_and_fills() {
        let rate = Rate::new(10, 1, 3).unwrap();
        let now = 1_000 * S;
        let mut full_at = 0;
        for left in [2, 1, 0] {
            match rate.take(full_at, now, 1) {
                Taken::Passes {
                    full_at_ns,
                    left: found,
                } => {
                    assert_eq!(found, left);
                    full_at = full_at_ns;
                }
                other => panic!("{other:?}"),
            }
        }
        let refused = Taken::Refused {
            wait_ns: S / 10,
            left: 0,
        };
        assert_eq!(rate.take(full_at, now, 1), refused);
        assert!(matches!(
            rate.take(full_at, now + S / 10, 1),
            Taken::Passes { left: 0, .. }
        ));
        assert!(matches!(
            rate.take(full_at, now + S, 3),
            Taken::Passes { left: 0, .. }
        ));
        assert_eq!(rate.take(full_at, now + S, 4), Taken::Never);
    }

    #[test]
    fn rates_that_cannot_be_kept() {
        for (quota, window_s, burst) in [
            (0, 1, 1),
            (1, 0, 1),
            (1, 1, 0),
            (2 * S, 1, 1),
            (1, u64::MAX, 1),
            (1, 86_400, 1_000_000),
        ] {
            assert_eq!(Rate::new(quota, window_s, burst), None);
        }
    }

    #[test]
    fn a_clock_set_back_does_not_lock_a_key_for_ever() {
        let rate = Rate::new(1, 1, 1).unwrap();
        let Taken::Refused { wait_ns, .. } = rate.take(u64::MAX, 5 * S, 1) else {
            panic!("an empty bucket refuses");
        };
        assert_eq!(wait_ns, S);
    }

    proptest! {
        /// In any stretch of time no more passes than a full bucket and what came back meanwhile.
        #[test]
        fn never_more_than_burst_and_rate(
            quota in 1u64..1000, window_s in 1u64..100, burst in 1u64..50,
            gaps in proptest::collection::vec(0u64..2_000_000_000, 1..200),
        ) {
            let rate = Rate::new(quota, window_s, burst).unwrap();
            let (mut now, mut full_at, mut passed) = (1_700_000_000 * S, 0, 0u128);
            let begin = now;
            for gap in gaps {
                now += gap;
                if let Taken::Passes { full_at_ns, .. } = rate.take(full_at, now, 1) {
                    full_at = full_at_ns;
                    passed += 1;
                }
                let back = u128::from(now - begin) * u128::from(quota)
                    / (u128::from(window_s) * u128::from(S));
                prop_assert!(passed <= u128::from(burst) + back);
            }
        }

        /// Whoever waits as long as it was told passes.
        #[test]
        fn the_wait_is_right(quota in 1u64..1000, window_s in 1u64..100, burst in 1u64..50, cost in 1u64..50) {
            let rate = Rate::new(quota, window_s, burst).unwrap();
            let now = 1_700_000_000 * S;
            let mut full_at = 0;
            while let Taken::Passes { full_at_ns, .. } = rate.take(full_at, now, 1) {
                full_at = full_at_ns;
            }
            match rate.take(full_at, now, cost) {
                Taken::Refused { wait_ns, .. } => {
                    let passes = matches!(rate.take(full_at, now + wait_ns, cost), Taken::Passes { .. });
                    prop_assert!(passes);
                    let early = matches!(rate.take(full_at, now + wait_ns - 1, cost), Taken::Refused { .. });
                    prop_assert!(early);
                }
                Taken::Never => prop_assert!(cost > burst),
                Taken::Passes { .. } => prop_assert!(false),
            }
        }
    }
}
