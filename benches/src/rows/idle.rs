//! Connections that rest, and connections that come and go.

use super::{Bench, say};
use crate::median;
use crate::pairs::{Between, Form, Ground, Maker, Proxy};
use crate::process::allow_open_files;
use crate::row::{Row, figure};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What the row says.
pub const ABOUT: &str = "Resident memory of an inbound sidecar per connection, with 10,000 mTLS connections that had one request answered each and rest since: the growth of VmRSS since \
    the first connection, by their number. HTTP/2 is what sidecars speak with each other; the table has HTTP/1.1, too. What the kernel keeps for a socket is in no process and not counted.";
/// What the row says.
pub const ABOUT_HANDSHAKES: &str = "Full handshakes per second of an inbound sidecar: TLS 1.3 with X25519 and AES-128-GCM, P-256 certificates on both sides, no session resumed, 64 at a time, each on a \
    connection of its own that is closed thereafter. One thread serves, and a client that looks at no certificate takes the machine's other core.";

const MAKERS: [Maker; 3] = [Maker::Ours, Maker::Envoy, Maker::HaProxy];
const CONNECTIONS: usize = 10_000;
/// Beside the connections: listeners, files, connections to the agent.
const OTHER_FILES: u64 = 1_000;
/// Memory differs little from one time to the next.
const MOST_ROUNDS: usize = 2;
/// For what was allocated for the handshakes to be given back.
const REST: Duration = Duration::from_secs(1);
const SECONDS: u64 = 1;
/// Ten thousand handshakes take a few seconds; a busy machine gets the rest.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures the rows.
pub async fn measure(bench: &Bench, idle: bool, handshakes: bool) -> Result<Vec<Row>> {
    allow_open_files(u64::try_from(CONNECTIONS)? + OTHER_FILES)?;
    let ground = Ground::lay(bench, false).await?;
    let mut rows = Vec::new();
    if idle {
        rows.push(memory(bench, &ground).await?);
    }
    if handshakes {
        rows.push(greetings(bench, &ground).await?);
    }
    Ok(rows)
}

/// A part of this binary whose first line is read; gone when it is dropped.
struct Part {
    child: Child,
    line: String,
}

impl Part {
    /// Plays `part` as the client of `proxy` until it says its first line.
    async fn play(ground: &Ground, proxy: &Proxy, part: &str, arguments: &[&str]) -> Result<Self> {
        let client = ground.client();
        let mut child = Command::new(std::env::current_exe()?)
            .args([part, "--peer", &proxy.address.to_string(), "--certificate"])
            .arg(&client.certificate)
            .arg("--key")
            .arg(&client.key)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = child.stdout.take().context("no pipe")?;
        let mut lines = BufReader::new(out).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .with_context(|| format!("{part} says nothing for {LIMIT:?}"))??;
        let line = line.with_context(|| format!("{part} ended; {}", proxy.log_end()))?;
        Ok(Self { child, line })
    }

    async fn rest(ground: &Ground, proxy: &Proxy, between: Between, count: usize) -> Result<Self> {
        let count = count.to_string();
        let mut arguments = vec!["--host", proxy.service(), "--count", &count];
        if between == Between::Http2 {
            arguments.push("--http2");
        }
        Self::play(ground, proxy, "rest", &arguments).await
    }
}

/// KiB that a connection takes.
async fn resting_kib(ground: &Ground, form: Form) -> Result<f64> {
    let proxy = ground.inbound(form).await?;
    // What is made once, at the first request, is no connection's.
    drop(Part::rest(ground, &proxy, form.between, 1).await?);
    let before = proxy.resident_mib()?;
    let mut all = Part::rest(ground, &proxy, form.between, CONNECTIONS).await?;
    tokio::time::sleep(REST).await;
    let grown = proxy.resident_mib()? - before;
    let gone = all.child.try_wait()?;
    ensure!(gone.is_none(), "{form} closed connections that rested");
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let kib = grown * 1024.0 / CONNECTIONS as f64;
    say(&format!("  {form}: {} KiB per connection", figure(kib)));
    Ok(kib)
}

async fn memory(bench: &Bench, ground: &Ground) -> Result<Row> {
    let speaks = [Between::Http2, Between::Http1];
    // By maker, then by what is spoken.
    let mut kib = MAKERS.map(|_| speaks.map(|_| Vec::new()));
    for _ in 0..bench.rounds.min(MOST_ROUNDS) {
        for (maker, kib) in MAKERS.into_iter().zip(&mut kib) {
            for (between, kib) in speaks.into_iter().zip(kib) {
                kib.push(resting_kib(ground, Form::of(maker, between, 1)).await?);
            }
        }
    }
    let mut table = vec![["proxy", "HTTP/2", "HTTP/1.1"].map(str::to_owned).to_vec()];
    table.extend(MAKERS.iter().zip(&kib).map(|(maker, kib)| {
        let middles = kib.iter().map(|rounds| figure(median(rounds)));
        std::iter::once(maker.to_string()).chain(middles).collect()
    }));
    let [[ours, _], [envoy, _], _] = kib;
    let rounds: Vec<_> = ours.into_iter().zip(envoy).collect();
    Ok(Row::beside("sidecar-idle", "KiB", "Envoy", &rounds).with_table(table))
}

/// What a run of the load says.
#[derive(Deserialize)]
struct Greeted {
    count: f64,
    seconds: f64,
}

/// A server in all rounds.
struct Server {
    form: Form,
    proxy: Proxy,
    per_s: Vec<f64>,
    /// Processor microseconds of the server for each.
    cpu_us: Vec<f64>,
}

impl Server {
    async fn round(&mut self, ground: &Ground) -> Result<()> {
        let before = self.proxy.cpu_s()?;
        let seconds = SECONDS.to_string();
        let part = Part::play(ground, &self.proxy, "handshakes", &["--seconds", &seconds]).await?;
        let greeted: Greeted = serde_json::from_str(&part.line)?;
        let cpu_us = (self.proxy.cpu_s()? - before) * 1e6 / greeted.count;
        let per_s = greeted.count / greeted.seconds;
        say(&format!(
            "  {}: {} handshakes/s, {} µs each",
            self.form.maker,
            figure(per_s),
            figure(cpu_us)
        ));
        self.per_s.push(per_s);
        self.cpu_us.push(cpu_us);
        Ok(())
    }
}

async fn greetings(bench: &Bench, ground: &Ground) -> Result<Row> {
    let mut servers = Vec::new();
    for maker in MAKERS {
        let form = Form::of(maker, Between::Http2, 1);
        servers.push(Server {
            form,
            proxy: ground.inbound(form).await?,
            per_s: Vec::new(),
            cpu_us: Vec::new(),
        });
    }
    for _ in 0..bench.rounds {
        for server in &mut servers {
            server.round(ground).await?;
        }
    }
    let mut table = vec![
        ["proxy", "handshakes/s", "processor µs each"]
            .map(str::to_owned)
            .to_vec(),
    ];
    table.extend(servers.iter().map(|server| {
        vec![
            server.form.maker.to_string(),
            figure(median(&server.per_s)),
            figure(median(&server.cpu_us)),
        ]
    }));
    let [ours, envoy, ..] = servers.as_slice() else {
        anyhow::bail!("no peer was measured");
    };
    let ours = ours.per_s.iter().copied();
    let rounds: Vec<_> = ours.zip(envoy.per_s.iter().copied()).collect();
    Ok(
        Row::beside("sidecar-idle-handshakes", "1/s", "Envoy", &rounds)
            .with_table(table)
            .with_note(crate::machine::busy()),
    )
}
