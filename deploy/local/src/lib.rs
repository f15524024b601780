//! The whole mesh in one process.
//!
//! What runs is what is rendered: the gateway executes the rendered kong.yml, the orchestrator and the
//! sidecars their rendered configurations. Backends are those of mesh.yaml: within the process, or a
//! broker and a store elsewhere.

mod agents;
mod app;
mod child;
mod filters;
mod group;
pub mod identity;
pub mod probe;
mod sidecars;
pub mod state;
mod tracers;

pub use app::{Bound, Options, build};
pub use group::Groups;
pub use mesh_orchestrator::config::StoreUrl;
pub use mesh_orchestrator::store::{Durability, durability};
pub use state::{Addresses, AgentAddress};

use mesh_config::render::RenderError;
use mesh_config::secret::SecretError;
use mesh_protocol::AgentId;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a mesh does not run here.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Secrets without a value.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Secrets(Vec<SecretError>),
    /// A key file that cannot be read or made.
    #[error("key {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Tokens are asked of a mesh that has real issuers.
    #[error(
        "this mesh has issuers of its own (gateway.auth.issuers), so its tokens come from them"
    )]
    NotDevelopment,
    /// A token that the gateway of this mesh would refuse.
    #[error("the gateway would refuse a token with this {part} ({reason}): {mend}")]
    Token {
        /// What of the request is at fault.
        part: &'static str,
        /// The filter's own word.
        reason: &'static str,
        /// What would pass.
        mend: &'static str,
    },
    /// The mesh cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Modules are missing.
    #[error("no {modules} in {places}: run make filters, or say where with --filters DIR")]
    NoFilters {
        /// The modules.
        modules: String,
        /// Where they were looked for.
        places: String,
    },
    /// An address that cannot be listened on.
    #[error("{part} cannot listen on {address}{}", mend(source, *address))]
    Listen {
        /// The part.
        part: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A part that cannot be built.
    #[error("{part}: {detail}")]
    Part {
        /// The part.
        part: String,
        /// Why.
        detail: String,
    },
    /// A program that cannot be started.
    #[error("agent {agent}: cannot start `{command}`: {detail}")]
    Child {
        /// The agent.
        agent: AgentId,
        /// Its command.
        command: String,
        /// Why.
        detail: String,
    },
    /// A part ended by itself.
    #[error("{part} ended by itself")]
    Ended {
        /// The part.
        part: String,
    },
    /// The parts were not ready in time.
    #[error("not ready in time: {}", .0.join("; "))]
    NotReady(Vec<String>),
}

fn mend(source: &io::Error, address: SocketAddr) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            " (port {} is in use: end what holds it, see `ss -ltnp`, or change the port in mesh.yaml)",
            address.port()
        ),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            " (ports below 1024 are the system's: choose a higher one)".to_owned()
        }
        _ => String::new(),
    }
}
