//! Windows of the calendar, and exact counts.

use super::*;
use std::time::Duration;

fn at(seconds: u64) -> Windows {
    Windows::at(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn windows_begin_where_the_calendar_says() {
    // 2024-02-29T12:34:56Z, in a leap year.
    let windows = at(1_709_210_096);
    for (period, start, reset) in [
        (Period::Second, 1_709_210_096, 1),
        (Period::Minute, 1_709_210_040, 4),
        (Period::Hour, 1_709_208_000, 1_504),
        (Period::Day, 1_709_164_800, 41_104),
        (Period::Month, 1_706_745_600, 127_504),
        (Period::Year, 1_704_067_200, 26_393_104),
    ] {
        assert_eq!(windows.start_s(period), start, "{period:?}");
        assert_eq!(windows.reset_s(period), reset, "{period:?}");
    }
}

#[test]
fn what_is_refused_is_not_counted() {
    let counters = Counters::default();
    let limits = [(Period::Second, 2), (Period::Hour, 3)];
    let stopped = |second, who: &[u8]| {
        counters
            .count("", ("ip", who), &limits, &at(second))
            .stopped()
    };
    assert_eq!([stopped(0, b"a"), stopped(0, b"a")], [None; 2]);
    assert_eq!(stopped(0, b"a"), Some(Period::Second));
    assert_eq!(stopped(0, b"b"), None);
    assert_eq!(stopped(1, b"a"), None);
    assert_eq!(stopped(2, b"a"), Some(Period::Hour));
    assert_eq!(stopped(3_600, b"a"), None);
}

#[test]
fn counters_are_bounded() {
    let counters = Counters::default();
    let limits = [(Period::Second, 1)];
    for i in 0..150_000u32 {
        counters.count("", ("ip", &i.to_be_bytes()), &limits, &at(0));
    }
    let all = counters.len();
    assert!(all <= 100_032, "{all}");
}

#[test]
fn what_cannot_be_run_is_named() {
    for (config, word) in [
        (serde_json::json!({}), "config.second"),
        (serde_json::json!({"second": 0}), "greater"),
        (serde_json::json!({"second": 5, "day": 4}), "longer"),
        (serde_json::json!({"second": 5, "policy": "redis"}), "redis"),
        (
            serde_json::json!({"second": 5, "limit_by": "header"}),
            "header_name",
        ),
        (
            serde_json::json!({"second": 5, "limit_by": "path"}),
            "config.path",
        ),
        (serde_json::json!({"second": 5, "redis": {}}), "redis"),
    ] {
        let made = super::super::read::<Config>(&config).and_then(|c| RateLimiting::new(c, ""));
        let problem = made.map(drop).unwrap_err();
        assert!(problem.contains(word), "{problem}");
    }
}
