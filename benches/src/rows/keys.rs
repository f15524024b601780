//! What many keys of a rate limit cost.

use super::cost::{Chain, Modules};
use super::{Bench, say};
use crate::row::{Goal, Row, figure};
use crate::{chain, median};
use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use mesh_wasm_host::{Engine, Limits};
use serde_json::json;

/// What the row says.
pub const ABOUT: &str = "Processor time of the rate_limit filter alone per request, its key in a header, with 100,000 distinct keys against 100: each side has its \
    keys used once before, and then asks for them in an order without a pattern, while none of them is idle. `slots` is 262,144, as docs/decisions/rate-limit-table.md \
    says for so many keys. The table has the default of 65,536 slots beside it, which 100,000 keys overfill: then most keys look at eight slots, and those nearest \
    to a full bucket are forgotten.";

const FEW: usize = 100;
const MANY: usize = 100_000;
/// For [`MANY`] keys, and by default.
const SLOTS: [u32; 2] = [262_144, 65_536];
/// Requests that a key has in [`WINDOW_S`]: no key is used up, and none is idle before the end.
const QUOTA: u32 = 1000;
const WINDOW_S: u32 = 86_400;
/// Bytes of a cell in shared data, as documented.
const CELL: usize = 120;
const BATCH: usize = 64;
const BATCHES: usize = 60;

/// Measures the row.
pub fn measure(bench: &Bench) -> Result<Row> {
    let modules = Modules::load(bench, Engine::new(Limits::default(), 8)?)?;
    let mut table = vec![
        [
            "slots",
            "µs with 100 keys",
            "µs with 100,000",
            "ratio",
            "cells",
            "KiB at 120 bytes",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut rows = Vec::new();
    for slots in SLOTS {
        let config = chain::limits(slots, &json!([{"header": "x-key"}]), QUOTA, WINDOW_S);
        let start = || modules.start(std::iter::once((1, &config)));
        let (mut few, mut many) = (Side::fill(start()?, FEW)?, Side::fill(start()?, MANY)?);
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let (mut fews, mut manys) = (Vec::new(), Vec::new());
            for _ in 0..BATCHES {
                manys.push(many.batch_us()?);
                fews.push(few.batch_us()?);
            }
            rounds.push((median(&manys), median(&fews)));
        }
        let (cells, bound) = (many.chain.shared.values(), usize::try_from(slots)?);
        ensure!(
            cells <= bound,
            "{cells} cells, more than the table has slots"
        );
        let row = Row::beside("rate-limit-keys", "µs", "100 keys", &rounds);
        let line = vec![
            slots.to_string(),
            figure(row.peer.unwrap_or_default()),
            figure(row.ours),
            figure(row.ratio.unwrap_or_default()),
            cells.to_string(),
            (cells * CELL / 1024).to_string(),
        ];
        say(&format!("  {}", line.join(", ")));
        table.push(line);
        rows.push(row);
    }
    let row = rows.into_iter().next().context("no row")?;
    Ok(row
        .with_goal(Goal::RatioAtMost(1.2))
        .with_table(table)
        .with_note(crate::machine::busy()))
}

struct Side {
    chain: Chain,
    keys: usize,
    /// State of the order of keys.
    at: u64,
}

impl Side {
    fn fill(chain: Chain, keys: usize) -> Result<Self> {
        let mut side = Self { chain, keys, at: 1 };
        for key in 0..keys {
            let mut exchange = side.exchange(key)?;
            side.chain.pass(&mut exchange)?;
        }
        Ok(side)
    }

    fn exchange(&self, key: usize) -> Result<mesh_wasm_host::Exchange> {
        let mut exchange = self.chain.exchange();
        let value = HeaderValue::from_str(&format!("key-{key:06}"))?;
        exchange.request.headers.insert("x-key", value);
        Ok(exchange)
    }

    fn batch_us(&mut self) -> Result<f64> {
        let mut exchanges = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let key = self.next();
            exchanges.push(self.exchange(key)?);
        }
        self.chain.batch_us(&mut exchanges)
    }

    /// xorshift64: any order that no cache foresees.
    fn next(&mut self) -> usize {
        self.at ^= self.at << 13;
        self.at ^= self.at >> 7;
        self.at ^= self.at << 17;
        usize::try_from(self.at >> 11).unwrap_or(0) % self.keys
    }
}
