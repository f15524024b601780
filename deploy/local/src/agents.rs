//! The agents that run here: started, and given what they need to know, which is a URL at most.

use crate::LocalError;
use crate::app::{Part, part};
use crate::child::{Program, Running};
use crate::group::Groups;
use mesh_config::mesh::{Agent, Builtin, Mesh, Run};
use mesh_orchestrator::api::MODELS;
use mesh_protocol::names::ORCHESTRATOR;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An agent that runs here.
pub(crate) enum Started {
    /// A program of its own.
    Program(Part),
    /// One of ours, which listens and does not work yet: what it needs of its sidecar is not known.
    Builtin(Builtin, TcpListener),
}

/// Starts an agent that runs here; its base URL where the system chose the port.
pub(crate) async fn start(
    agent: &Agent,
    base: &Path,
    groups: &Groups,
) -> Result<(Option<String>, Option<Started>), LocalError> {
    let name = format!("agent {}", agent.id);
    match &agent.run {
        None => Ok((None, None)),
        Some(Run::Command { command, dir }) => {
            let program = Program {
                agent: agent.id.clone(),
                command: command.clone(),
                dir: dir
                    .as_ref()
                    .map_or_else(|| base.to_owned(), |dir| base.join(dir)),
                address: address(agent),
                groups: groups.clone(),
            };
            let running: Running = program.start()?;
            let part = Part::new(name, |stop| running.run(stop));
            Ok((None, Some(Started::Program(part))))
        }
        Some(Run::Builtin(builtin)) => {
            let address =
                address(agent).unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            let refused = |source| LocalError::Listen {
                part: name.clone(),
                address,
                source,
            };
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            let started = Started::Builtin(*builtin, listener);
            Ok((Some(format!("http://{address}")), Some(started)))
        }
    }
}

pub(crate) fn serve(
    agent: &Agent,
    builtin: Builtin,
    listener: TcpListener,
    options: &mesh_agents::Options,
) -> Part {
    let name = format!("agent {}", agent.id);
    let router = kind(builtin).router(options);
    let part = name.clone();
    Part::new(name, |stop: CancellationToken| async move {
        if let Err(error) = mesh_agents::serve(listener, router, stop).await {
            tracing::error!(part, %error, "listener failed");
        }
    })
}

/// Gives the builtin agent that asks the model a way out, where it has none: the orchestrator shares the model.
pub(crate) fn reach_the_model(mesh: &mut Mesh) {
    if mesh.orchestrator.ollama.is_none() {
        return;
    }
    for agent in &mut mesh.agents {
        if agent.run == Some(Run::Builtin(Builtin::GeneralAgent)) {
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            agent.sidecar.outbound.get_or_insert(free);
        }
    }
}

/// Where an agent that is started here listens, if mesh.yaml says so; in figures, as it was checked.
pub(crate) fn address(agent: &Agent) -> Option<SocketAddr> {
    let url = agent.endpoint.as_ref()?;
    url.socket_addrs(|| None).ok()?.first().copied()
}

fn kind(builtin: Builtin) -> mesh_agents::Kind {
    match builtin {
        Builtin::HardwareOptimizer => mesh_agents::Kind::HardwareOptimizer,
        Builtin::ResourceArbitrator => mesh_agents::Kind::ResourceArbitrator,
        Builtin::DataProcessor => mesh_agents::Kind::DataProcessor,
        Builtin::GeneralAgent => mesh_agents::Kind::GeneralAgent,
    }
}

/// An agent knows the model as a URL: by way of its sidecar, the one that the orchestrator shares.
pub(crate) fn agent_options(
    mesh: &Mesh,
    outbound: Option<SocketAddr>,
) -> Result<mesh_agents::Options, LocalError> {
    let model = match (&mesh.orchestrator.ollama, outbound) {
        (Some(ollama), Some(outbound)) => {
            let url = format!("http://{outbound}/{ORCHESTRATOR}{MODELS}");
            let model = mesh_agents::general_agent::Model::new(&url, &ollama.model)
                .map_err(|e| part("general-agent", &e))?;
            Some(model)
        }
        _ => None,
    };
    Ok(mesh_agents::Options {
        model,
        ..mesh_agents::Options::default()
    })
}
