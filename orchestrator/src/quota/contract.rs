//! What every quota does, whatever it is made of.
//!
//! Times pass while a case runs, so debts are compared within what can have passed: never more than was
//! used, and what is beyond days does not care about seconds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the cases run in tests only"
)]

use super::{MAX_DEBT, Quota};
use mesh_protocol::quota::{MAX_ENTRIES, MAX_KEY, Standings, Usage, Used};
use std::sync::Arc;
use std::time::Duration;

/// Debt of one unit that no test outlives: an hour, in nanoseconds.
pub const HOUR: u64 = 3_600_000_000_000;
/// An interval that no test outlives, in milliseconds.
const LONG: u64 = 600_000;

/// Runs every case on quotas that `make` returns, each empty at first.
///
/// # Panics
/// When the quota breaks the contract.
pub async fn all<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Quota>>,
{
    gateways_share_a_bucket(&*make().await).await;
    buckets_stand_apart(&*make().await).await;
    asking_costs_nothing(&*make().await).await;
    debt_goes_beyond_what_is_allowed_and_no_further(&*make().await).await;
    one_key_twice_counts_twice(&*make().await).await;
    fractions_are_rounded_up(&*make().await).await;
    debt_is_paid_off_by_time(&*make().await).await;
    usage_counts_from_when_it_began(&*make().await).await;
    silent_gateways_leave(&*make().await).await;
    without_a_name_it_is_no_gateway(&*make().await).await;
    as_many_entries_as_allowed(&*make().await).await;
    nothing_is_lost_between_many(make().await).await;
}

/// Usage of a gateway: key, debt of a unit in nanoseconds, units.
pub fn usage(gateway: &str, interval_ms: u64, used: &[(&str, u64, u64)]) -> Usage {
    Usage {
        gateway: gateway.to_owned(),
        interval_ms,
        used: used
            .iter()
            .map(|&(key, emission_ns, units)| Used {
                key: key.to_owned(),
                emission_ns,
                units,
                first_ago_ns: 0,
            })
            .collect(),
    }
}

async fn tell(quota: &dyn Quota, gateway: &str, used: &[(&str, u64, u64)]) -> Standings {
    let usage = usage(gateway, LONG, used);
    let standings = quota.exchange(&usage).await.unwrap();
    assert_eq!(standings.debts_ns.len(), used.len());
    standings
}

/// Whether `debt` is that of `units` hours, less what can have passed.
fn hours(debt: u64, units: u64) -> bool {
    debt <= units * HOUR && debt + HOUR / 2 > units * HOUR
}

async fn gateways_share_a_bucket(quota: &dyn Quota) {
    let first = tell(quota, "a", &[("k", HOUR, 2)]).await;
    assert_eq!(first.gateways, 1);
    assert!(hours(first.debts_ns[0], 2), "{first:?}");
    let second = tell(quota, "b", &[("k", HOUR, 3)]).await;
    assert_eq!(second.gateways, 2);
    assert!(hours(second.debts_ns[0], 5), "{second:?}");
    // Units of other sizes cost the same bucket.
    let third = tell(quota, "a", &[("k", HOUR * 4, 1)]).await;
    assert_eq!(third.gateways, 2);
    assert!(hours(third.debts_ns[0], 9), "{third:?}");
}

async fn without_a_name_it_is_no_gateway(quota: &dyn Quota) {
    let own = tell(quota, "", &[("k", HOUR, 2)]).await;
    assert_eq!(own.gateways, 0);
    let first = tell(quota, "a", &[("k", HOUR, 1)]).await;
    assert_eq!(first.gateways, 1);
    assert!(hours(first.debts_ns[0], 3), "{first:?}");
    assert_eq!(tell(quota, "", &[("k", HOUR, 0)]).await.gateways, 1);
}

async fn buckets_stand_apart(quota: &dyn Quota) {
    let used = [("x", HOUR, 1), ("y", HOUR, 0), ("X", HOUR, 3)];
    let standings = tell(quota, "a", &used).await;
    for (debt, units) in standings.debts_ns.iter().zip([1, 0, 3]) {
        assert!(hours(*debt, units), "{standings:?}");
    }
}

async fn asking_costs_nothing(quota: &dyn Quota) {
    for _ in 0..3 {
        let standings = tell(quota, "a", &[("k", HOUR, 0)]).await;
        assert_eq!(standings.debts_ns, [0]);
    }
    assert!(hours(
        tell(quota, "a", &[("k", HOUR, 1)]).await.debts_ns[0],
        1
    ));
    let asked = tell(quota, "a", &[("k", HOUR, 0)]).await;
    assert!(hours(asked.debts_ns[0], 1), "{asked:?}");
    let nothing = tell(quota, "b", &[]).await;
    assert_eq!(nothing.gateways, 2);
}

