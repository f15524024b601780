//! `.mesh/up-MESH.json`: where the parts of the mesh that runs here are, for `mesh status` and
//! `mesh submit`.
//!
//! Ports may be chosen by the system, so a second process has to be told. The file goes when the mesh
//! goes; one that was left behind by a kill names a process that is no more, or that began at another
//! time under the same number, and is not believed.

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
    /// The gateway's metrics, where they are known.
    #[serde(default)]
    pub gateway_status: Option<SocketAddr>,
    /// The orchestrator's API.
    pub orchestrator: SocketAddr,
    /// Health and metrics of the gateway's sidecar, where it is known.
    #[serde(default)]
    pub gateway_sidecar: Option<SocketAddr>,
    /// Health and metrics of the orchestrator's sidecar, where it is known.
    #[serde(default)]
    pub orchestrator_sidecar: Option<SocketAddr>,
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

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Record {
    /// When the process began, in the kernel's own count: numbers of processes are used again.
    started: u64,
    #[serde(flatten)]
    addresses: Addresses,
}

/// The name of a mesh is made of letters, digits and hyphens, so it is one of a file too.
fn name(mesh: &str) -> String {
    format!("up-{mesh}.json")
}

fn path(base: &Path, mesh: &str) -> PathBuf {
    base.join(mesh_config::mesh::KEYS_DIR).join(name(mesh))
}

/// Writes the addresses of a mesh whose mesh.yaml lies in `base`.
///
/// # Errors
/// What the system said, or that a mesh of this name runs here already.
pub fn write(base: &Path, addresses: &Addresses) -> io::Result<()> {
    if let Some(other) = read(base, &addresses.mesh)
        && other.pid != addresses.pid
    {
        let text = format!("it runs here already, in process {}", other.pid);
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let started = started(addresses.pid)
        .ok_or_else(|| io::Error::other("/proc does not say when this process began"))?;
    let record = Record {
        started,
        addresses: addresses.clone(),
    };
    let file = mesh_config::render::Rendered {
        name: name(&addresses.mesh),
        text: serde_json::to_string_pretty(&record)? + "\n",
        secret: false,
    };
    let dir = base.join(mesh_config::mesh::KEYS_DIR);
    mesh_config::render::write_all(&dir, &[file]).map(|_| ())
}

/// The addresses of this mesh, if it runs now.
pub fn read(base: &Path, mesh: &str) -> Option<Addresses> {
    let text = fs::read_to_string(path(base, mesh)).ok()?;
    let Record {
        started: then,
        addresses,
    } = serde_json::from_str(&text).ok()?;
    let same = addresses.mesh == mesh && started(addresses.pid)? == then;
    same.then_some(addresses)
}

/// Takes the file away, if it is this process's.
pub fn remove(base: &Path, mesh: &str) {
    if read(base, mesh).is_some_and(|a| a.pid == std::process::id()) {
        // It is only advice; a file that stays names a process that is no more.
        let _ = fs::remove_file(path(base, mesh));
    }
}

/// When a process that lives began, in clock ticks since the machine did.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything (proc(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    // One that ended and was not fetched yet runs nothing.
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(mesh: &str, pid: u32) -> Addresses {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Addresses {
            pid,
            mesh: mesh.to_owned(),
            gateway: address,
            gateway_status: None,
            orchestrator: address,
            gateway_sidecar: None,
            orchestrator_sidecar: None,
            agents: Vec::new(),
        }
    }

    #[test]
    fn two_meshes_in_one_directory_keep_apart() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        for mesh in ["a", "b"] {
            write(dir.path(), &addresses(mesh, me)).unwrap();
        }
        assert_eq!(read(dir.path(), "a"), Some(addresses("a", me)));
        assert_eq!(read(dir.path(), "b"), Some(addresses("b", me)));
        remove(dir.path(), "a");
        assert_eq!(read(dir.path(), "a"), None);
        assert!(read(dir.path(), "b").is_some());
    }

    #[test]
    fn a_living_meshs_file_stays_and_a_dead_ones_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        write(dir.path(), &addresses("a", child.id())).unwrap();
        let refused = write(dir.path(), &addresses("a", me)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        remove(dir.path(), "a");
        assert!(
            read(dir.path(), "a").is_some(),
            "another process's file stays"
        );
        child.kill().unwrap();
        // Not fetched yet: its number is still taken.
        while started(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(read(dir.path(), "a"), None);
        child.wait().unwrap();
        write(dir.path(), &addresses("a", me)).unwrap();
    }

    #[test]
    fn the_same_number_at_another_time_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        write(dir.path(), &addresses("a", me)).unwrap();
        let file = path(dir.path(), "a");
        let text = fs::read_to_string(&file).unwrap();
        let then = format!("\"started\": {}", started(me).unwrap());
        assert!(text.contains(&then), "{text}");
        fs::write(&file, text.replace(&then, "\"started\": 1")).unwrap();
        assert_eq!(read(dir.path(), "a"), None);
    }
}
