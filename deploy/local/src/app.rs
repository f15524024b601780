//! Puts the parts together, runs them, and takes them down in order.
//!
//! ```text
//!  build:  bus, store ▸ agents ▸ their sidecars ▸ orchestrator ▸ its sidecar ▸ the gateway's sidecar ▸ gateway
//!  drain:  gateway ▸ its sidecar ▸ the orchestrator's sidecar ▸ orchestrator ▸ sidecars ▸ agents ▸ bus
//! ```
//!
//! Every part is one task with a token of its own. None may end before it is told to: a mesh that lost
//! a part looks alive and does no work, so the first loss ends all of it.

use crate::agents::{Started, address, agent_options, reach_the_model, serve, start};
use crate::group::Groups;
use crate::sidecars::Sidecars;
use crate::tracers::Tracers;
use crate::{Addresses, AgentAddress, LocalError, filters};
use mesh_bus::Bus;
use mesh_config::mesh::{Mesh, Run};
use mesh_config::render;
use mesh_config::secret::Secrets;
use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What a mesh needs besides its description.
pub struct Options {
    /// Directory of mesh.yaml: commands and keys are found from there.
    pub base: PathBuf,
    /// The values of its secrets.
    pub secrets: Secrets,
    /// Where the filters' modules are, if it was said.
    pub filters: Option<PathBuf>,
    /// Where compiled filters are kept for the next start; they are compiled anew when None.
    pub cache: Option<PathBuf>,
    /// Knows the programs that are started, for whoever has to end without draining.
    pub groups: Groups,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A part that is bound and does not work yet.
pub(crate) struct Part {
    name: String,
    stop: CancellationToken,
    work: Work,
}

impl Part {
    pub(crate) fn new<F>(name: impl Into<String>, work: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self {
            name: name.into(),
            work: Box::pin(work(stop.clone())),
            stop,
        }
    }
}

/// A mesh whose addresses are taken and that does not work yet.
pub struct Bound {
    addresses: Addresses,
    /// In the order in which they are drained; those of one row together.
    rows: Vec<Vec<Part>>,
    bus: Arc<dyn Bus>,
    tracers: Tracers,
}

/// Renders every part of `mesh` and binds it.
///
/// # Errors
/// Why a part cannot be built; what was bound until then is let go.
pub async fn build(mut mesh: Mesh, options: Options) -> Result<Bound, LocalError> {
    let Options {
        base,
        secrets,
        filters,
        cache,
        groups,
    } = options;
    let config = render::orchestrator(&mesh, &secrets)?;
    // Looked for first: without them all the rest would be in vain.
    // Their names are all that counts here: the orchestrator's port is not known yet.
    let named = render::kong(&mesh, &Secrets::none())?;
    let filters_dir = filters::find(filters.as_deref(), &named)?;
    // Before anything is started: most often it is a second mesh that finds these taken.
    free("gateway", mesh.gateway.listen).await?;
    free("orchestrator", config.listen).await?;
    // What listens there would be taken for the agent: one that a killed mesh left, most often.
    for agent in &mesh.agents {
        if let (Some(Run::Command { .. }), Some(address)) = (&agent.run, address(agent)) {
            free(&format!("agent {}", agent.id), address).await?;
        }
    }
    let bus = mesh_bus::connect(&config.bus)
        .await
        .map_err(|e| part("bus", &e))?;
    let store = mesh_orchestrator::store::connect(&config.store)
        .await
        .map_err(|e| part("store", &e))?;

    let quota = mesh_orchestrator::quota::connect(&config.store).map_err(|e| part("quotas", &e))?;
    let hub =
        mesh_orchestrator::coordination::hub::connect(&config.store, config.coordination.mailboxes)
            .map_err(|e| part("hub", &e))?;
    let arbiter =
        mesh_orchestrator::resources::connect(&config).map_err(|e| part("resources", &e))?;

    reach_the_model(&mut mesh);
    let tracers = Tracers::new(&mesh.trust.traces);
    let beside = Sidecars::new(&mesh, &base, Arc::clone(&bus), &tracers);
    let (mut agents, mut sidecars, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for agent in &mesh.agents {
        let (endpoint, started) = start(agent, &base, &groups).await?;
        let mut config = render::sidecar(&mesh, agent, &secrets)?;
        if let (Some(endpoint), Some(app)) = (endpoint, &mut config.app) {
            app.url = endpoint;
        }
        let endpoint = config.app.as_ref().map(|app| app.url.clone());
        let sidecar = beside.build(config).await?;
        agents.extend(match started {
            None => None,
            Some(Started::Program(part)) => Some(part),
            Some(Started::Builtin(builtin, listener)) => {
                let options = agent_options(&mesh, sidecar.outbound_address())?;
                Some(serve(agent, builtin, listener, &options))
            }
        });
        found.push(AgentAddress {
            id: agent.id.clone(),
            endpoint: endpoint.unwrap_or_default(),
            admin: sidecar.admin_address(),
        });
        let name = format!("sidecar {}", agent.id);
        sidecars.push(Part::new(name, |stop| sidecar.run(stop)));
    }

    // What the one process of all parts takes is shown once, where the orchestrator's own would be.
    let metrics = prometheus::Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    metrics
        .register(Box::new(process))
        .map_err(|e| part("orchestrator", &e))?;
    let deps = mesh_orchestrator::Deps {
        bus: Arc::clone(&bus),
        store,
        quota,
        hub,
        arbiter,
        tracer: tracers.of("orchestrator")?,
        metrics,
    };
    let orchestrator = mesh_orchestrator::build(config, deps)
        .await
        .map_err(|e| part("orchestrator", &e))?;
    // The port may have been chosen by the system; kong.yml must name the real one.
    mesh.orchestrator
        .listen
        .set_port(orchestrator.address().port());
    let way_in = beside
        .build(render::orchestrator_sidecar(&mesh, &secrets)?)
        .await?;
    let mut config = render::gateway_sidecar(&mesh, &secrets)?;
    if let (None, Some(outbound)) = (mesh.gateway.sidecar.outbound, &mut config.outbound) {
        // Nobody but this gateway has to know it, so two meshes need not quarrel over a port.
        outbound.listen.set_port(0);
    }
    let way_out = beside.build(config).await?;
    mesh.gateway.sidecar.outbound = way_out.outbound_address();

    let kong = render::kong(&mesh, &secrets)?;
    let counted = prometheus::Registry::new();
    // Beside the clients' listener and on this machine alone, as the sidecars' are.
    let status = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let status = mesh_gateway::Status::bind(status, counted.clone()).map_err(|source| {
        LocalError::Listen {
            part: "gateway's metrics".to_owned(),
            address: status,
            source,
        }
    })?;
    let gateway = mesh_gateway::build(
        mesh_gateway::Config {
            cache,
            max_request_body: mesh.orchestrator.limits.max_body_bytes,
            ..mesh_gateway::Config::new(mesh.gateway.listen, kong, filters_dir)
        },
        mesh_gateway::Deps {
            tracer: tracers.of("gateway")?,
            metrics: counted,
        },
    )
    .await
    .map_err(|e| part("gateway", &e))?;

    let addresses = Addresses {
        pid: std::process::id(),
        mesh: mesh.name,
        gateway: gateway.address(),
        gateway_status: Some(status.address()),
        orchestrator: orchestrator.address(),
        gateway_sidecar: Some(way_out.admin_address()),
        orchestrator_sidecar: Some(way_in.admin_address()),
        agents: found,
    };
    Ok(Bound {
        addresses,
        rows: vec![
            vec![Part::new("gateway", |stop| async move {
                if let Err(error) = gateway.run(stop).await {
                    tracing::error!(%error, "gateway failed");
                }
            })],
            vec![Part::new("sidecar gateway", |stop| way_out.run(stop))],
            vec![Part::new("sidecar orchestrator", |stop| way_in.run(stop))],
            vec![Part::new("orchestrator", |stop| orchestrator.run(stop))],
            sidecars,
            agents,
            // Last, so that a drain can be watched.
            vec![Part::new("gateway's metrics", |stop| status.run(stop))],
        ],
        bus,
        tracers,
    })
}

/// The text of an error with its causes.
pub(crate) fn part(name: &str, error: &dyn std::error::Error) -> LocalError {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        detail = format!("{detail}: {error}");
        cause = error.source();
    }
    LocalError::Part {
        part: name.to_owned(),
        detail,
    }
}

/// Finds out whether an address can be listened on, so that every part's error names it alike.
///
/// Between this and the part's own binding another process may take it; then the part's error is heard.
pub(crate) async fn free(name: &str, address: SocketAddr) -> Result<(), LocalError> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(()),
        Err(source) => Err(LocalError::Listen {
            part: name.to_owned(),
            address,
            source,
        }),
    }
}

