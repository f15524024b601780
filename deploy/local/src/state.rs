//! `.mesh/up.json`: where the parts of the mesh that runs here are, for `mesh status` and `mesh submit`.
//!
//! Ports may be chosen by the system, so a second process has to be told. The file goes when the mesh
//! goes; one that was left behind by a kill names a process that is no more, and is not believed.

use mesh_protocol::AgentId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the parts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The process that runs them.
    pub pid: u32,
    /// Name of the mesh.
    pub mesh: String,
    /// The gateway.
    pub gateway: SocketAddr,
    /// The orchestrator's API.
    pub orchestrator: SocketAddr,
    /// The agents, in the order of mesh.yaml.
    pub agents: Vec<AgentAddress>,
}

/// Where an agent and its sidecar are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAddress {
    /// The agent.
    pub id: AgentId,
    /// Its base URL.
    pub endpoint: String,
    /// Health and metrics of its sidecar.
    pub admin: SocketAddr,
}

fn path(base: &Path) -> PathBuf {
    base.join(mesh_config::mesh::KEYS_DIR).join("up.json")
}

/// Writes the addresses of a mesh whose mesh.yaml lies in `base`.
///
/// # Errors
/// What the system said.
pub fn write(base: &Path, addresses: &Addresses) -> io::Result<()> {
    let file = mesh_config::render::Rendered {
        name: "up.json".to_owned(),
        text: serde_json::to_string_pretty(addresses)? + "\n",
        secret: false,
    };
    let dir = base.join(mesh_config::mesh::KEYS_DIR);
    mesh_config::render::write_all(&dir, &[file]).map(|_| ())
}

/// The addresses of the mesh that runs now, if one does.
pub fn read(base: &Path) -> Option<Addresses> {
    let text = fs::read_to_string(path(base)).ok()?;
    let addresses: Addresses = serde_json::from_str(&text).ok()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(addresses.pid).ok()?)?;
    rustix::process::test_kill_process(pid).ok()?;
    Some(addresses)
}

/// Takes the file away, if it is this process's.
pub fn remove(base: &Path) {
    if read(base).is_some_and(|a| a.pid == std::process::id()) {
        // It is only advice; a file that stays names a process that is no more.
        let _ = fs::remove_file(path(base));
    }
}
