//! `mesh demo`: two tasks across a whole mesh, from a token to a result.
//!
//! The mesh is the repository's own mesh.yaml with memory backends, its keys live in a directory that
//! goes with the process, and its ports are free ones where the usual ones are taken, so that the demo
//! runs beside anything. Nothing of it is staged: the token passes the filter, the steps pass the bus.

use crate::args::{Demo, Output};
use crate::outline::{Extent, outline};
use crate::progress::Progress;
use crate::screen::{self, Paint, Screen, plain};
use crate::signals::on_signal;
use crate::submit::{end, plan, step};
use crate::task::{Gateway, Request, shown, text};
use crate::up::show;
use anyhow::{Context, bail};
use mesh_config::Mesh;
use mesh_local::identity::{self, DevelopmentIssuer, TokenRequest};
use mesh_local::{Bound, Groups, LocalError, Options, probe};
use mesh_protocol::Timestamp;
use serde_json::{Value, json};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const MESH: &str = include_str!("../../../mesh.yaml");
const CSV: &str = include_str!("../../demo/air-quality.csv");
const CSV_NAME: &str = "deploy/demo/air-quality.csv";
/// What of one step's result is on the screen.
const SHOWN: Extent = Extent {
    lines: 60,
    depth: 2,
};
const START: Duration = Duration::from_secs(30);

/// A directory for the demo's keys that goes when the demo goes.
struct KeysDir(PathBuf);

impl KeysDir {
    /// A name that nobody else has; the directory is not made yet.
    fn name() -> PathBuf {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let name = format!("mesh-demo-{}-{nanos}", std::process::id());
        std::env::temp_dir().join(name)
    }

