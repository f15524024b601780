//! `mesh logs`: what the mesh that runs here has written, part by part.
//!
//! ```text
//!  mesh up ─▶ .mesh/logs/MESH.jsonl, .1, .2, … ─▶ mesh logs: by part, level and time ─▶ text, or the lines as they are
//! ```

mod file;
mod follow;
mod line;

pub use file::LogFile;

use crate::args::Output;
use crate::load::load;
use crate::screen::Screen;
use anyhow::bail;
use follow::Follower;
use line::{Line, Parts, Wanted};
use mesh_protocol::Timestamp;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing::Level;

/// Pause between two looks for further lines.
const LOOK: Duration = Duration::from_millis(200);

/// Show the logs of the mesh that runs here, of its parts and of agents that are programs
///
/// A part is gateway, orchestrator, sidecar, agent or bus; a name, such as data-processor; or both, such as
/// sidecar/data-processor. Exit codes: 0 shown (or ended by Ctrl-C), 1 there is no log, 64 usage.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Whose lines; all when left out
    pub parts: Vec<String>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only what is younger, such as 10m
    #[arg(long, value_parser = crate::args::ttl)]
    pub since: Option<Duration>,
    /// Only lines of this weight or more: error, warn, info, debug or trace
    #[arg(long, default_value = "trace", value_parser = level)]
    pub level: Level,
    /// The mesh
    #[arg(long, default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Form of what is printed; json passes the lines as they are
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse()
        .map_err(|_| "write error, warn, info, debug or trace".to_owned())
}

pub async fn run(args: &Logs) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let name = &loaded.mesh.name;
    let since = args.since.map(|since| {
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(Timestamp::now().millis().saturating_sub(since))
    });
    let wanted = Wanted::new(&args.parts, args.level, since);
    let path = file::path(&loaded.base, name);
    let (mut follower, kept) = Follower::open(&path)?;
    if !kept && !args.follow {
        bail!(
            "there is no log of mesh {name} in {}: mesh up keeps one there while it runs here. Of a mesh elsewhere: \
             docker-compose logs -f SERVICE; kubectl logs -f --prefix -l app.kubernetes.io/part-of={name}",
            path.display()
        );
    }
    let mut screen = Screen::stdout();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut parts = Parts::new(&args.parts);
    loop {
        while let Some(text) = follower.next()? {
            let Some(line) = Line::read(&text) else {
                continue;
            };
            parts.saw(&line);
            if wanted.wants(&line) {
                show(&mut screen, &line, args.output)?;
            }
        }
        // Once, of what was there: a name that is misspelt would be waited for for ever.
        if let Some(unseen) = parts.unseen() {
            Screen::stderr().line(unseen)?;
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            stop = &mut interrupt => {
                stop?;
                return Ok(ExitCode::SUCCESS);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn show(screen: &mut Screen, line: &Line, output: Output) -> std::io::Result<()> {
    match output {
        Output::Json => screen.line(line.json()),
        Output::Text => {
            let shown = line.shown(screen);
            screen.line(shown)
        }
    }
}
