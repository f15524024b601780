//! Reads mesh.yaml and what the environment says about it.

use crate::screen::Screen;
use anyhow::{Context, bail};
use mesh_config::mesh::Overrides;
use mesh_config::{Compiled, Mesh, Options, Report};
use mesh_local::Addresses;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the command line says of every mesh.yaml that is read.
#[derive(Default)]
struct Choice {
    environment: Option<String>,
    outside: bool,
}

/// Set once, before any command runs: all of them read the same mesh.
static CHOICE: OnceLock<Choice> = OnceLock::new();

/// Chooses the environment, and whether includes may lead out of the directory.
pub fn choose(environment: Option<String>, outside: bool) {
    // Empty is what a shell makes of a variable that is to be unset.
    let environment = environment.filter(|name| !name.is_empty());
    let _ = CHOICE.set(Choice {
        environment,
        outside,
    });
}

/// The one name besides files' under which a mesh is read.
const STDIN: &str = "/dev/stdin";

/// A mesh and the directory of its file.
pub struct Loaded {
    pub mesh: Mesh,
    pub base: PathBuf,
}

/// What the environment says.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and checks the file with what it includes and the environment that was chosen, without the variables that win
/// over it.
pub fn compile(file: &Path) -> anyhow::Result<Result<Compiled, Report>> {
    let choice = CHOICE.get_or_init(Choice::default);
    let options = Options {
        environment: choice.environment.as_deref(),
        variables: &environment,
        outside: choice.outside,
    };
    // One byte more than is allowed says that there is more, whatever the file's end is.
    let bytes = read_bytes(file, mesh_config::MAX_BYTES + 1).map_err(|e| {
        let hint = if e.kind() == io::ErrorKind::NotFound {
            " (say which file: mesh COMMAND FILE, or go to its directory)"
        } else {
            ""
        };
        anyhow::anyhow!("cannot read {}: {e}{hint}", file.display())
    })?;
    Ok(mesh_config::compile_read(file, bytes, &options))
}

/// The first `most` bytes of a file, or of the standard input by its name.
///
/// Nothing else is read: a pipe by a name, or a device, may say nothing for ever, and so would we.
fn read_bytes(file: &Path, most: usize) -> io::Result<Vec<u8>> {
    if file == Path::new(STDIN) {
        return first(io::stdin().lock(), most);
    }
    // Opened without waiting for a writer, and judged by what was opened.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = File::options()
        .read(true)
        .custom_flags(nonblock)
        .open(file)?;
    if !opened.metadata()?.is_file() {
        let why = format!("it is no regular file (what a command writes is read from {STDIN})");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    first(opened, most)
}

fn first(from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    from.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file's text, of at most `most` bytes.
pub fn read_text(file: &Path, most: usize) -> anyhow::Result<String> {
    let bytes = first(File::open(file)?, most.saturating_add(1))?;
    if bytes.len() > most {
        bail!("it is longer than {most} bytes");
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not UTF-8"))
}

/// Reads and checks the file, shows warnings, and lets the environment override it.
pub fn load(file: &Path) -> anyhow::Result<Loaded> {
    let mut compiled = match compile(file)? {
        Ok(compiled) => compiled,
        Err(report) => {
            Screen::stderr().text(&report.to_string())?;
            bail!("{} has {}", file.display(), count(report.errors(), "error"));
        }
    };
    if compiled.warnings.warnings() > 0 {
        Screen::stderr().text(&compiled.warnings.to_string())?;
    }
    compiled
        .mesh
        .apply(&Overrides::from_environment(&environment))?;
    Ok(Loaded {
        mesh: compiled.mesh,
        base: base(file),
    })
}

/// The directory of the file.
pub fn base(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where the parts are: of the mesh that runs here, else as the file says.
pub fn addresses(loaded: &Loaded) -> anyhow::Result<Addresses> {
    if let Some(running) = mesh_local::state::read(&loaded.base, &loaded.mesh.name) {
        return Ok(running);
    }
    let mesh = &loaded.mesh;
    let agents = mesh.agents.iter().filter_map(|agent| {
        Some(mesh_local::AgentAddress {
            id: agent.id.clone(),
            endpoint: agent.endpoint.as_ref()?.to_string(),
            admin: agent.sidecar.admin_listen?,
        })
    });
    Ok(Addresses {
        pid: 0,
        mesh: mesh.name.clone(),
        gateway: reachable(mesh.gateway.listen).context("gateway.listen")?,
        gateway_status: None,
        orchestrator: reachable(mesh.orchestrator.listen).context("orchestrator.listen")?,
        gateway_sidecar: mesh.gateway.sidecar.admin_listen,
        orchestrator_sidecar: mesh.orchestrator.sidecar.admin_listen,
        agents: agents.collect(),
    })
}

fn reachable(mut address: std::net::SocketAddr) -> anyhow::Result<std::net::SocketAddr> {
    if address.port() == 0 {
        bail!(
            "the port is chosen when the mesh starts, and no mesh runs here: start one with mesh up"
        );
    }
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

/// `1 error`, `2 errors`.
pub fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}
