//! `mesh top`: what every part does, every second, from the metrics that they show anyone.

mod draw;
mod metrics;
mod picture;
mod terminal;
mod watch;

use crate::args::Output;
use crate::load::{Loaded, addresses, environment, load};
use crate::screen::{Screen, json_line};
use anyhow::Context;
use mesh_config::derive::{INTERNAL_TOKEN, derived};
use mesh_config::secret::Secrets;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use terminal::{Terminal, painted, size};
use tokio::signal::unix::{SignalKind, signal};
use watch::{EVERY, Watch, sources};

/// How long `--once` waits for two answers of each part.
const ONCE: Duration = Duration::from_secs(3);

/// Show what every part of the mesh does, every second, until Ctrl-C
///
/// On a terminal a table in place; elsewhere one after the other. -o json writes a line a second. Exit codes: 0 shown,
/// 1 no mesh is known, 64 usage.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Once, after two answers of each part, and end
    #[arg(long)]
    pub once: bool,
    /// Where the gateway's metrics are (gateway --status), such as http://127.0.0.1:9100; mesh up says it by itself
    #[arg(long, env = "MESH_GATEWAY_METRICS")]
    pub gateway_metrics: Option<String>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub async fn run(args: &Top) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let addresses = addresses(&loaded)?;
    let name = &loaded.mesh.name;
    let gateway = args
        .gateway_metrics
        .as_ref()
        .map(|url| base(url))
        .transpose()?;
    let client = mesh_local::probe::client()?;
    let token = token(&loaded);
    let watch = Watch::begin(sources(&addresses, gateway), &client, token.as_deref());
    let mut screen = Screen::stdout();
    if args.once {
        watch.settled(2, ONCE).await;
        show(&mut screen, name, &watch, args.output, usize::MAX)?;
        return Ok(ExitCode::SUCCESS);
    }
    let live = args.output == Output::Text && io::stdout().is_terminal();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut resized = signal(SignalKind::window_change())?;
    // Only a screen that was taken has to be given back before a stop.
    let mut stop = live
        .then(|| signal(SignalKind::from_raw(SIGTSTP)))
        .transpose()?;
    let mut terminal = live.then(|| Terminal::take(Screen::stdout())).transpose()?;
    watch.settled(1, EVERY).await;
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            Some(()) = stopped(&mut stop) => {
                terminal.as_mut().map(Terminal::pause).transpose()?;
            }
            _ = resized.recv(), if live => {}
            _ = every.tick() => {}
        }
        match &mut terminal {
            Some(terminal) => {
                let (_, columns) = size();
                terminal.draw(&draw::lines(&picture::of(name, &watch), columns))?;
            }
            None => show(&mut screen, name, &watch, args.output, usize::MAX)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What Ctrl-Z sends, on every Linux but MIPS'.
const SIGTSTP: i32 = 20;

async fn stopped(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn show(
    screen: &mut Screen,
    name: &str,
    watch: &Watch,
    output: Output,
    width: usize,
) -> anyhow::Result<()> {
    let picture = picture::of(name, watch);
    match output {
        Output::Json => screen.line(json_line(&serde_json::to_value(&picture)?))?,
        Output::Text => {
            for line in draw::lines(&picture, width) {
                let line = painted(screen, &line);
                screen.line(line)?;
            }
            screen.line("")?;
        }
    }
    Ok(())
}

fn base(url: &str) -> anyhow::Result<String> {
    let parsed = reqwest::Url::parse(url.trim()).ok();
    let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = parsed.context("--gateway-metrics is no http:// or https:// URL")?;
    let url = url.as_str().trim_end_matches('/');
    Ok(url.strip_suffix("/metrics").unwrap_or(url).to_owned())
}

/// The mesh's internal token, for whoever may read its assertion key; without it queues are not known.
fn token(loaded: &Loaded) -> Option<String> {
    let key = &loaded.mesh.gateway.assertion_key;
    let named = [("gateway.assertion.key".to_owned(), key)];
    let secrets = Secrets::resolve(named, &loaded.base, &environment).ok()?;
    derived(key, &secrets, INTERNAL_TOKEN).ok()
}