async fn debt_goes_beyond_what_is_allowed_and_no_further(quota: &dyn Quota) {
    let most = u64::try_from(MAX_DEBT.as_nanos()).unwrap();
    let months = tell(quota, "a", &[("k", HOUR, 2_000)]).await;
    assert!(hours(months.debts_ns[0], 2_000), "{months:?}");
    for units in [1_000_000, u64::MAX] {
        let standings = tell(quota, "a", &[("k", HOUR, units)]).await;
        assert_eq!(standings.debts_ns, [most]);
    }
}

async fn one_key_twice_counts_twice(quota: &dyn Quota) {
    let standings = tell(quota, "a", &[("k", HOUR, 1), ("k", HOUR, 2)]).await;
    assert!(hours(standings.debts_ns[0], 1), "{standings:?}");
    assert!(hours(standings.debts_ns[1], 3), "{standings:?}");
}

async fn fractions_are_rounded_up(quota: &dyn Quota) {
    // A nanosecond over an hour, a thousand times in one: a microsecond more. Each for itself: a
    // microsecond more each.
    let standings = tell(quota, "a", &[("k", HOUR + 1, 1), ("k", HOUR + 1, 1)]).await;
    let between = standings.debts_ns[1] - standings.debts_ns[0];
    assert_eq!(between, HOUR + 1_000);
}

async fn debt_is_paid_off_by_time(quota: &dyn Quota) {
    let unit = 50_000_000;
    let first = tell(quota, "a", &[("k", unit, 2), ("other", HOUR, 1)]).await;
    assert!(first.debts_ns[0] <= 2 * unit);
    let paid = tokio::time::timeout(Duration::from_secs(60), async {
        let mut last = first.debts_ns[0];
        loop {
            let debt = tell(quota, "a", &[("k", unit, 0)]).await.debts_ns[0];
            assert!(debt <= last, "debt grew from {last} to {debt}");
            if debt == 0 {
                return;
            }
            last = debt;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    paid.await.unwrap();
    // What was paid off long ago does not count for what is used now.
    let again = tell(quota, "a", &[("k", HOUR, 1)]).await;
    assert!(hours(again.debts_ns[0], 1), "{again:?}");
}

async fn usage_counts_from_when_it_began(quota: &dyn Quota) {
    let begun = |key: &str, units: u64, ago_ns: u64| {
        let mut usage = usage("a", LONG, &[(key, HOUR, units)]);
        usage.used[0].first_ago_ns = ago_ns;
        usage
    };
    // A quarter of an hour of the two was paid off before they were told of.
    let told = quota.exchange(&begun("k", 2, HOUR / 4)).await.unwrap();
    let debt = told.debts_ns[0];
    assert!(
        debt <= 2 * HOUR - HOUR / 4 && debt > 2 * HOUR - HOUR / 3,
        "{debt}"
    );
    // Never from before the debt that was there already.
    let told = quota.exchange(&begun("k", 1, HOUR / 4)).await.unwrap();
    let debt = told.debts_ns[0];
    assert!(
        debt <= 3 * HOUR - HOUR / 4 && debt > 3 * HOUR - HOUR / 3,
        "{debt}"
    );
    // Half an hour, three intervals, is as long ago as counts.
    let told = quota.exchange(&begun("other", 2, 9 * HOUR)).await.unwrap();
    let debt = told.debts_ns[0];
    assert!(debt <= 2 * HOUR - HOUR / 2 && debt > HOUR, "{debt}");
}

async fn silent_gateways_leave(quota: &dyn Quota) {
    let short = usage("short", 1, &[]);
    assert!(quota.exchange(&short).await.unwrap().gateways >= 1);
    let gone = tokio::time::timeout(Duration::from_secs(60), async {
        while tell(quota, "long", &[]).await.gateways != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    gone.await.unwrap();
    assert_eq!(tell(quota, "other", &[]).await.gateways, 2);
    assert_eq!(tell(quota, "long", &[]).await.gateways, 2);
}

async fn as_many_entries_as_allowed(quota: &dyn Quota) {
    let keys: Vec<String> = (0..MAX_ENTRIES)
        .map(|n| format!("{n:0width$}", width = MAX_KEY))
        .collect();
    let used: Vec<_> = keys.iter().map(|key| (key.as_str(), HOUR, 1)).collect();
    for round in 1..=2 {
        let standings = tell(quota, "a", &used).await;
        assert!(standings.debts_ns.iter().all(|debt| hours(*debt, round)));
    }
}

async fn nothing_is_lost_between_many(quota: Arc<dyn Quota>) {
    const TELLERS: u64 = 8;
    const TIMES: u64 = 25;
    let mut tellers = Vec::new();
    for teller in 0..TELLERS {
        let quota = Arc::clone(&quota);
        tellers.push(tokio::spawn(async move {
            for _ in 0..TIMES {
                tell(&*quota, &format!("g{teller}"), &[("k", HOUR, 1)]).await;
            }
        }));
    }
    for teller in tellers {
        teller.await.unwrap();
    }
    let standings = tell(&*quota, "g0", &[("k", HOUR, 0)]).await;
    assert_eq!(u64::from(standings.gateways), TELLERS);
    assert!(
        hours(standings.debts_ns[0], TELLERS * TIMES),
        "{standings:?}"
    );
}
