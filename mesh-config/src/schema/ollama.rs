//! `orchestrator.planner.ollama:` as it is written.

use super::orchestrator::DAY;
use super::reader::{At, Reader, Spot};
use super::tree::Value;
use super::values;
use crate::finding::Finding;
use std::time::Duration;
use url::Url;

#[derive(Debug)]
pub(crate) struct Ollama {
    pub url: Option<At<Url>>,
    pub model: Option<At<String>>,
    pub timeout: Option<At<Duration>>,
    pub num_predict: Option<At<u32>>,
    /// In seconds; -1 is for ever.
    pub keep_alive: Option<At<i64>>,
    pub pull: Option<At<bool>>,
    pub preload: Option<At<bool>>,
    pub concurrency: Option<At<usize>>,
    pub queue: Option<At<Queue>>,
    pub budgets: Option<At<Budgets>>,
    pub cache: Option<At<Cache>>,
    pub models: Vec<At<String>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub max: Option<At<usize>>,
    pub wait: Option<At<Duration>>,
}

#[derive(Debug)]
pub(crate) struct Budgets {
    pub default: Option<At<Budget>>,
    /// By the name of the consumer, at the place of the name.
    pub consumers: Vec<At<(String, Budget)>>,
}

#[derive(Debug)]
pub(crate) struct Budget {
    pub tokens: Option<At<u64>>,
    pub per: Option<At<Duration>>,
}

#[derive(Debug)]
pub(crate) struct Cache {
    pub entries: Option<At<usize>>,
    pub ttl: Option<At<Duration>>,
}

pub(super) fn ollama(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Ollama> {
    let mut f = reader.fields(spot)?;
    let http = values::open_url(&["http", "https"], "http://127.0.0.1:11434");
    let calls = Duration::from_millis(100)..=Duration::from_secs(600);
    let models = f.optional(reader, "models", |r, s| r.list(s, values::text));
    let ollama = Ollama {
        url: f.required(reader, "url", "http://127.0.0.1:11434", http),
        model: f.required(reader, "model", "tinyllama", values::text),
        timeout: f.optional(reader, "timeout", values::duration(calls)),
        num_predict: f.optional(reader, "num_predict", values::integer(16..=32_768)),
        keep_alive: f.optional(reader, "keep_alive", keep_alive),
        pull: f.optional(reader, "pull", values::boolean),
        preload: f.optional(reader, "preload", values::boolean),
        concurrency: f.optional(reader, "concurrency", values::integer(1..=256)),
        queue: f.optional(reader, "queue", queue),
        budgets: f.optional(reader, "budgets", budgets),
        cache: f.optional(reader, "cache", cache),
        models: models.map(|m| m.value).unwrap_or_default(),
    };
    f.finish(reader);
    Some(ollama)
}

/// A duration, or `forever`.
fn keep_alive(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<i64> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| serde_json::json!({"const": "forever"})),
                &|reader, spot| {
                    values::duration(Duration::from_secs(1)..=DAY * 366)(reader, spot);
                },
            ],
        );
        return None;
    }
    if let Value::Text(text) = &spot.node.value
        && text.trim() == "forever"
    {
        reader.open(spot.node);
        return Some(-1);
    }
    let duration = values::duration(Duration::from_secs(1)..=DAY * 366)(reader, spot)?;
    i64::try_from(duration.as_secs()).ok()
}

fn queue(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Queue> {
    let mut f = reader.fields(spot)?;
    // An agent waits for the head of its answer for five minutes.
    let waits = Duration::from_millis(1)..=Duration::from_secs(240);
    let queue = Queue {
        max: f.optional(reader, "max", values::integer(0..=10_000)),
        wait: f.optional(reader, "wait", values::duration(waits)),
    };
    f.finish(reader);
    Some(queue)
}

fn cache(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Cache> {
    let mut f = reader.fields(spot)?;
    let lives = Duration::from_secs(1)..=DAY * 31;
    let cache = Cache {
        entries: f.optional(reader, "entries", values::integer(0..=100_000)),
        ttl: f.optional(reader, "ttl", values::duration(lives)),
    };
    f.finish(reader);
    Some(cache)
}

fn budgets(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Budgets> {
    let mut f = reader.fields(spot)?;
    let budgets = Budgets {
        default: f.optional(reader, "default", budget),
        consumers: f
            .optional(reader, "consumers", consumers)
            .map(|c| c.value)
            .unwrap_or_default(),
    };
    f.finish(reader);
    Some(budgets)
}

fn consumers(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<(String, Budget)>>> {
    // Which names there are is looked at with all agents known.
    reader.entries(spot, "", |reader, key, spot| {
        reader.open_at(key.place);
        Some(At {
            value: (key.text.clone(), budget(reader, spot)?),
            place: key.place,
            path: spot.path.to_owned(),
        })
    })
}

fn budget(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Budget> {
    let mut f = reader.fields(spot)?;
    let times = Duration::from_secs(1)..=DAY * 31;
    let tokens = values::integer(1..=1_000_000_000_000);
    let budget = Budget {
        tokens: f.required(reader, "tokens", "100000", tokens),
        per: f.required(reader, "per", "1h", values::duration(times)),
    };
    // A part of a second says nothing to a bucket that is paid off by the second.
    if let Some(per) = &budget.per
        && per.value.subsec_millis() != 0
    {
        let message = format!("{} must be whole seconds", per.path);
        let finding = Finding::error("invalid_duration", per.place, &*per.path, message);
        reader.push(finding.hint("such as 1s, 1m or 1h"));
    }
    f.finish(reader);
    Some(budget)
}
