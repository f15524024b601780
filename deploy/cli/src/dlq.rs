//! `mesh dlq`: what lies among the dead letters, and what becomes of it.

use crate::args::{Dlq, DlqCommand, DlqWhere, Output};
use crate::dead_letters::{Entry, Held, Place, Taken, give_back, take};
use crate::load::{count, environment, load};
use crate::outline::{Extent, outline};
use crate::screen::{self, Paint, Screen, plain};
use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use mesh_bus::{BrokerUrl, Bus, BusConfig, BusError};
use mesh_config::secret::Secrets;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;

/// What is shown of a message.
const SHOWN: Extent = Extent {
    lines: 60,
    depth: 6,
};
/// How much of a reason stands in a line, in characters.
const REASON: usize = 80;

/// What is done with the entries that are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Replay,
    Drop,
}

pub async fn run(args: &Dlq) -> anyhow::Result<ExitCode> {
    match &args.command {
        DlqCommand::List(at) => with_bus(at, async |bus, places| list(bus, places, at).await).await,
        DlqCommand::Show(args) => {
            let show = async |bus: &dyn Bus, places: &[Place]| {
                show(bus, places, &args.task, &args.at).await
            };
            with_bus(&args.at, show).await
        }
        DlqCommand::Replay(args) => {
            let replay = async |bus: &dyn Bus, places: &[Place]| {
                let task = args.which.task.as_deref();
                settle(bus, places, Deed::Replay, task, &args.at).await
            };
            with_bus(&args.at, replay).await
        }
        DlqCommand::Drop(args) => {
            let drop = async |bus: &dyn Bus, places: &[Place]| {
                let task = args.which.task.as_deref();
                settle(bus, places, Deed::Drop, task, &args.at).await
            };
            with_bus(&args.at, drop).await
        }
    }
}

/// Connects to the mesh's broker, and leaves it in an orderly way whatever comes of it.
async fn with_bus(
    at: &DlqWhere,
    work: impl AsyncFnOnce(&dyn Bus, &[Place]) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let (bus, places) = connect(at).await?;
    let outcome = work(bus.as_ref(), &places).await;
    bus.close().await;
    outcome
}

async fn connect(at: &DlqWhere) -> anyhow::Result<(Arc<dyn Bus>, Vec<Place>)> {
    let loaded = load(&at.file)?;
    let Some(source) = &loaded.mesh.messaging.rabbitmq else {
        bail!(
            "messages of this mesh stay within its process (messaging.backend: memory), and so do its dead letters: \
             with a broker (RABBITMQ_URL) they can be looked at from here"
        );
    };
    let agents = loaded.mesh.agents.iter().map(|a| Place::of_agent(&a.id));
    let mut places: Vec<Place> = agents
        .chain([Place::of_orchestrator(), Place::of_intake()])
        .collect();
    if let Some(wanted) = &at.agent {
        let wanted = wanted.replace('_', "-");
        places.retain(|place| place.service == wanted);
        if places.is_empty() {
            bail!("{} has no agent {wanted}", at.file.display());
        }
    }
    let named = [("messaging.url".to_owned(), source)];
    let secrets = Secrets::resolve(named, &loaded.base, &environment).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", errors.join("; "))
    })?;
    let url = secrets.value(source).unwrap_or_default().to_owned();
    let url = BrokerUrl::try_from(url).map_err(|why| anyhow::anyhow!("messaging.url: {why}"))?;
    let bus = mesh_bus::connect(&BusConfig::Rabbitmq { url })
        .await
        .context("cannot reach the broker")?;
    Ok((bus, places))
}

