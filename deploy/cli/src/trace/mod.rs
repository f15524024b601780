//! `mesh trace TASK`: a run as a tree with times, from what the orchestrator keeps of it.
//!
//! The event log says nothing of a step that the run's record does not say with more of its times, so the record is
//! all that is asked for.

mod draw;
mod run;

use crate::USAGE;
use crate::args::{Access, Output};
use crate::load::{addresses, load};
use crate::screen::{self, Screen};
use crate::submit::access;
use crate::task::{Gateway, Refused};
use anyhow::Context;
use mesh_protocol::TaskId;
use run::Run;
use std::process::ExitCode;

/// Not known, or not for whoever asks.
const REFUSED: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Show the run of a task as a tree: steps under what they waited for, their times in the queue and at the agent
///
/// Asks the orchestrator where it listens on this machine, else the gateway. Exit codes: 0 completed or under way, 1
/// failed or cancelled, 2 no such task is known, or it is not yours, 3 nobody answers, 64 usage.
#[derive(Debug, clap::Args)]
pub struct Trace {
    /// Id of the task, such as task_01a2…
    pub task: String,
    #[command(flatten)]
    pub access: Access,
    /// Where a trace is looked at, with {trace_id} in it, such as http://127.0.0.1:16686/trace/{trace_id}
    #[arg(long, env = "MESH_TRACE_URL")]
    pub trace_url: Option<String>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub async fn run(args: &Trace) -> anyhow::Result<ExitCode> {
    let prepared = prepare(args);
    let (id, from, traces) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            Screen::stderr().error(&error);
            return Ok(USAGE.into());
        }
    };
    let task = match from.task(id.as_str()).await {
        Ok(task) => task,
        Err(refused) => {
            let (code, error) = explained(&id, refused);
            Screen::stderr().error(&error);
            return Ok(code.into());
        }
    };
    let run = Run::read(&task).context("the answer is no task: is this an orchestrator?")?;
    let url = run
        .trace_id
        .as_ref()
        .zip(args.trace_url.as_ref().or(traces.url.as_ref()))
        .map(|(trace, url)| url.replace("{trace_id}", trace));
    let mut out = Screen::stdout();
    match args.output {
        Output::Json => out.line(screen::json(&run.json(url.as_deref()))?)?,
        Output::Text => {
            let text = draw::tree(&out, &run);
            out.text(&text)?;
            // Without a receiver the trace was recorded nowhere.
            let recorded = traces.recorded || url.is_some();
            if let Some(trace) = run.trace_id.as_ref().filter(|_| recorded) {
                let at = url.map(|url| format!("  {url}")).unwrap_or_default();
                out.line(screen::plain(&format!("trace {trace}{at}")))?;
            }
        }
    }
    Ok(match run.status.as_str() {
        "failed" | "cancelled" => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// What mesh.yaml says of traces.
#[derive(Default)]
struct Traces {
    /// Whether there is a receiver.
    recorded: bool,
    /// Where one is looked at, with `{trace_id}` in it.
    url: Option<String>,
}

/// Whom to ask for which task, and what is known of its trace.
fn prepare(args: &Trace) -> anyhow::Result<(TaskId, Gateway, Traces)> {
    let id: TaskId = args.task.parse().context("TASK is no id of a task")?;
    if args.access.gateway.is_some() || args.access.token.is_some() {
        let (url, token) = access(&args.access)?;
        return Ok((id, Gateway::new(&url, &token)?, Traces::default()));
    }
    let loaded = load(&args.access.file)?;
    let jaeger = loaded.mesh.telemetry.grafana.jaeger.as_ref();
    let traces = Traces {
        recorded: loaded.mesh.trust.traces.endpoint.is_some(),
        url: jaeger.map(|jaeger| format!("{jaeger}/trace/{{trace_id}}")),
    };
    let orchestrator = addresses(&loaded)?.orchestrator;
    if orchestrator.ip().is_loopback() {
        return Ok((id, Gateway::local(orchestrator)?, traces));
    }
    let (url, token) = access(&args.access)?;
    Ok((id, Gateway::new(&url, &token)?, traces))
}

fn explained(id: &TaskId, refused: Refused) -> (u8, anyhow::Error) {
    let code = match &refused {
        Refused::Problem(_) => REFUSED,
        Refused::Unreachable(_) => UNREACHABLE,
    };
    let unknown = matches!(&refused, Refused::Problem(problem) if problem.status == 404);
    let error = anyhow::Error::from(refused);
    let error = if unknown {
        error.context(format!(
            "no task {id} is known here: it is another mesh's or somebody else's (--token), was forgotten (store.retention; \
             a store in memory forgets with its process), or was sent straight to an agent. mesh dlq show {id} looks among dead letters"
        ))
    } else {
        error
    };
    (code, error)
}