    fn make(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for KeysDir {
    fn drop(&mut self) {
        forget(&self.0);
    }
}

fn forget(path: &Path) {
    // Keys of a mesh that is no more; one that stays opens nothing.
    let _ = std::fs::remove_dir_all(path);
}

pub async fn run(args: Demo) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let quiet = args.output == Output::Json;
    let mut screen = if quiet {
        Screen::silent()
    } else {
        Screen::stdout()
    };
    let shutdown = CancellationToken::new();
    // Before there are keys: a signal takes them away, whenever it comes.
    let (keys, groups) = (KeysDir::name(), Groups::default());
    on_signal(shutdown.clone(), {
        let (keys, groups) = (keys.clone(), groups.clone());
        move || {
            groups.kill();
            forget(&keys);
        }
    })?;
    let keys = KeysDir::make(keys)?;
    let mesh = mesh_config::compile("mesh.yaml", MESH)?.mesh;
    let issuer = DevelopmentIssuer::of(&mesh, &keys.0)?;
    let starting = Progress::spinner("starting the mesh", quiet);
    let bound = tokio::select! {
        biased;
        () = shutdown.cancelled() => bail!("interrupted"),
        bound = build(mesh, &keys.0, args.filters.as_deref(), &groups) => bound?,
    };
    let addresses = bound.addresses().clone();
    drop(starting);
    show(&mut screen, &addresses)?;

    let mesh = tokio::spawn(bound.run(shutdown.clone()));
    let tasks = async {
        probe::ready(&addresses, START).await?;
        let took = begun.elapsed().as_secs_f64();
        screen.line(format!("ready after {took:.1} s\n"))?;
        let claims = issuer.claims(&TokenRequest::default(), Timestamp::now());
        show_token(&mut screen, &claims)?;
        let url = format!("http://{}", addresses.gateway);
        let gateway = Gateway::new(&url, &issuer.sign(&claims))?;
        two_tasks(&mut screen, &gateway, &url).await
    };
    let outcome = tokio::select! {
        outcome = tasks => outcome,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    shutdown.cancel();
    mesh.await??;
    let tasks = outcome?;
    let completed = tasks.iter().all(|task| text(task, "status") == "completed");
    let took = begun.elapsed().as_secs_f64();
    if quiet {
        let report = json!({"completed": completed, "seconds": took, "tasks": tasks});
        Screen::stdout().line(screen::json(&report)?)?;
        return Ok(if completed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if completed {
        let good = screen.paint(Paint::Good, "both tasks completed");
        screen.line(format!("{good}; {took:.1} s from start to drained end"))?;
        Ok(ExitCode::SUCCESS)
    } else {
        bail!("a task did not complete, after {took:.1} s");
    }
}

/// Builds the mesh on its own ports, or on free ones.
async fn build(
    mesh: Mesh,
    base: &Path,
    filters: Option<&Path>,
    groups: &Groups,
) -> anyhow::Result<Bound> {
    let mut mesh = mesh;
    for _ in 0..3 {
        let options = Options {
            base: base.to_owned(),
            secrets: identity::secrets(&mesh, base, &|_| None)?,
            filters: filters.map(Path::to_owned),
            // Its directory goes with it.
            cache: None,
            groups: groups.clone(),
        };
        match mesh_local::build(mesh.clone(), options).await {
            Err(LocalError::Listen { address, .. }) if address == mesh.gateway.listen => {
                mesh.gateway.listen.set_port(0);
            }
            Err(LocalError::Listen { address, .. }) if address == mesh.orchestrator.listen => {
                mesh.orchestrator.listen.set_port(0);
            }
            other => return Ok(other?),
        }
    }
    bail!("no free ports on 127.0.0.1");
}

fn show_token(screen: &mut Screen, claims: &Value) -> std::io::Result<()> {
    screen.line(screen.paint(
        Paint::Bold,
        "token, signed with Ed25519 by this mesh's own issuer",
    ))?;
    for (name, value) in claims.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        screen.line(format!("  {name:<6} {value}"))?;
    }
    screen.line("")
}

/// Sends both tasks; how each ended.
async fn two_tasks(
    screen: &mut Screen,
    gateway: &Gateway,
    url: &str,
) -> anyhow::Result<Vec<Value>> {
    let rows = CSV.lines().count().saturating_sub(1);
    let tasks = [
        (
            "system_optimization",
            json!({"target": "this machine"}),
            "figures of this machine, and what of it can be granted".to_owned(),
        ),
        (
            "data_processing",
            json!({"csv": CSV}),
            format!("{CSV_NAME}, {rows} rows"),
        ),
    ];
    let mut ended = Vec::new();
    for (task_type, payload, about) in tasks {
        let title = screen.paint(Paint::Bold, task_type);
        screen.line(format!("{title}: {about}"))?;
        screen.line(format!("  POST {url}/ai/orchestrate"))?;
        let request = Request {
            task_type: task_type.to_owned(),
            payload,
            priority: mesh_protocol::task::DEFAULT_PRIORITY,
            timeout: 60,
        };
        let begun = Instant::now();
        let accepted = gateway.submit(&request).await?;
        screen.line(format!("  task {}", accepted.task_id))?;
        for line in plan(accepted.plan()).lines() {
            screen.line(format!("  {line}"))?;
        }
        gateway
            .follow(&accepted.task_id, |event| {
                match step(screen, event, begun.elapsed()) {
                    Some(line) => screen.line(line),
                    None => Ok(()),
                }
            })
            .await?;
        let task = gateway.task(&accepted.task_id).await?;
        show_results(screen, &task)?;
        screen.line(format!("  {}\n", end(screen, &task)))?;
        ended.push(task);
    }
    Ok(ended)
}

/// What each step answered, in the order of the plan.
fn show_results(screen: &mut Screen, task: &Value) -> std::io::Result<()> {
    let planned = task
        .pointer("/plan/execution_plan")
        .and_then(Value::as_array);
    for planned in planned.into_iter().flatten() {
        let id = text(planned, "id");
        let result = task
            .get("steps")
            .and_then(|steps| steps.get(id)?.get("result"));
        if let Some(result) = result {
            screen.line(format!(
                "  result of {} ({})",
                shown(planned, "agent"),
                plain(id)
            ))?;
            screen.line(outline(result, 4, SHOWN))?;
        }
    }
    Ok(())
}