async fn list(bus: &dyn Bus, places: &[Place], at: &DlqWhere) -> anyhow::Result<ExitCode> {
    let (mut entries, mut behind) = (Vec::new(), 0);
    for place in places {
        let Taken { held, more } = take(bus, place).await?;
        entries.extend(held.iter().map(|one| one.entry.clone()));
        behind += more;
        give_back(held).await?;
    }
    let mut screen = Screen::stdout();
    match at.output {
        Output::Json => {
            screen.line(screen::json(&json!({"entries": entries, "more": behind}))?)?;
        }
        Output::Text if entries.is_empty() => screen.line("no dead letters")?,
        Output::Text => {
            screen.line(table(&entries))?;
            if behind > 0 {
                screen.line(format!("and {behind} more behind these"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["agent", "task", "step", "died", "calls", "reason"]);
    let text = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
    for entry in entries {
        let died = entry.died.map_or("-".to_owned(), |at| at.to_string());
        let reason: String = text(&entry.reason).chars().take(REASON).collect();
        table.add_row([
            plain(&entry.agent),
            text(&entry.task_id),
            text(&entry.step_id),
            died,
            entry.calls.to_string(),
            reason,
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

async fn show(
    bus: &dyn Bus,
    places: &[Place],
    task: &str,
    at: &DlqWhere,
) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for place in places {
        let Taken { held, .. } = take(bus, place).await?;
        for one in held.iter().filter(|one| is_of(one, Some(task))) {
            let mut entry = serde_json::to_value(&one.entry)?;
            if let Value::Object(fields) = &mut entry {
                fields.insert("message".to_owned(), one.message());
            }
            found.push(entry);
        }
        give_back(held).await?;
    }
    if found.is_empty() {
        return Err(none(task));
    }
    let mut screen = Screen::stdout();
    match at.output {
        Output::Json => screen.line(screen::json(&Value::Array(found))?)?,
        Output::Text => {
            for entry in found {
                screen.line(outline(&entry, 0, SHOWN))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replays or drops the entries of `task`, or all. Of all, those whose time was up are not replayed: their tasks have
/// ended, and nobody waits for what they would do.
async fn settle(
    bus: &dyn Bus,
    places: &[Place],
    deed: Deed,
    task: Option<&str>,
    at: &DlqWhere,
) -> anyhow::Result<ExitCode> {
    let (mut done, mut failed, mut behind) = (Vec::new(), Vec::new(), 0);
    let mut expired = 0;
    for place in places {
        let Taken { held, more } = take(bus, place).await?;
        behind += more;
        let (meant, others): (Vec<Held>, Vec<Held>) =
            held.into_iter().partition(|one| is_of(one, task));
        let (late, meant): (Vec<Held>, Vec<Held>) = meant
            .into_iter()
            .partition(|one| deed == Deed::Replay && task.is_none() && one.entry.is_expired());
        expired += late.len();
        for one in meant {
            let entry = one.entry.clone();
            let settled = match deed {
                Deed::Replay => one.replay().await,
                Deed::Drop => one.discard().await,
            };
            match settled {
                Ok(()) => done.push(entry),
                Err(error) => failed.push((entry, error)),
            }
        }
        give_back(late).await?;
        give_back(others).await?;
    }
    if let (Some(task), true, true) = (task, done.is_empty(), failed.is_empty()) {
        return Err(none(task));
    }
    let word = match deed {
        Deed::Replay => "replayed",
        Deed::Drop => "dropped",
    };
    let mut screen = Screen::stdout();
    match at.output {
        Output::Json => {
            let failed = failed
                .iter()
                .map(|(entry, error)| json!({"entry": entry, "error": why(error)}));
            let failed: Vec<Value> = failed.collect();
            screen.line(screen::json(
                &json!({word: done, "failed": failed, "more": behind, "expired": expired}),
            )?)?;
        }
        Output::Text => {
            for entry in &done {
                screen.line(format!(
                    "{} {}",
                    screen.paint(Paint::Good, word),
                    name(entry)
                ))?;
            }
            for (entry, error) in &failed {
                let stays = screen.paint(Paint::Bad, "stays");
                screen.line(format!("{stays} {}: {}", name(entry), plain(&why(error))))?;
            }
            screen.line(format!("{} {word}", count(done.len(), "dead letter")))?;
            if expired > 0 {
                let expired = count(expired, "dead letter");
                screen.line(format!(
                    "{expired} left whose time was up: name the task to replay one, or drop them"
                ))?;
            }
            if task.is_none() && behind > 0 {
                screen.line(format!("{behind} more are behind these: run it again"))?;
            }
        }
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn is_of(one: &Held, task: Option<&str>) -> bool {
    task.is_none_or(|task| one.entry.task_id.as_deref() == Some(task))
}

fn name(entry: &Entry) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    plain(&format!(
        "{} {} {}",
        entry.agent,
        part(&entry.task_id),
        part(&entry.step_id)
    ))
}

fn none(task: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no dead letter of task {task}: mesh dlq list shows what there is")
}

fn why(error: &BusError) -> String {
    match error {
        BusError::Unroutable { routing_key, .. } => {
            format!("there is no queue {routing_key}: start the agent's sidecar, which declares it")
        }
        other => other.to_string(),
    }
}
