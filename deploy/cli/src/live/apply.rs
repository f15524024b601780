//! `mesh apply`: shows what is different, asks for leave, and makes it one change at a time.

use super::http::Api;
use super::lock::Lock;
use super::resource::{Change, Part};
use super::shown::{Mask, counts};
use super::{DIFFERS, Live};
use crate::args::Output;
use crate::load::{Loaded, load};
use crate::screen::{self, Paint, Screen, plain};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Only these; every one that mesh.yaml says the address of when left out
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Delete queues, or declare them anew, with the messages that they hold
    #[arg(long)]
    pub delete_queues_with_messages: bool,
    /// How long another apply is waited for, such as 30s
    #[arg(long, default_value = "30s", value_parser = patience)]
    pub lock_timeout: Duration,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

fn patience(text: &str) -> Result<Duration, String> {
    mesh_config::duration(text)
        .ok_or_else(|| "write a whole number and s, m or h, such as 30s".to_owned())
}

/// How far it came.
#[derive(Default)]
struct Done {
    /// How many of the changes stand.
    made: usize,
    /// Why the next one does not.
    stopped: Option<anyhow::Error>,
}

pub async fn apply(args: &Apply) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let mut live = Live::new(&loaded, &args.only, args.delete_queues_with_messages)?;
    if args.dry_run {
        return run(args, &mut live, None).await;
    }
    // Before anything is read: what was read is what is changed.
    let lock = lock(args, &loaded).await?;
    let outcome = run(args, &mut live, Some(&lock)).await;
    lock.release().await;
    outcome
}

async fn lock(args: &Apply, loaded: &Loaded) -> anyhow::Result<Lock> {
    // Whichever part is applied: two applies of one mesh must meet.
    let consul: Option<Arc<Api>> = super::consul_api(loaded)?.map(Arc::new);
    let waits = |who: &str| {
        let _ = Screen::stderr().line(format!("waiting: {}", plain(who)));
    };
    Lock::take(
        consul,
        &loaded.mesh.name,
        &loaded.base,
        args.lock_timeout,
        waits,
    )
    .await
}

async fn run(args: &Apply, live: &mut Live, lock: Option<&Lock>) -> anyhow::Result<ExitCode> {
    let changes = live.read().await?;
    let text = args.output == Output::Text;
    // What was begun is brought to its end when nobody listens any more.
    let mut screen = Screen::stdout().outlasting_its_reader();
    if text {
        live.print(&mut screen, &changes)?;
    }
    let Some(lock) = lock else {
        return report(args, live, &mut screen, &changes, None);
    };
    if !changes.is_empty() && !args.yes && !leave(&changes)? {
        if text {
            screen
                .line("nothing was done: without a terminal to ask at, leave is given by --yes")?;
        }
        return report(args, live, &mut screen, &changes, None);
    }
    let done = make(live, lock, &changes, text.then_some(&mut screen)).await;
    report(args, live, &mut screen, &changes, Some(done))
}

/// Makes the changes, until one fails.
async fn make(
    live: &Live,
    lock: &Lock,
    changes: &[Change],
    mut screen: Option<&mut Screen>,
) -> Done {
    let mut done = Done::default();
    if let Some(rabbit) = live.rabbit.as_ref().filter(|_| !changes.is_empty())
        && let Err(error) = rabbit.begin().await
    {
        done.stopped = Some(error.context("noting down what is the mesh's"));
        return done;
    }
    let mut replaced = false;
    for change in changes {
        let made = match lock.check() {
            Err(lost) => Err(lost),
            Ok(()) => match (change.key.part, &live.rabbit, &live.consul, &live.kong) {
                (Part::Rabbitmq, Some(rabbit), _, _) => rabbit.change(change).await,
                (Part::Consul, _, Some(consul), _) => consul.change(change).await,
                // All at once: what belongs together changes together.
                (Part::Kong, _, _, Some(kong)) if !replaced => {
                    replaced = true;
                    kong.replace().await
                }
                _ => Ok(()),
            },
        };
        if let Err(error) = made {
            done.stopped = Some(error);
            return done;
        }
        done.made += 1;
        if let Some(screen) = screen.as_deref_mut() {
            let word = screen.paint(Paint::Good, "done");
            let _ = screen.line(format!("{word} {}", plain(&change.key.to_string())));
        }
    }
    if let Some(rabbit) = &live.rabbit
        && let Err(error) = rabbit.finish().await
    {
        done.stopped = Some(error.context("noting down what is the mesh's"));
    }
    done
}

/// Whether somebody at a terminal says yes.
fn leave(changes: &[Change]) -> anyhow::Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    Screen::stderr().text(&format!("{}. Go on? [y/N] ", counts(changes)))?;
    let mut said = String::new();
    stdin.lock().read_line(&mut said)?;
    Ok(matches!(said.trim(), "y" | "Y" | "yes"))
}

/// Says how it ended; `done` is none where nothing was to be done.
fn report(
    args: &Apply,
    live: &Live,
    screen: &mut Screen,
    changes: &[Change],
    done: Option<Done>,
) -> anyhow::Result<ExitCode> {
    let applied = done.is_some();
    let Done { made, stopped } = done.unwrap_or_default();
    let why = stopped.as_ref().map(|error| format!("{error:#}"));
    let at = changes.get(made).map(|change| change.key.to_string());
    match args.output {
        Output::Json => {
            let mask = Mask(&live.secrets);
            let each = changes.iter().enumerate().map(|(n, change)| {
                let mut json = mask.json(change);
                if let Some(fields) = json.as_object_mut() {
                    fields.insert("done".to_owned(), (applied && n < made).into());
                }
                json
            });
            let each: Vec<Value> = each.collect();
            let stopped = why.map(|why| json!({"at": at, "why": why}));
            let report = json!({"applied": applied && stopped.is_none(), "stopped": stopped, "changes": each});
            screen.line(screen::json(&report)?)?;
        }
        Output::Text => {
            if let Some(why) = why {
                let word = screen.paint(Paint::Bad, "stopped");
                let at = at.map_or_else(|| "at the end".to_owned(), |at| format!("at {at}"));
                let left = changes.len().saturating_sub(made);
                screen.line(format!("{word} {}: {}", plain(&at), plain(&why)))?;
                screen.line(format!("{made} of {} changes were made and stand; {left} are left, and mesh apply goes on with them", changes.len()))?;
            } else if applied && !changes.is_empty() {
                screen.line(format!("applied: {}", counts(changes)))?;
            }
        }
    }
    Ok(match (applied, stopped.is_some(), changes.is_empty()) {
        (_, true, _) => ExitCode::FAILURE,
        (true, false, _) | (false, _, true) => ExitCode::SUCCESS,
        (false, false, false) => DIFFERS.into(),
    })
}
