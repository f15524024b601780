//! Periods of the calendar, in UTC.

use http::HeaderName;
use std::time::SystemTime;
use time::OffsetDateTime;

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    pub(super) fn limit_header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Second => "x-ratelimit-limit-second",
            Self::Minute => "x-ratelimit-limit-minute",
            Self::Hour => "x-ratelimit-limit-hour",
            Self::Day => "x-ratelimit-limit-day",
            Self::Month => "x-ratelimit-limit-month",
            Self::Year => "x-ratelimit-limit-year",
        })
    }

    pub(super) fn remaining_header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Second => "x-ratelimit-remaining-second",
            Self::Minute => "x-ratelimit-remaining-minute",
            Self::Hour => "x-ratelimit-remaining-hour",
            Self::Day => "x-ratelimit-remaining-day",
            Self::Month => "x-ratelimit-remaining-month",
            Self::Year => "x-ratelimit-remaining-year",
        })
    }

    /// Kong's length of it, in seconds: a month has 30 days and a year 365.
    pub(super) fn length_s(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 2_592_000,
            Self::Year => 31_536_000,
        }
    }
}

/// The windows of one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    now_s: i64,
    date: OffsetDateTime,
}

impl Windows {
    pub(super) fn at(now: SystemTime) -> Self {
        let date = OffsetDateTime::from(now);
        Self {
            now_s: date.unix_timestamp(),
            date,
        }
    }

    /// When the period began, in seconds since 1970.
    pub(super) fn start_s(&self, period: Period) -> i64 {
        let day = self.now_s - self.now_s.rem_euclid(86_400);
        let days_before = match period {
            Period::Second | Period::Minute | Period::Hour | Period::Day => {
                return self.now_s - self.now_s.rem_euclid(period.length_s());
            }
            Period::Month => i64::from(self.date.day()) - 1,
            Period::Year => i64::from(self.date.ordinal()) - 1,
        };
        day - days_before * 86_400
    }

    /// When the period ends as Kong tells it, in seconds from now, at least 1.
    pub(super) fn reset_s(&self, period: Period) -> u64 {
        let left = period.length_s() - (self.now_s - self.start_s(period));
        u64::try_from(left.max(1)).unwrap_or(1)
    }

    pub(super) fn now_s(&self) -> i64 {
        self.now_s
    }
}
