//! Reads dates of ISO 8601 as moments, since as texts they sort wrongly as soon as zones differ.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const TIME: &[BorrowedFormatItem<'_>] = format_description!(
    version = 2,
    "[hour]:[minute][optional [:[second][optional [.[subsecond]]]]]"
);
const ZONES: [&[BorrowedFormatItem<'_>]; 3] = [
    format_description!("[offset_hour sign:mandatory]:[offset_minute]"),
    format_description!("[offset_hour sign:mandatory][offset_minute]"),
    format_description!("[offset_hour sign:mandatory]"),
];

/// The moment of `YYYY-MM-DD`, alone or with `T` or a space, `HH:MM[:SS[.fraction]]` and perhaps a
/// zone (`Z`, `+HH:MM`, `+HHMM`, `+HH`). A day is its midnight; what names no zone counts as UTC.
pub(super) fn moment(text: &str) -> Option<OffsetDateTime> {
    let (day, rest) = text.split_at_checked(10)?;
    let day = Date::parse(day, DAY).ok()?;
    if rest.is_empty() {
        return Some(day.midnight().assume_utc());
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (time, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let time = Time::parse(time, TIME).ok()?;
    let zone = match zone {
        "" | "Z" => UtcOffset::UTC,
        zone => ZONES.iter().find_map(|z| UtcOffset::parse(zone, z).ok())?,
    };
    Some(PrimitiveDateTime::new(day, time).assume_offset(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_however_it_is_written() {
        for text in [
            "2026-01-02T04:00:00Z",
            "2026-01-02 04:00",
            "2026-01-02T04:00:00.000",
            "2026-01-01T23:00:00-05:00",
            "2026-01-02T09:30+0530",
            "2026-01-02T05:00+01:00",
            "2026-01-02T03:30:00-00:30",
            "2026-01-02T06:00+02",
        ] {
            assert_eq!(moment(text), moment("2026-01-02T04:00:00Z"), "{text}");
            assert!(moment(text).is_some(), "{text}");
        }
        assert!(moment("2026-01-02") < moment("2026-01-02T00:00:00.5"));
        // The ends of the calendar, moved beyond it by their zones.
        assert!(moment("0000-01-01T00:00+14:00") < moment("9999-12-31T23:59-14:00"));
    }

    #[test]
    fn what_only_looks_like_a_date_is_none() {
        for text in [
            "2026-01-01T-----",
            "2026-01-01T",
            "2026-01-01T10",
            "2026-01-01T25:00",
            "2026-01-01T10:00:00+99:00",
            "2026-01-01T10:00ZZ",
            "2026-01-01x10:00",
            "2026-02-30",
            "2026-1-1",
            "01.02.2026",
            "2026-01-0\u{fc}",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
