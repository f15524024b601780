//! Our sidecars beside two Envoys and two HAProxys in the same roles.

use super::{Bench, latency, say};
use crate::median;
use crate::pairs::{Between, Form, Ground, Maker, Pair};
use crate::row::{Goal, Row, figure};
use crate::wrk::{Load, Reached};
use anyhow::{Context, Result};
use std::time::Duration;

/// What the row says.
pub const ABOUT: &str = "Requests per second from a client through two sidecars, mTLS between them, to an agent on loopback and back: wrk on one thread with 64 connections, \
    a GET answered with 1 KB by one nginx worker. Beside ours two Envoys and two HAProxys in the same roles, with certificates of the same authority; TLS 1.3 alone, and each side \
    checks the other's certificate (Envoy and ours also whose it is, by its URI). Ours is what a sidecar does by default: HTTP/2 between the two, one thread each; the peer is \
    Envoy's form with the most requests per second. All run at the same time, and are loaded in turns. Threads are Envoy's `--concurrency` and HAProxy's `nbthread`: with one \
    each, two proxies, nginx and wrk share the machine's two cores, so a second thread has little to win here, and processor time says more than requests per second. Ours finds \
    its peer in a Consul, and keeps metrics, intentions and health checks; Envoy has its default statistics and no access log, HAProxy neither.";
/// What the row says.
pub const ABOUT_P99: &str = "The 99th percentile of the same runs.";
/// What the row says.
pub const ABOUT_RSS: &str =
    "Resident memory of both proxies together in the middle of the same runs.";
/// What the row says.
pub const ABOUT_CPU: &str = "Processor seconds (user and system) of both proxies together per 100,000 requests of the same runs, against HAProxy's form that takes the least.";

/// What a sidecar does by default.
pub const OURS: Form = Form::of(Maker::Ours, Between::Http2, 1);
const FORMS: [Form; 10] = [
    OURS,
    Form::of(Maker::Ours, Between::Http1, 1),
    Form::of(Maker::Ours, Between::Http2, 2),
    Form::of(Maker::Ours, Between::Http1, 2),
    Form::of(Maker::Envoy, Between::Http2, 1),
    Form::of(Maker::Envoy, Between::Http1, 1),
    Form::of(Maker::Envoy, Between::Http2, 2),
    Form::of(Maker::HaProxy, Between::Http1, 1),
    Form::of(Maker::HaProxy, Between::Http2, 1),
    Form::of(Maker::HaProxy, Between::Http1, 2),
];

const WARM_UP_S: u32 = 1;
const SECONDS: u32 = 2;

/// Measures the rows: those at full load, those at a fixed rate.
pub async fn measure(bench: &Bench, full: bool, fixed: bool) -> Result<Vec<Row>> {
    let ground = Ground::lay(bench, true).await?;
    let mut rows = Vec::new();
    if full {
        rows.extend(speed(bench, &ground).await?);
    }
    if fixed {
        rows.extend(latency::measure(bench, &ground).await?);
    }
    Ok(rows)
}

/// A form in one round.
struct Run {
    reached: Reached,
    /// Processor seconds of both per 100,000 requests.
    cpu_s: f64,
    /// Resident memory of outbound and inbound, in MiB.
    resident: [f64; 2],
}

/// A form in all rounds.
struct Side {
    pair: Pair,
    load: Load,
    runs: Vec<Run>,
}

impl Side {
    async fn round(&mut self) -> Result<()> {
        let before = self.pair.cpu_s()?;
        let (reached, resident) =
            tokio::join!(self.load.run(self.pair.outbound.address, SECONDS), async {
                tokio::time::sleep(Duration::from_secs(SECONDS.into()) / 2).await;
                let (outbound, inbound) = (&self.pair.outbound, &self.pair.inbound);
                Ok::<_, anyhow::Error>([outbound.resident_mib()?, inbound.resident_mib()?])
            });
        let (reached, resident) = (reached?, resident?);
        let cpu_s = (self.pair.cpu_s()? - before) * 1e5 / reached.requests;
        say(&format!(
            "  {}: {} req/s, p99 {} ms, {} s per 100,000",
            self.pair.form,
            figure(reached.per_s),
            figure(reached.p99_ms),
            figure(cpu_s)
        ));
        self.runs.push(Run {
            reached,
            cpu_s,
            resident,
        });
        Ok(())
    }

