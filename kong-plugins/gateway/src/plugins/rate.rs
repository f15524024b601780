//! rate-limiting with policy `local`: how many requests in a second, minute, hour, day, month or year of
//! the calendar (UTC).
//!
//! Kong counts after it has decided, so requests at the same moment slip through; here one lock decides
//! and counts, and the limit is exact over all workers. The counters outlive a reload of the
//! configuration.

mod counters;
mod windows;

pub(crate) use counters::Counters;

use super::{Additions, Asked, error};
use crate::body::Body;
use counters::Usage;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Deserialize;
use std::time::SystemTime;
use windows::{Period, Windows};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    second: Option<u64>,
    minute: Option<u64>,
    hour: Option<u64>,
    day: Option<u64>,
    month: Option<u64>,
    year: Option<u64>,
    #[serde(default)]
    limit_by: LimitBy,
    header_name: Option<String>,
    path: Option<String>,
    policy: Option<String>,
    #[serde(default = "yes")]
    #[expect(
        dead_code,
        reason = "the local policy has no data store that could fail"
    )]
    fault_tolerant: bool,
    #[serde(default)]
    hide_client_headers: bool,
    error_code: Option<u16>,
    error_message: Option<String>,
    sync_rate: Option<f64>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LimitBy {
    /// No consumer is known here, so it is the address, as in Kong for a request without one.
    #[default]
    Consumer,
    Credential,
    Ip,
    Service,
    Header,
    Path,
}

/// The plugin, checked.
#[derive(Debug)]
pub(super) struct RateLimiting {
    /// Where the plugin stands; counters are apart for each.
    scope: String,
    limits: Vec<(Period, u64)>,
    by: LimitBy,
    header: Option<HeaderName>,
    path: Option<String>,
    hide: bool,
    status: StatusCode,
    message: String,
}

impl RateLimiting {
    pub(super) fn new(config: Config, scope: &str) -> Result<Self, String> {
        let given = [
            (Period::Second, config.second),
            (Period::Minute, config.minute),
            (Period::Hour, config.hour),
            (Period::Day, config.day),
            (Period::Month, config.month),
            (Period::Year, config.year),
        ];
        let limits: Vec<_> = given
            .iter()
            .filter_map(|(p, l)| Some((*p, (*l)?)))
            .collect();
        if limits.is_empty() {
            return Err("needs one of config.second, minute, hour, day, month, year".to_owned());
        }
        if limits.iter().any(|(_, limit)| *limit == 0) {
            return Err("a limit is greater than 0".to_owned());
        }
        if !limits.is_sorted_by_key(|(_, limit)| *limit) {
            return Err("the limit of a longer period is not lower than a shorter's".to_owned());
        }
        match config.policy.as_deref() {
            None | Some("local") => {}
            Some(other) => {
                return Err(format!(
                    "config.policy: {other} is not supported; local is, and the filter rate_limit \
                     counts over all gateways"
                ));
            }
        }
        if config.sync_rate.is_some_and(|rate| rate != -1.0) {
            return Err("config.sync_rate goes with the policy redis alone".to_owned());
        }
        let header = match (config.limit_by, config.header_name) {
            (LimitBy::Header, None) => return Err("config.header_name is missing".to_owned()),
            (_, name) => name
                .map(|n| HeaderName::from_bytes(n.as_bytes()))
                .transpose()
                .map_err(|_| "config.header_name is no header".to_owned())?,
        };
        if matches!(config.limit_by, LimitBy::Path) && config.path.is_none() {
            return Err("config.path is missing".to_owned());
        }
        let status = config.error_code.unwrap_or(429);
        Ok(Self {
            scope: scope.to_owned(),
            limits,
            by: config.limit_by,
            header,
            path: config.path,
            hide: config.hide_client_headers,
            status: StatusCode::from_u16(status)
                .ok()
                .filter(|s| s.as_u16() >= 200)
                .ok_or_else(|| format!("config.error_code: {status} is no status of an answer"))?,
            message: config
                .error_message
                .unwrap_or_else(|| "API rate limit exceeded".to_owned()),
        })
    }

    /// Counts a request; the answer when it is one too many.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        asked: &Asked<'_>,
        counters: &Counters,
        now: SystemTime,
        additions: &mut Additions,
    ) -> Option<Response<Body>> {
        let windows = Windows::at(now);
        let address;
        let identifier: (&str, &[u8]) = match self.by {
            LimitBy::Service => ("service", asked.service.as_bytes()),
            LimitBy::Header if let Some(value) = self.value(headers) => ("header", value),
            LimitBy::Path if self.path.as_deref() == Some(asked.path) => {
                ("path", asked.path.as_bytes())
            }
            _ => {
                address = asked.client.to_string();
                ("ip", address.as_bytes())
            }
        };
        let usage = counters.count(&self.scope, identifier, &self.limits, &windows);
        if !self.hide {
            self.tell(&usage, &windows, &mut additions.headers);
        }
        usage.stopped()?;
        Some(error(self.status, &self.message))
    }

    fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        Some(headers.get(self.header.as_ref()?)?.as_bytes())
    }

    /// Kong's headers: each period's, and those of the one with the least left.
    fn tell(&self, usage: &Usage, windows: &Windows, headers: &mut HeaderMap) {
        let stop = usage.stopped();
        let mut least: Option<(u64, u64, Period)> = None;
        for (period, limit, left) in &usage.periods {
            let counts = stop.is_none() || stop == Some(*period);
            let left = if counts {
                left.saturating_sub(1)
            } else {
                *left
            };
            headers.insert(period.limit_header(), HeaderValue::from(*limit));
            headers.insert(period.remaining_header(), HeaderValue::from(left));
            // The longer period wins among equals.
            if least.is_none_or(|(_, most, _)| left <= most) {
                least = Some((*limit, left, *period));
            }
        }
        let Some((limit, left, period)) = least else {
            return;
        };
        let reset = windows.reset_s(period);
        for (name, value) in [
            ("ratelimit-limit", limit),
            ("ratelimit-remaining", left),
            ("ratelimit-reset", reset),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        if stop.is_some() {
            headers.insert(RETRY_AFTER, HeaderValue::from(reset));
        }
    }
}

#[cfg(test)]
mod tests;
