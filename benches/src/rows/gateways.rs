//! The local gateway beside Envoy and nginx.

use super::{Bench, say};
use crate::chain::{self, Algorithm, Keys};
use crate::gateways::{FOUR, Gateways, NONE, Side};
use crate::load::{Call, until_right};
use crate::median;
use crate::row::{Goal, Row, figure};
use crate::wrk::{Load, Reached};
use anyhow::Result;
use std::time::Duration;

/// What the row says.
pub const ABOUT_FOUR: &str = "Requests per second through the four filters: the same modules with the same configurations in Envoy (V8) and in the local gateway, a task \
    POST of 1 KB with an HS256 token, wrk on one thread with 32 connections, two workers each, one nginx worker behind both that answers at once.";
/// What the row says.
pub const ABOUT_FOUR_P99: &str = "The 99th percentile of the same runs.";
/// What the row says.
pub const ABOUT_NONE: &str = "The same request through the same gateways without filters.";
/// What the row says.
pub const ABOUT_NGINX: &str =
    "The same, with an nginx of two workers in Envoy's place: a proxy in C that looks at nothing.";

/// For the filters to be compiled on a busy machine.
const READY: Duration = Duration::from_secs(60);
const WARM_UP_S: u32 = 1;
const SECONDS: u32 = 4;

/// Measures the rows, those with filters and those without.
pub async fn measure(bench: &Bench, four: bool, none: bool) -> Result<Vec<Row>> {
    let keys = Keys::read(&bench.root)?;
    let token = keys.token(Algorithm::Hs256, 0);
    let load = Load::task(&bench.scratch.path().join("task.lua"), &token)?;
    let gateways = Gateways::start(bench, &keys).await?;
    // A gateway listens before its filters are compiled.
    for side in gateways.all() {
        let body = serde_json::from_str(&chain::body())?;
        let call = Call::post(side.address, chain::PATH, &body, "")
            .with_header("authorization", &format!("Bearer {token}"))?;
        until_right(&call, READY).await?;
    }
    let mut rows = Vec::new();
    if four {
        let sides = [gateways.ours(FOUR)?, gateways.envoy(FOUR)];
        let runs = runs(bench, &load, sides, ["ours", "Envoy"]).await?;
        rows.push(speed("four-filters", "Envoy", &runs, 1).with_goal(Goal::RatioAtLeast(1.5)));
        let p99 = runs.pairs(1, |run| run.reached.p99_ms);
        rows.push(
            Row::beside("four-filters-p99", "ms", "Envoy", &p99).with_goal(Goal::RatioAtMost(1.0)),
        );
    }
    if none {
        let sides = [gateways.ours(NONE)?, gateways.envoy(NONE), gateways.nginx()];
        let runs = runs(bench, &load, sides, ["ours", "Envoy", "nginx"]).await?;
        rows.push(speed("no-filter", "Envoy", &runs, 1));
        rows.push(speed("no-filter-nginx", "nginx", &runs, 2));
    }
    Ok(rows)
}

/// One side in one round.
struct Run {
    reached: Reached,
    /// Microseconds of processor time of the gateway per request.
    cpu_us: f64,
}

/// Rounds, each with a run of every side.
struct Runs(Vec<Vec<Run>>);

impl Runs {
    fn pairs(&self, peer: usize, of: impl Fn(&Run) -> f64) -> Vec<(f64, f64)> {
        let rounds = self.0.iter();
        rounds
            .filter_map(|round| Some((of(round.first()?), of(round.get(peer)?))))
            .collect()
    }

    /// The medians of ours and the peer's.
    fn medians(&self, peer: usize, of: impl Fn(&Run) -> f64) -> (f64, f64) {
        let (ours, peers): (Vec<f64>, Vec<f64>) = self.pairs(peer, of).into_iter().unzip();
        (median(&ours), median(&peers))
    }
}

async fn runs<const SIDES: usize>(
    bench: &Bench,
    load: &Load,
    sides: [Side; SIDES],
    names: [&str; SIDES],
) -> Result<Runs> {
    for side in &sides {
        load.run(side.address, WARM_UP_S).await?;
    }
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let mut round = Vec::new();
        for side in &sides {
            let before = side.cpu_s()?;
            let reached = load.run(side.address, SECONDS).await?;
            let cpu_us = (side.cpu_s()? - before) * 1e6 / reached.requests;
            round.push(Run { reached, cpu_us });
        }
        let told = round.iter().zip(names).map(|(run, name)| {
            let Run { reached, cpu_us } = run;
            let (per_s, p99) = (figure(reached.per_s), figure(reached.p99_ms));
            format!("{name} {per_s} req/s, p99 {p99} ms, {} µs", figure(*cpu_us))
        });
        say(&format!("  {}", told.collect::<Vec<_>>().join("; ")));
        rounds.push(round);
    }
    Ok(Runs(rounds))
}

fn speed(name: &str, peer_name: &str, runs: &Runs, peer: usize) -> Row {
    let of = |what: &dyn Fn(&Run) -> f64| {
        let (ours, peers) = runs.medians(peer, what);
        format!("ours {}, {peer_name} {}", figure(ours), figure(peers))
    };
    Row::beside(
        name,
        "req/s",
        peer_name,
        &runs.pairs(peer, |run| run.reached.per_s),
    )
    .with_note(format!("p50 ms: {}", of(&|run| run.reached.p50_ms)))
    .with_note(format!("p99 ms: {}", of(&|run| run.reached.p99_ms)))
    .with_note(format!(
        "processor µs per request: {}",
        of(&|run| run.cpu_us)
    ))
    .with_note(crate::machine::busy())
}
