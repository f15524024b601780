//! The model server: what is absent is the usual.

use super::value;
use crate::schema;
use mesh_orchestrator::config::{Budget, Budgets, Cache, Ollama, Queue};
use std::time::Duration;

/// `None` where it has no URL or no model, which was reported.
pub(super) fn ollama(raw: schema::Ollama) -> Option<Ollama> {
    let url = value(raw.url)?;
    let usual = Ollama::new(url.as_str().trim_end_matches('/'), value(raw.model)?);
    let queue = value(raw.queue).map(|raw| Queue {
        max: value(raw.max).unwrap_or(usual.queue.max),
        wait_ms: value(raw.wait).map_or(usual.queue.wait_ms, millis),
    });
    let cache = value(raw.cache).map(|raw| Cache {
        entries: value(raw.entries).unwrap_or(usual.cache.entries),
        ttl_s: value(raw.ttl).map_or(usual.cache.ttl_s, |ttl| ttl.as_secs()),
    });
    let budgets = value(raw.budgets).map(|raw| Budgets {
        default: value(raw.default).and_then(budget),
        consumers: raw
            .consumers
            .into_iter()
            .filter_map(|consumer| {
                let (name, raw) = consumer.value;
                Some((name, budget(raw)?))
            })
            .collect(),
    });
    Some(Ollama {
        timeout_ms: value(raw.timeout).map_or(usual.timeout_ms, millis),
        num_predict: value(raw.num_predict).unwrap_or(usual.num_predict),
        keep_alive_s: value(raw.keep_alive),
        pull: value(raw.pull).unwrap_or(usual.pull),
        preload: value(raw.preload).unwrap_or(usual.preload),
        concurrency: value(raw.concurrency).unwrap_or(usual.concurrency),
        queue: queue.unwrap_or_default(),
        budgets: budgets.unwrap_or_default(),
        cache: cache.unwrap_or_default(),
        models: raw.models.into_iter().map(|model| model.value).collect(),
        ..usual
    })
}

fn budget(raw: schema::Budget) -> Option<Budget> {
    Some(Budget {
        tokens: value(raw.tokens)?,
        per_s: value(raw.per)?.as_secs(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
