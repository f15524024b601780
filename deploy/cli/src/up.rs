//! `mesh up`: the whole mesh in the foreground, until Ctrl-C.

use crate::args::Up;
use crate::load::{environment, load};
use crate::screen::{Paint, Screen};
use anyhow::bail;
use mesh_local::{Addresses, LocalError, Options, identity, probe, state};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// After this long, what is not ready is said; the mesh goes on trying.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(args: Up) -> anyhow::Result<ExitCode> {
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
    let options = Options {
        base: loaded.base.clone(),
        secrets,
        filters: args.filters,
    };
    // From here on a signal ends the mesh in order.
    let shutdown = CancellationToken::new();
    on_signal(shutdown.clone())?;
    let bound = mesh_local::build(loaded.mesh, options).await?;
    let addresses = bound.addresses().clone();
    if let Err(error) = state::write(&loaded.base, &addresses) {
        tracing::warn!(%error, "mesh status will not find this mesh");
    }
    let mut screen = Screen::stdout();
    show(&mut screen, &addresses)?;

    let mesh = tokio::spawn(bound.run(shutdown.clone()));
    let told = tell_ready(&mut screen, &addresses, development, &args.file, begun);
    tokio::select! {
        told = told => told?,
        () = shutdown.cancelled() => {}
        // A mesh that ends before it is ready says why below.
        () = ended(&mesh) => {}
    }
    let outcome = mesh.await;
    state::remove(&loaded.base, &name);
    outcome??;
    screen.line("drained")?;
    Ok(ExitCode::SUCCESS)
}

async fn ended<T>(task: &tokio::task::JoinHandle<T>) {
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The first signal drains, the second ends at once.
pub fn on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_cancelled() {
                // Asked twice: whoever asks does not want to wait for open tasks.
                std::process::exit(130);
            }
            tracing::info!("draining; once more to end at once");
            shutdown.cancel();
        }
    });
    Ok(())
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

async fn tell_ready(
    screen: &mut Screen,
    addresses: &Addresses,
    development: bool,
    file: &Path,
    begun: Instant,
) -> anyhow::Result<()> {
    loop {
        match probe::ready(addresses, PATIENCE).await {
            Ok(()) => break,
            Err(LocalError::NotReady(missing)) => {
                for what in missing {
                    screen.line(format!("  not ready: {what}"))?;
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
    let file = if file == Path::new("mesh.yaml") {
        String::new()
    } else {
        format!(" {}", file.display())
    };
    let token = if development {
        format!("token=$({program} token{file})")
    } else {
        "token=…   # from an issuer of gateway.auth.issuers".to_owned()
    };
    format!(
        "\n  {token}\n  \
         curl http://{gateway}/ai/orchestrate -H \"Authorization: Bearer $token\" -H 'Prefer: wait=10' \\\n       \
         -d '{{\"task_type\": \"system_optimization\", \"payload\": {{}}}}'\n  \
         curl http://{gateway}/task/TASK_ID -H \"Authorization: Bearer $token\"\n  \
         curl http://{orchestrator}/orchestrate -d '{{\"task\": \"complex_analysis\"}}'   # open on this machine\n\n\
         Ctrl-C drains and ends.\n"
    )
}
