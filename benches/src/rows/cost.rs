//! What each filter costs a request: processor time, fuel, and calls of the host.

use super::{Bench, say};
use crate::chain::{self, Algorithm, FILTERS, Keys};
use crate::median;
use crate::row::{Goal, Row, figure};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::HeaderValue;
use mesh_wasm_host::{Action, Engine, Exchange, Limits, Module, RootId, Shared, Vm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the row says.
pub const ABOUT: &str = "Processor time of the chain of four for a task POST of 1 KB with an HS256 token that it has seen before: every callback of a request, from the \
    creation of its contexts to their end, in the host alone, without sockets and HTTP. The table has each filter alone (the later ones find the caller that jwt_auth would \
    have left) and the chain, with tokens seen before and tokens seen for the first time. Fuel (wasmtime's, about one per instruction) and calls of the host's functions are \
    counted in an engine of its own, since counting takes time. On a real Kong it is the calls that a filter is paid in.";

/// Requests per reading of the processor's clock, which is a system call.
const BATCH: usize = 16;
/// Batches per round and case.
const BATCHES: usize = 24;
/// The same where every request needs a token of its own.
const FIRST_BATCHES: usize = 4;
/// Requests before the first that is measured.
const WARM_UP: usize = 64;
/// Requests whose fuel and calls are counted.
const COUNTED: usize = 16;
/// The service's answer.
const RESPONSE: Bytes = Bytes::from_static(b"{}");
/// What the chain may take on a real Kong, in microseconds.
const GOAL_US: f64 = 60.0;

/// What is measured.
struct Case {
    /// Places in [`FILTERS`].
    filters: &'static [usize],
    token: Algorithm,
    /// Each request has a token that was never seen.
    first: bool,
}

const CHAIN: &[usize] = &[0, 1, 2, 3];

fn cases() -> Vec<Case> {
    let with = |filters, token, first| Case {
        filters,
        token,
        first,
    };
    let mut cases = Vec::new();
    for filters in [&[0], CHAIN] {
        for first in [false, true] {
            cases.extend(Algorithm::ALL.map(|token| with(filters, token, first)));
        }
    }
    for alone in [&[1], &[2], &[3]] {
        cases.push(with(alone, Algorithm::Hs256, false));
    }
    cases.sort_by_key(|case| (case.filters.len(), case.filters.first()));
    cases
}

impl Case {
    fn name(&self) -> String {
        match self.filters {
            [one] => (*FILTERS.get(*one).unwrap_or(&"")).to_owned(),
            _ => "chain of four".to_owned(),
        }
    }

    fn token_name(&self) -> String {
        if self.filters.first() != Some(&0) {
            return "–".to_owned();
        }
        let seen = if self.first {
            "first sight"
        } else {
            "seen before"
        };
        format!("{}, {seen}", self.token.name())
    }

    fn is_headline(&self) -> bool {
        self.filters == CHAIN && self.token == Algorithm::Hs256 && !self.first
    }
}

/// Measures the row.
pub fn measure(bench: &Bench) -> Result<Row> {
    let keys = Keys::read(&bench.root)?;
    let timed = Modules::load(bench, Engine::new(Limits::default(), 8)?)?;
    let counted = Modules::load(bench, Engine::measured(Limits::default(), 8)?)?;
    let configs = keys.configs()?;
    let mut tokens = Tokens { keys, used: 0 };
    let mut table = vec![
        ["filter", "token", "µs", "fuel", "host calls"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut headline = Vec::new();
    let mut called = BTreeMap::new();
    for case in cases() {
        let rounds = (0..bench.rounds)
            .map(|_| timed.chain(&case, &configs)?.time_us(&case, &mut tokens))
            .collect::<Result<Vec<f64>>>()?;
        let (fuel, calls) = counted.chain(&case, &configs)?.count(&case, &mut tokens)?;
        let sum: f64 = calls.values().sum();
        table.push(vec![
            case.name(),
            case.token_name(),
            figure(median(&rounds)),
            format!("{fuel:.0}"),
            figure(sum),
        ]);
        say(&format!(
            "  {}",
            table
                .last()
                .map(|cells| cells.join(", "))
                .unwrap_or_default()
        ));
        if case.is_headline() {
            headline = rounds;
            called = calls;
        }
    }
    let calls = called
        .iter()
        .map(|(name, count)| format!("{} {}", figure(*count), name.trim_start_matches("proxy_")));
    let sizes = timed
        .sizes
        .iter()
        .zip(FILTERS)
        .map(|(size, name)| format!("{name} {size}"));
    Ok(Row::alone("filter-cost", "µs", &headline)
        .with_goal(Goal::AtMost(GOAL_US))
        .with_table(table)
        .with_note(format!(
            "bytes of the modules: {}",
            sizes.collect::<Vec<_>>().join(", ")
        ))
        .with_note(format!(
            "calls of the chain, token seen before: {}",
            calls.collect::<Vec<_>>().join(", ")
        ))
        .with_note(crate::machine::busy()))
}

/// The four modules, compiled.
pub(super) struct Modules {
    modules: Vec<Module>,
    sizes: Vec<usize>,
}

impl Modules {
    pub(super) fn load(bench: &Bench, engine: Engine) -> Result<Self> {
        let mut all = Self {
            modules: Vec::new(),
            sizes: Vec::new(),
        };
        for name in FILTERS {
            let path = bench
                .root
                .join("target/filters")
                .join(format!("{name}.wasm"));
            let bytes = std::fs::read(&path).with_context(|| {
                format!("{} cannot be read; make filters builds it", path.display())
            })?;
            all.sizes.push(bytes.len());
            all.modules.push(Module::compile(&engine, name, &bytes)?);
        }
        Ok(all)
    }

    fn chain(&self, case: &Case, configs: &[Value; 4]) -> Result<Chain> {
        let chosen = case
            .filters
            .iter()
            .filter_map(|place| Some((*place, configs.get(*place)?)));
        self.start(chosen)
    }

    /// VMs of these filters, by their place, with these configurations.
    pub(super) fn start<'a>(
        &self,
        filters: impl Iterator<Item = (usize, &'a Value)>,
    ) -> Result<Chain> {
        let shared = Arc::new(Shared::default());
        let mut vms = Vec::new();
        for (place, config) in filters {
            let module = self.modules.get(place).context("no such filter")?;
            let mut vm = Vm::new(module, Arc::clone(&shared))?;
            let root = vm.configure("bench", Bytes::from(config.to_string()))?;
            vms.push((vm, root));
        }
        Ok(Chain {
            vms,
            shared,
            body: Bytes::from(chain::body()),
        })
    }
}

/// Filters that run.
pub(super) struct Chain {
    vms: Vec<(Vm, RootId)>,
    pub(super) shared: Arc<Shared>,
    body: Bytes,
}

impl Chain {
    /// One request through all callbacks.
    pub(super) fn pass(&mut self, exchange: &mut Exchange) -> Result<()> {
        let mut contexts = Vec::with_capacity(self.vms.len());
        for (vm, root) in &mut self.vms {
            let context = vm.create_context(*root)?;
            contexts.push(context);
            goes_on(vm.on_request_headers(context, exchange, false)?)?;
        }
        for ((vm, _), context) in self.vms.iter_mut().zip(&contexts) {
            goes_on(vm.on_request_body(*context, exchange)?)?;
        }
        for ((vm, _), context) in self.vms.iter_mut().zip(&contexts).rev() {
            goes_on(vm.on_response_headers(*context, exchange, false)?)?;
        }
        // A part and the end, as the gateway tells of a response that a service sent.
        for end in [false, true] {
            exchange.response_body = if end { Bytes::new() } else { RESPONSE };
            for ((vm, _), context) in self.vms.iter_mut().zip(&contexts).rev() {
                goes_on(vm.on_response_body(*context, exchange, end)?)?;
            }
        }
        for ((vm, _), context) in self.vms.iter_mut().zip(&contexts) {
            vm.finish(*context, exchange)?;
        }
        Ok(())
    }

    /// The request as the gateway shows it to filters.
    pub(super) fn exchange(&self) -> Exchange {
        let mut exchange = Exchange {
            request_body: self.body.clone(),
            ..Exchange::default()
        };
        let head = &mut exchange.request;
        head.set_pseudo(":method", "POST");
        head.set_pseudo(":path", chain::PATH);
        head.set_pseudo(":authority", "127.0.0.1:10005");
        head.set_pseudo(":scheme", "http");
        for (name, value) in [
            ("host", "127.0.0.1:10005"),
            ("accept", "*/*"),
            ("user-agent", "bench"),
            ("content-type", "application/json"),
        ] {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        head.headers
            .insert("content-length", HeaderValue::from(self.body.len()));
        exchange.response.set_pseudo(":status", "200");
        let properties = &mut exchange.properties;
        for (name, value) in [
            ("request.method", "POST"),
            ("request.path", chain::PATH),
            ("request.url_path", chain::PATH),
            ("request.query", ""),
            ("request.host", "127.0.0.1:10005"),
            ("request.scheme", "http"),
            ("source.address", "127.0.0.1"),
            ("source.port", "40000"),
            ("destination.port", "10005"),
            ("kong.route_name", "orchestrate"),
        ] {
            properties.set(name, value);
        }
        properties.set("kong.ctx.shared.mesh_caller", chain::caller());
        exchange
    }

    fn exchanges(&self, count: usize, case: &Case, tokens: &mut Tokens) -> Result<Vec<Exchange>> {
        let known = tokens.known(case.token);
        (0..count)
            .map(|_| {
                let token = if case.first {
                    tokens.fresh(case.token)
                } else {
                    known.clone()
                };
                let mut exchange = self.exchange();
                let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
                exchange.request.headers.insert("authorization", value);
                Ok(exchange)
            })
            .collect()
    }

    /// Microseconds of processor time per request: the median of batches.
    fn time_us(mut self, case: &Case, tokens: &mut Tokens) -> Result<f64> {
        self.warm(case, tokens)?;
        let batches = if case.first { FIRST_BATCHES } else { BATCHES };
        let mut times = Vec::with_capacity(batches);
        for _ in 0..batches {
            let mut exchanges = self.exchanges(BATCH, case, tokens)?;
            times.push(self.batch_us(&mut exchanges)?);
        }
        Ok(median(&times))
    }

    /// Microseconds of processor time per request of this batch.
    pub(super) fn batch_us(&mut self, exchanges: &mut [Exchange]) -> Result<f64> {
        let start = cpu_time::ThreadTime::try_now()?;
        for exchange in &mut *exchanges {
            self.pass(exchange)?;
        }
        #[allow(clippy::cast_precision_loss)] // a batch is small
        let requests = exchanges.len() as f64;
        Ok(start.try_elapsed()?.as_secs_f64() * 1e6 / requests)
    }

    fn warm(&mut self, case: &Case, tokens: &mut Tokens) -> Result<()> {
        let known = Case {
            first: false,
            ..*case
        };
        for mut exchange in self.exchanges(WARM_UP, &known, tokens)? {
            self.pass(&mut exchange)?;
        }
        Ok(())
    }

    /// Fuel and calls per request.
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    fn count(mut self, case: &Case, tokens: &mut Tokens) -> Result<(f64, BTreeMap<String, f64>)> {
        self.warm(case, tokens)?;
        let before = self.used()?;
        for mut exchange in self.exchanges(COUNTED, case, tokens)? {
            self.pass(&mut exchange)?;
        }
        let after = self.used()?;
        let each = |sum: u64| sum as f64 / COUNTED as f64;
        let calls = after.1.iter().map(|(name, count)| {
            let earlier = before.1.get(name).copied().unwrap_or(0);
            (name.clone(), each(count.saturating_sub(earlier)))
        });
        Ok((
            each(after.0.saturating_sub(before.0)),
            calls.filter(|(_, count)| *count > 0.0).collect(),
        ))
    }

    fn used(&self) -> Result<(u64, BTreeMap<String, u64>)> {
        let mut sum = (0_u64, BTreeMap::new());
        for (vm, _) in &self.vms {
            let usage = vm.usage().context("the engine does not measure")?;
            sum.0 = sum.0.saturating_add(usage.fuel);
            for (name, count) in usage.calls {
                *sum.1.entry(name).or_default() += count;
            }
        }
        Ok(sum)
    }
}

fn goes_on(action: Action) -> Result<()> {
    match action {
        Action::Continue => Ok(()),
        Action::Respond(answer) => bail!(
            "a filter answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        ),
    }
}

/// Tokens, each of which is new once.
struct Tokens {
    keys: Keys,
    used: usize,
}

impl Tokens {
    fn fresh(&mut self, algorithm: Algorithm) -> String {
        self.used += 1;
        self.keys.token(algorithm, self.used)
    }

    fn known(&self, algorithm: Algorithm) -> String {
        self.keys.token(algorithm, 0)
    }
}
