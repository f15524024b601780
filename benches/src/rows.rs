//! What is measured: the rows, and which of them come from one measurement.

mod config;
mod cost;
mod dag;
mod discovery;
mod gateways;
mod growth;
mod idle;
mod in_flight;
mod keys;
mod lane;
mod latency;
mod pairs;
mod plans;
mod post;
mod resident;
mod takeover;
mod tasks;
mod up;

use crate::row::Row;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// Every row, in the table's order, with what it says.
const ROWS: [(&str, &str); 46] = [
    ("up", up::ABOUT),
    ("step-lane-1k-1", lane::ABOUT),
    ("step-lane-1k-10", lane::ABOUT_SAME),
    ("step-lane-1k-100", lane::ABOUT_SAME),
    ("step-lane-64k-1", lane::ABOUT_SAME),
    ("step-lane-64k-10", lane::ABOUT_SAME),
    ("step-lane-64k-100", lane::ABOUT_SAME),
    ("step-lane-celery", lane::ABOUT_CELERY),
    ("step-lane-celery-64k", lane::ABOUT_SAME),
    ("step-lane-pika", lane::ABOUT_PLAN),
    ("step-lane-pika-64k", lane::ABOUT_SAME),
    ("chain-3", plans::ABOUT),
    ("chain-chord", plans::ABOUT_CHORD),
    ("growth", growth::ABOUT),
    ("growth-rate", growth::ABOUT_RATE),
    ("growth-rss", growth::ABOUT_RSS),
    ("in-flight", in_flight::ABOUT),
    ("takeover", takeover::ABOUT),
    ("task-memory-p50", tasks::ABOUT_P50_MEMORY),
    ("task-broker-p50", tasks::ABOUT_P50_BROKER),
    ("task-memory-saturation", tasks::ABOUT_SATURATION),
    ("task-broker-saturation", tasks::ABOUT_SATURATION),
    ("orchestrate-post", post::ABOUT),
    ("dag-100", dag::ABOUT),
    ("dag-100-broker", dag::ABOUT_BROKER),
    ("dag-1000", dag::ABOUT_1000),
    ("dag-1000-broker", dag::ABOUT_1000_BROKER),
    ("sidecar-rss", resident::ABOUT),
    ("sidecar-http", pairs::ABOUT),
    ("sidecar-http-p99", pairs::ABOUT_P99),
    ("sidecar-http-rss", pairs::ABOUT_RSS),
    ("sidecar-http-cpu", pairs::ABOUT_CPU),
    ("sidecar-latency", latency::ABOUT),
    ("sidecar-latency-p99", latency::ABOUT_P99),
    ("sidecar-idle", idle::ABOUT),
    ("sidecar-idle-handshakes", idle::ABOUT_HANDSHAKES),
    ("sidecar-discovery", discovery::ABOUT),
    ("sidecar-discovery-rss", discovery::ABOUT_RSS),
    ("config", config::ABOUT),
    ("config-rss", config::ABOUT_RSS),
    ("filter-cost", cost::ABOUT),
    ("rate-limit-keys", keys::ABOUT),
    ("four-filters", gateways::ABOUT_FOUR),
    ("four-filters-p99", gateways::ABOUT_FOUR_P99),
    ("no-filter", gateways::ABOUT_NONE),
    ("no-filter-nginx", gateways::ABOUT_NGINX),
];

/// Where a measurement finds and leaves things.
#[derive(Debug)]
pub struct Bench {
    /// The repository.
    pub root: PathBuf,
    /// A directory that is gone after the measurement.
    pub scratch: tempfile::TempDir,
    /// How often each side is measured.
    pub rounds: usize,
}

impl Bench {
    fn new(root: &Path, rounds: usize) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            scratch: tempfile::tempdir()?,
            rounds,
        })
    }

    /// One of our binaries.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.root.join("target/release").join(name)
    }
}

/// The names of all rows, in the table's order.
pub fn names() -> Vec<&'static str> {
    ROWS.iter().map(|(name, _)| *name).collect()
}

/// What the row of this name measures, in a sentence or two.
pub fn about(name: &str) -> Option<&'static str> {
    ROWS.iter().find(|row| row.0 == name).map(|row| row.1)
}

/// Measures every row, or those whose names begin with `only`.
///
/// # Errors
/// When a run broke; a missed goal is none.
pub async fn measure(root: &Path, only: Option<&str>, rounds: usize) -> Result<Vec<Row>> {
    ensure!(rounds > 0, "no rounds, no median");
    let wanted = |name: &str| only.is_none_or(|only| name.starts_with(only));
    ensure!(
        names().into_iter().any(wanted),
        "no such row; there are: {}",
        names().join(", ")
    );
    let mut rows = Vec::new();
    if wanted("up") {
        say("up: mesh up to its first answered task");
        rows.push(up::measure(&Bench::new(root, rounds)?).await?);
    }
    rows.extend(lanes(root, &wanted, rounds).await?);
    rows.extend(tasks(root, &wanted, rounds).await?);
    if wanted("sidecar-rss") {
        say("sidecar-rss: an idle sidecar");
        rows.push(resident::measure(&Bench::new(root, rounds)?).await?);
    }
    rows.extend(sidecars(root, &wanted, rounds).await?);
    if wanted("config") || wanted("config-rss") {
        say("config: a mesh.yaml of 1,000 agents and 5,000 routes, checked and rendered");
        rows.extend(config::measure(&Bench::new(root, rounds)?)?);
    }
    rows.extend(filters(root, &wanted, rounds).await?);
    rows.retain(|row| wanted(&row.name));
    Ok(rows)
}

