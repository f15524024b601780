//! What two sidecars add to the time of a request when nothing is scarce.

use super::pairs::OURS;
use super::{Bench, say};
use crate::load::{Call, open_loop};
use crate::pairs::{Between, Form, Ground, Maker, Pair};
use crate::row::{Row, figure};
use crate::{median, quantile};
use anyhow::{Context, Result};
use std::time::Duration;

/// What the row says.
pub const ABOUT: &str = "What two proxies add to the median of the same request at 1,000 requests a second that arrive whether or not earlier ones were answered (open loop), against \
    the agent without proxies in the same round. A request's time begins when it was to be sent, so that one that waits for another counts its wait; the client's own part is in both.";
/// What the row says.
pub const ABOUT_P99: &str = "The same for the 99th percentile.";

const ENVOY: Form = Form::of(Maker::Envoy, Between::Http2, 1);
const FORMS: [Form; 4] = [
    OURS,
    Form::of(Maker::Ours, Between::Http1, 1),
    ENVOY,
    Form::of(Maker::HaProxy, Between::Http1, 1),
];
const PER_S: u32 = 1_000;
const WARM_UP: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(2);

struct Side {
    name: String,
    call: Call,
    pair: Option<Pair>,
    /// Microseconds of each round: median and 99th percentile.
    rounds: Vec<[f64; 2]>,
}

impl Side {
    async fn round(&mut self) -> Result<()> {
        open_loop(&self.call, PER_S, WARM_UP).await?;
        let millis = open_loop(&self.call, PER_S, DURATION).await?;
        let micros = [0.5, 0.99].map(|share| quantile(&millis, share) * 1000.0);
        let [p50, p99] = micros.map(figure);
        say(&format!("  {}: p50 {p50} µs, p99 {p99} µs", self.name));
        self.rounds.push(micros);
        Ok(())
    }

    /// What it takes beyond `less`, round by round.
    fn beyond(&self, less: &Self, share: usize) -> Vec<f64> {
        let rounds = self.rounds.iter().zip(&less.rounds);
        rounds
            .filter_map(|(its, less)| Some(its.get(share)? - less.get(share)?))
            .collect()
    }
}

/// Measures both rows.
pub async fn measure(bench: &Bench, ground: &Ground) -> Result<Vec<Row>> {
    let mut none = Side {
        name: "no proxy".to_owned(),
        call: ground.agent(),
        pair: None,
        rounds: Vec::new(),
    };
    let mut sides = Vec::new();
    for form in FORMS {
        let pair = ground.pair(form).await?;
        sides.push(Side {
            name: form.to_string(),
            call: pair.call()?,
            pair: Some(pair),
            rounds: Vec::new(),
        });
    }
    for _ in 0..bench.rounds {
        none.round().await?;
        for side in &mut sides {
            side.round().await?;
        }
    }
    let side = |form: Form| {
        let mut sides = sides.iter();
        sides.find(|side| side.pair.as_ref().is_some_and(|pair| pair.form == form))
    };
    let ours = side(OURS).context("ours was not measured")?;
    let envoy = side(ENVOY).context("Envoy was not measured")?;
    let row = |name: &str, share: usize| {
        let ours = ours.beyond(&none, share);
        let rounds: Vec<_> = ours.into_iter().zip(envoy.beyond(&none, share)).collect();
        Row::beside(name, "µs", &envoy.name, &rounds)
    };
    Ok(vec![
        row("sidecar-latency", 0)
            .with_table(table(&none, &sides))
            .with_note(crate::machine::busy()),
        row("sidecar-latency-p99", 1),
    ])
}

fn table(none: &Side, sides: &[Side]) -> Vec<Vec<String>> {
    let heads = [
        "proxies, between, threads of each",
        "p50 µs",
        "p99 µs",
        "added p50 µs",
        "added p99 µs",
    ];
    let middle = |side: &Side, share: usize| {
        let rounds = side.rounds.iter();
        figure(median(
            &rounds
                .filter_map(|round| round.get(share).copied())
                .collect::<Vec<_>>(),
        ))
    };
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.push(vec![
        none.name.clone(),
        middle(none, 0),
        middle(none, 1),
        "–".to_owned(),
        "–".to_owned(),
    ]);
    table.extend(sides.iter().map(|side| {
        vec![
            side.name.clone(),
            middle(side, 0),
            middle(side, 1),
            figure(median(&side.beyond(none, 0))),
            figure(median(&side.beyond(none, 1))),
        ]
    }));
    table
}
