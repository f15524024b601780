//! `mesh up`: the whole mesh in the foreground, until Ctrl-C.

use crate::args::{Output, Up};
use crate::load::{environment, load};
use crate::logs::LogFile;
use crate::screen::{Paint, Screen, json_line, plain};
use crate::signals::on_signal;
use anyhow::bail;
use mesh_config::mesh::KEYS_DIR;
use mesh_local::{Addresses, Groups, LocalError, Options, identity, probe, state};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// After this long, what is not ready is said; the mesh goes on trying.
const PATIENCE: Duration = Duration::from_secs(10);

/// Name of the directory beside the keys in which compiled filters are kept.
const CACHE: &str = "cache";

pub async fn run(args: Up, log: &LogFile) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let loaded = load(&args.file)?;
    let name = loaded.mesh.name.clone();
    if let Some(other) = state::read(&loaded.base, &name) {
        bail!(
            "mesh {name} runs here already, in process {}: end it, or give one of them another name",
            other.pid
        );
    }
    let secrets = identity::secrets(&loaded.mesh, &loaded.base, &environment)?;
    let development = loaded.mesh.development_sources().len() == 1;
    if let Err(error) = log.open(&loaded.base, &name, secrets.masks()) {
        tracing::warn!(%error, "mesh logs will show nothing of this mesh");
    }
    let groups = Groups::default();
    let options = Options {
        base: loaded.base.clone(),
        secrets,
        filters: args.filters,
        cache: Some(loaded.base.join(KEYS_DIR).join(CACHE)),
        groups: groups.clone(),
    };
    // From here on a signal ends the mesh in order.
    let shutdown = CancellationToken::new();
    on_signal(shutdown.clone(), {
        let (base, name) = (loaded.base.clone(), name.clone());
        move || {
            groups.kill();
            state::remove(&base, &name);
        }
    })?;
    let bound = tokio::select! {
        biased;
        () = shutdown.cancelled() => bail!("interrupted before the mesh was there"),
        bound = mesh_local::build(loaded.mesh, options) => bound?,
    };
    let addresses = bound.addresses().clone();
    if let Err(error) = state::write(&loaded.base, &addresses) {
        tracing::warn!(%error, "mesh status will not find this mesh");
    }
    let mesh = tokio::spawn(bound.run(shutdown.clone()));
    // A mesh does not end because nobody reads what it says any more.
    let mut screen = Screen::stdout().outlasting_its_reader();
    let told = tokio::select! {
        told = async {
            match args.output {
                Output::Text => tell(&mut screen, &addresses, development, &args.file, begun).await,
                Output::Json => tell_json(&mut screen, &addresses, begun).await,
            }
        } => told,
        () = shutdown.cancelled() => Ok(()),
        // A mesh that ends before it is ready says why below.
        () = ended(&mesh) => Ok(()),
    };
    if told.is_err() {
        shutdown.cancel();
    }
    let outcome = mesh.await;
    state::remove(&loaded.base, &name);
    outcome??;
    told?;
    screen.line(match args.output {
        Output::Text => "drained".to_owned(),
        Output::Json => json_line(&json!({"event": "drained"})),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn ended<T>(task: &tokio::task::JoinHandle<T>) {
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The addresses of every part.
pub fn show(screen: &mut Screen, addresses: &Addresses) -> std::io::Result<()> {
    let title = screen.paint(Paint::Bold, format!("mesh {}", addresses.mesh));
    screen.line(title)?;
    screen.line(format!("  gateway       http://{}", addresses.gateway))?;
    screen.line(format!("  orchestrator  http://{}", addresses.orchestrator))?;
    for agent in &addresses.agents {
        screen.line(format!(
            "  agent         {:<20} {}   sidecar http://{}",
            agent.id.as_str(),
            agent.endpoint,
            agent.admin
        ))?;
    }
    Ok(())
}

/// The same for programs: a line when the addresses are known, one for each look that finds parts missing, and one
/// when all are ready.
async fn tell_json(
    screen: &mut Screen,
    addresses: &Addresses,
    begun: Instant,
) -> anyhow::Result<()> {
    let mut started = serde_json::to_value(addresses)?;
    if let Some(fields) = started.as_object_mut() {
        fields.insert("event".to_owned(), "started".into());
    }
    screen.line(json_line(&started))?;
    loop {
        match probe::ready(addresses, PATIENCE).await {
            Ok(()) => break,
            Err(LocalError::NotReady(missing)) => {
                screen.line(json_line(
                    &json!({"event": "not_ready", "missing": missing}),
                ))?;
            }
            Err(other) => return Err(other.into()),
        }
    }
    let ready = json!({"event": "ready", "seconds": begun.elapsed().as_secs_f64()});
    Ok(screen.line(json_line(&ready))?)
}

async fn tell(
    screen: &mut Screen,
    addresses: &Addresses,
    development: bool,
    file: &Path,
    begun: Instant,
) -> anyhow::Result<()> {
    show(screen, addresses)?;
    loop {
        match probe::ready(addresses, PATIENCE).await {
            Ok(()) => break,
            Err(LocalError::NotReady(missing)) => {
                for what in missing {
                    screen.line(format!("  not ready: {}", plain(&what)))?;
                }
            }
            Err(other) => return Err(other.into()),
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let ready = screen.paint(Paint::Good, format!("ready after {took:.1} s"));
    screen.line(ready)?;
    screen.text(&instructions(addresses, development, file))?;
    Ok(())
}

fn instructions(addresses: &Addresses, development: bool, file: &Path) -> String {
    let (gateway, orchestrator) = (addresses.gateway, addresses.orchestrator);
    let program = std::env::args().next().unwrap_or_else(|| "mesh".to_owned());
    let (file, option) = if same_file(file, Path::new("mesh.yaml")) {
        (String::new(), String::new())
    } else {
        let file = quoted(&file.display().to_string());
        (format!(" {file}"), format!(" --file {file}"))
    };
    let submit = if development {
        format!("{program} submit system_optimization{option}")
    } else {
        format!("{program} submit system_optimization{option} --token \"$token\"")
    };
    let token = if development {
        format!("token=$({program} token{file})")
    } else {
        "token=…   # from an issuer of gateway.auth.issuers".to_owned()
    };
    format!(
        "\n  {token}\n  \
         curl http://{gateway}/ai/orchestrate -H \"Authorization: Bearer $token\" -H 'Prefer: wait=10' \\\n       \
         -H 'Content-Type: application/json' -d '{{\"task_type\": \"system_optimization\", \"payload\": {{}}}}'\n  \
         curl http://{gateway}/task/TASK_ID -H \"Authorization: Bearer $token\"\n  \
         curl http://{orchestrator}/orchestrate -d '{{\"task\": \"complex_analysis\"}}'   # open on this machine\n  \
         {submit}\n\n\
         Ctrl-C drains and ends.\n"
    )
}

/// Whether both names lead to one file; a file that is gone leads nowhere.
fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