/// Which row a part belongs to, and its name, by the id of its task: a part that broke down has
/// nothing but that id left.
type Roll = HashMap<Id, (usize, String)>;

impl Bound {
    /// Where the parts are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Runs every part until `shutdown`, then drains them row by row.
    ///
    /// # Errors
    /// [`LocalError::Ended`] when a part ended before it was told to; the others are drained all the same.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LocalError> {
        let mut work: JoinSet<()> = JoinSet::new();
        let mut stops: Vec<Vec<CancellationToken>> = Vec::new();
        let mut roll = Roll::new();
        for (row, parts) in self.rows.into_iter().enumerate() {
            stops.push(parts.iter().map(|p| p.stop.clone()).collect());
            for part in parts {
                // Lines that a part's own task writes say whose they are.
                let span = tracing::info_span!("part", part = %part.name);
                let id = work.spawn(part.work.instrument(span)).id();
                roll.insert(id, (row, part.name));
            }
        }
        let lost = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = work.join_next_with_id() => ended.map(|ended| strike(ended, &mut roll)),
        };
        for (row, tokens) in stops.into_iter().enumerate() {
            for stop in tokens {
                stop.cancel();
            }
            while roll.values().any(|(r, _)| *r == row) {
                match work.join_next_with_id().await {
                    Some(ended) => strike(ended, &mut roll),
                    None => break,
                };
            }
        }
        self.bus.close().await;
        self.tracers.shutdown().await;
        match lost {
            Some(part) => Err(LocalError::Ended { part }),
            None => Ok(()),
        }
    }
}

/// Strikes an ended part off the roll, and returns its name.
fn strike(ended: Result<(Id, ()), JoinError>, roll: &mut Roll) -> String {
    let id = match &ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    };
    let name = roll.remove(&id).map(|(_, name)| name).unwrap_or_default();
    if let Err(error) = ended {
        tracing::error!(part = %name, %error, "part broke down");
    }
    name
}