/// The rows of steps and of plans, and of what becomes of many.
async fn lanes(root: &Path, wanted: &impl Fn(&str) -> bool, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let of = |begin: &str| {
        names()
            .into_iter()
            .any(|name| name.starts_with(begin) && wanted(name))
    };
    if of("step-lane") {
        say("step-lane: a filled queue, drained by the sidecar and its peers in turns");
        rows.extend(lane::measure(&Bench::new(root, rounds)?, wanted).await?);
    }
    let shapes = [plans::CHAIN, plans::CHORD];
    let shapes = shapes.into_iter().filter(|shape| wanted(shape.row));
    let shapes: Vec<_> = shapes.collect();
    if !shapes.is_empty() {
        say("chain: plans of three steps, ours and Celery's in turns");
        rows.extend(plans::measure(&Bench::new(root, rounds)?, &shapes).await?);
    }
    if of("growth") {
        say("growth: the cost of a task with up to a million finished ones in the store");
        rows.extend(growth::measure(&Bench::new(root, rounds)?).await?);
    }
    if wanted("in-flight") {
        say("in-flight: 10,000 runs at agents that hold");
        rows.push(in_flight::measure(&Bench::new(root, rounds)?).await?);
    }
    if wanted("takeover") {
        say("takeover: kill -9 of one of two orchestrators");
        rows.push(takeover::measure(&Bench::new(root, rounds)?).await?);
    }
    Ok(rows)
}

/// The rows of whole tasks.
async fn tasks(root: &Path, wanted: &impl Fn(&str) -> bool, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let steady = wanted("task-memory-p50") || wanted("task-broker-p50");
    let most = wanted("task-memory-saturation") || wanted("task-broker-saturation");
    if steady || most {
        say("task-*: two-step tasks through gateway, orchestrator and sidecars");
        rows.extend(tasks::measure(&Bench::new(root, rounds)?, steady, most).await?);
    }
    if wanted("orchestrate-post") {
        say(
            "orchestrate-post: POST /orchestrate at 32 connections, ours and the plan's shape in turns",
        );
        rows.push(post::measure(&Bench::new(root, rounds)?).await?);
    }
    for shape in [dag::HUNDRED, dag::THOUSAND] {
        let (memory, broker) = (wanted(shape.memory), wanted(shape.broker));
        if memory || broker {
            say(&format!("{}: steps of 20 ms", shape.memory));
            let bench = Bench::new(root, rounds)?;
            rows.extend(dag::measure(&bench, shape, memory, broker).await?);
        }
    }
    Ok(rows)
}

/// The rows of the sidecars' ways in and out.
async fn sidecars(root: &Path, wanted: &impl Fn(&str) -> bool, rounds: usize) -> Result<Vec<Row>> {
    let any = |names: &[&str]| names.iter().any(|name| wanted(name));
    let full = any(&[
        "sidecar-http",
        "sidecar-http-p99",
        "sidecar-http-rss",
        "sidecar-http-cpu",
    ]);
    let fixed = any(&["sidecar-latency", "sidecar-latency-p99"]);
    let mut measured = Vec::new();
    if full || fixed {
        say("sidecar-http, sidecar-latency: ours, two Envoys and two HAProxys in turns");
        measured.extend(pairs::measure(&Bench::new(root, rounds)?, full, fixed).await?);
    }
    let idle = wanted("sidecar-idle");
    let handshakes = wanted("sidecar-idle-handshakes");
    if idle || handshakes {
        say("sidecar-idle: 10,000 connections that rest, and handshakes");
        measured.extend(idle::measure(&Bench::new(root, rounds)?, idle, handshakes).await?);
    }
    if any(&["sidecar-discovery", "sidecar-discovery-rss"]) {
        say("sidecar-discovery: 1,000 services with 10 instances each in a Consul");
        measured.extend(discovery::measure(&Bench::new(root, rounds)?).await?);
    }
    Ok(measured)
}

/// The rows of the filters and of the gateway that runs them.
async fn filters(root: &Path, wanted: &impl Fn(&str) -> bool, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if wanted("filter-cost") {
        say("filter-cost: each filter and the chain of four, in the host");
        rows.push(cost::measure(&Bench::new(root, rounds)?)?);
    }
    if wanted("rate-limit-keys") {
        say("rate-limit-keys: 100,000 keys against 100");
        rows.push(keys::measure(&Bench::new(root, rounds)?)?);
    }
    let four = wanted("four-filters") || wanted("four-filters-p99");
    let none = wanted("no-filter") || wanted("no-filter-nginx");
    if four || none {
        say("four-filters, no-filter: ours, Envoy and nginx in turns");
        rows.extend(gateways::measure(&Bench::new(root, rounds)?, four, none).await?);
    }
    Ok(rows)
}

/// Progress, for whoever waits for the table.
#[allow(clippy::print_stderr)] // progress is for the terminal; the table goes to stdout
fn say(text: &str) {
    eprintln!("==> {text}");
}