    fn each(&self, of: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    fn middle(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(&self.each(of))
    }

    /// Ours and this one, round by round.
    fn beside(&self, ours: &Self, of: impl Fn(&Run) -> f64) -> Vec<(f64, f64)> {
        let ours = ours.each(&of);
        ours.into_iter().zip(self.each(&of)).collect()
    }
}

async fn speed(bench: &Bench, ground: &Ground) -> Result<Vec<Row>> {
    let scratch = bench.scratch.path();
    let mut sides = Vec::new();
    for form in FORMS {
        let pair = ground.pair(form).await?;
        let script = scratch.join(format!("{}.lua", pair.inbound.service()));
        let load = Load::get(&script, pair.inbound.service())?;
        load.run(pair.outbound.address, WARM_UP_S).await?;
        sides.push(Side {
            pair,
            load,
            runs: Vec::new(),
        });
    }
    let alone = Load::get(&scratch.join("agent.lua"), "agent")?;
    let alone = alone.run(ground.agent().address, SECONDS).await?;
    for _ in 0..bench.rounds {
        for side in &mut sides {
            side.round().await?;
        }
    }
    rows(&sides, &alone)
}

fn rows(sides: &[Side], alone: &Reached) -> Result<Vec<Row>> {
    let per_s = |run: &Run| run.reached.per_s;
    let p99 = |run: &Run| run.reached.p99_ms;
    let cpu = |run: &Run| run.cpu_s;
    let resident = |run: &Run| run.resident.iter().sum();
    let of = |maker: Maker| {
        sides
            .iter()
            .filter(move |side| side.pair.form.maker == maker)
    };
    let ours = sides
        .iter()
        .find(|side| side.pair.form == OURS)
        .context("ours was not measured")?;
    let envoy = of(Maker::Envoy)
        .max_by(|a, b| a.middle(per_s).total_cmp(&b.middle(per_s)))
        .context("Envoy was not measured")?;
    let haproxy = of(Maker::HaProxy)
        .min_by(|a, b| a.middle(cpu).total_cmp(&b.middle(cpu)))
        .context("HAProxy was not measured")?;
    let name = envoy.pair.form.to_string();
    let row = |row: &str, unit: &str, peer: &Side, pairs| {
        Row::beside(row, unit, &peer.pair.form.to_string(), pairs)
    };
    Ok(vec![
        row("sidecar-http", "req/s", envoy, &envoy.beside(ours, per_s))
            .with_goal(Goal::RatioAtLeast(1.5))
            .with_table(table(sides, envoy))
            .with_note(format!(
                "the agent without proxies: {} req/s, p50 {} ms, p99 {} ms",
                figure(alone.per_s),
                figure(alone.p50_ms),
                figure(alone.p99_ms)
            ))
            .with_note(crate::machine::busy()),
        Row::beside("sidecar-http-p99", "ms", &name, &envoy.beside(ours, p99))
            .with_goal(Goal::RatioAtMost(1.0)),
        row(
            "sidecar-http-rss",
            "MiB",
            envoy,
            &envoy.beside(ours, resident),
        )
        // A third.
        .with_goal(Goal::RatioAtMost(0.333)),
        of(Maker::HaProxy)
            .filter(|other| other.pair.form != haproxy.pair.form)
            .fold(
                row("sidecar-http-cpu", "s", haproxy, &haproxy.beside(ours, cpu))
                    .with_goal(Goal::RatioAtMost(1.0)),
                |row, other| row.with_note(against(other, ours, cpu)),
            ),
    ])
}

fn against(other: &Side, ours: &Side, of: impl Fn(&Run) -> f64) -> String {
    let rounds = other.beside(ours, of).into_iter();
    let ratios: Vec<f64> = rounds.map(|(ours, its)| ours / its).collect();
    format!(
        "against {}: ratio {}",
        other.pair.form,
        figure(median(&ratios))
    )
}

fn table(sides: &[Side], envoy: &Side) -> Vec<Vec<String>> {
    let heads = [
        "proxies, between, threads of each",
        "req/s",
        "of Envoy's",
        "p50 ms",
        "p99 ms",
        "s per 100,000",
        "MiB out",
        "MiB in",
    ];
    let lines = sides.iter().map(|side| {
        let ratios: Vec<f64> = envoy
            .beside(side, |run| run.reached.per_s)
            .iter()
            .map(|(its, peer)| its / peer)
            .collect();
        vec![
            side.pair.form.to_string(),
            figure(side.middle(|run| run.reached.per_s)),
            figure(median(&ratios)),
            figure(side.middle(|run| run.reached.p50_ms)),
            figure(side.middle(|run| run.reached.p99_ms)),
            figure(side.middle(|run| run.cpu_s)),
            figure(side.middle(|run| run.resident[0])),
            figure(side.middle(|run| run.resident[1])),
        ]
    });
    std::iter::once(heads.map(str::to_owned).to_vec())
        .chain(lines)
        .collect()
}
