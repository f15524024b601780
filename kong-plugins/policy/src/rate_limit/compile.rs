//! From the configuration to the policy, with every fault named.

use super::gcra::Rate;
use super::keys::{Keys, Networks};
use super::sharing::Sharing;
use super::table::Table;
use super::{Counts, Limit, MAX_LIMITS, MIN_KEY, Policy, SLOTS, cost};
use crate::ConfigError;
use crate::config::{RateLimit, Unit};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use std::collections::BTreeSet;

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
    let sharing = config
        .exchange
        .as_ref()
        .map(|exchange| Sharing::compile(exchange, &mut faults));
    if sharing.is_none() && config.limits.iter().any(|limit| limit.shared) {
        faults.push(ConfigError::new(
            "exchange",
            "is needed, since a limit is shared: say where the gateways tell one another",
        ));
    }
    match secret {
        Some(secret) if faults.is_empty() => Ok(Policy {
            limits,
            table: Table::new(secret, config.slots),
            trusted,
            shown: config.headers,
            when_unusable: config.when_unusable,
            sharing,
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
    if limit.shared && limit.unit == Unit::ConcurrentRequests {
        wrong(
            "shared",
            "requests at the same time are counted by each gateway for itself".to_owned(),
        );
    }
    if let Some(cost) = &limit.cost {
        cost::check(cost, &format!("{path}.cost"), faults);
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
        shared: limit.shared,
    })
}
