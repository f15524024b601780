//! `mesh submit`: a task, its steps as they happen, its result.

use crate::USAGE;
use crate::args::{Access, Output, Submit};
use crate::load::{Loaded, addresses, load, read_text};
use crate::outline::{Extent, outline};
use crate::screen::{self, Paint, Screen, plain};
use crate::task::{Gateway, Refused, Request, shown, text};
use anyhow::{Context, bail};
use mesh_local::identity::{DevelopmentIssuer, TokenRequest};
use mesh_protocol::Timestamp;
use mesh_protocol::event::{Event, EventType};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

const NOT_ACCEPTED: u8 = 2;
pub const UNREACHABLE: u8 = 3;
/// Longest payload that is read from a file, in bytes: the most that any mesh takes.
const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// What of a result is on a screen; `-o json` prints all of it.
const SHOWN: Extent = Extent {
    lines: 200,
    depth: 8,
};

pub async fn run(args: Submit) -> anyhow::Result<ExitCode> {
    let (request, gateway) = match prepare(&args) {
        Ok(ready) => ready,
        Err(error) => {
            Screen::stderr().error(&error);
            return Ok(USAGE.into());
        }
    };
    // Progress goes to standard error, the result to standard output.
    let mut progress = Screen::stderr().outlasting_its_reader();
    let accepted = match gateway.submit(&request).await {
        Ok(accepted) => accepted,
        Err(refused) => {
            let code = match refused {
                Refused::Problem(_) => NOT_ACCEPTED,
                Refused::Unreachable(_) => UNREACHABLE,
            };
            Screen::stderr().error(&refused.into());
            return Ok(code.into());
        }
    };
    let quiet = args.output == Output::Json;
    if !quiet {
        progress.line(format!("task {}", accepted.task_id))?;
        progress.line(plan(accepted.plan()))?;
    }
    let begun = std::time::Instant::now();
    let follow = gateway.follow(&accepted.task_id, |event| {
        if quiet {
            return Ok(());
        }
        match step(&progress, event, begun.elapsed()) {
            Some(line) => progress.line(line),
            None => Ok(()),
        }
    });
    let followed = follow.await;
    let task = match followed {
        Ok(()) => gateway.task(&accepted.task_id).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    let task = match task {
        Ok(task) => task,
        // The task goes on, and nobody here knows how.
        Err(error) => {
            Screen::stderr().error(&error);
            return Ok(UNREACHABLE.into());
        }
    };
    let mut out = Screen::stdout();
    match args.output {
        Output::Json => out.line(screen::json(&task)?)?,
        Output::Text => {
            let results = task.get("results").cloned().unwrap_or_default();
            out.line(outline(&results, 0, SHOWN))?;
            progress.line(end(&progress, &task))?;
        }
    }
    Ok(if text(&task, "status") == "completed" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything before the first request.
fn prepare(args: &Submit) -> anyhow::Result<(Request, Gateway)> {
    let request = Request {
        task_type: args.task_type.clone(),
        payload: payload(&args.payload)?,
        priority: args.priority,
        timeout: args.timeout,
    };
    let (url, token) = access(&args.access)?;
    Ok((request, Gateway::new(&url, &token)?))
}

/// A payload from the command line.
pub fn payload(argument: &str) -> anyhow::Result<Value> {
    let (text, from) = match argument.strip_prefix('@') {
        Some(file) => {
            let text = read_text(Path::new(file), MAX_PAYLOAD)
                .with_context(|| format!("cannot read the payload from {file}"))?;
            (text, file)
        }
        None => (argument.to_owned(), "--payload"),
    };
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{from} is not JSON"))?;
    if !value.is_object() {
        bail!("{from} is not a JSON object, such as {{\"csv\": \"…\"}}");
    }
    Ok(value)
}

/// Where to, and as whom. The file is read only for what was not said.
pub fn access(args: &Access) -> anyhow::Result<(String, String)> {
    if let (Some(url), Some(token)) = (&args.gateway, &args.token) {
        return Ok((url.clone(), token.clone()));
    }
    let loaded = load(&args.file)?;
    let url = match &args.gateway {
        Some(url) => url.clone(),
        None => format!("http://{}", addresses(&loaded)?.gateway),
    };
    let token = match &args.token {
        Some(token) => token.clone(),
        None => development_token(&loaded)?,
    };
    Ok((url, token))
}

fn development_token(loaded: &Loaded) -> anyhow::Result<String> {
    let issuer =
        DevelopmentIssuer::of(&loaded.mesh, &loaded.base).context("say --token, or MESH_TOKEN")?;
    Ok(issuer.issue(&TokenRequest::default(), Timestamp::now())?)
}

/// Who made the plan and who does what, on one line, then its risks.
pub fn plan(plan: &Value) -> String {
    let steps = plan.get("execution_plan").and_then(Value::as_array);
    let agents: Vec<String> = steps
        .into_iter()
        .flatten()
        .map(|step| shown(step, "agent"))
        .collect();
    let mut line = format!("plan by {}: {}", shown(plan, "source"), agents.join(", "));
    let risks = plan.get("risks").and_then(Value::as_array);
    for risk in risks.into_iter().flatten().filter_map(Value::as_str) {
        line.push_str("\n  note: ");
        line.push_str(&plain(risk));
    }
    line
}

/// An event on one line, if it is worth one.
pub fn step(screen: &Screen, event: &Event, after: std::time::Duration) -> Option<String> {
    let data = &event.data;
    let took = data
        .get("duration_ms")
        .and_then(Value::as_u64)
        .map(|ms| format!(" in {ms} ms"))
        .unwrap_or_default();
    let what = match event.event_type {
        EventType::StepDispatched => screen.paint(Paint::Dim, "dispatched"),
        EventType::StepCompleted => screen.paint(Paint::Good, format!("completed{took}")),
        EventType::StepFailed => {
            let why = data.get("error").map(why).unwrap_or_default();
            screen.paint(Paint::Bad, format!("failed{took}: {why}"))
        }
        EventType::StepSkipped => screen.paint(Paint::Odd, "skipped"),
        _ => return None,
    };
    let (agent, id) = (shown(data, "agent"), shown(data, "step_id"));
    let at = format!("+{:.3} s", after.as_secs_f64());
    Some(format!("  {at:>10}  {agent:<20} {id:<24} {what}"))
}

/// The task's end on one line.
pub fn end(screen: &Screen, task: &Value) -> String {
    let status = shown(task, "status");
    match status.as_str() {
        "completed" => screen.paint(Paint::Good, "completed"),
        _ => {
            let why = task.get("error").map(why).unwrap_or_default();
            screen.paint(Paint::Bad, format!("{status}: {why}"))
        }
    }
}

fn why(error: &Value) -> String {
    format!("{}: {}", shown(error, "code"), shown(error, "detail"))
}
