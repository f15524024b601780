//! mesh.yaml checked and rendered for every part, in a process of its own, so that its memory is that of this alone.

use anyhow::{Context, Result, bail};
use mesh_config::render;
use mesh_config::secret::Secrets;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Checks a mesh.yaml and renders all of it; prints one line of JSON.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The mesh.yaml
    #[arg(long)]
    pub file: PathBuf,
}

impl Config {
    /// Prints how long it took (ms), how many bytes were rendered, and the most memory that was resident (MiB).
    ///
    /// # Errors
    /// When the file has errors.
    #[allow(clippy::print_stdout)] // what was measured goes to whoever started this
    pub fn run(&self) -> Result<()> {
        let begun = Instant::now();
        let compiled = mesh_config::compile_file(&self.file, &mesh_config::Options::default())?;
        let mesh = match compiled {
            Ok(compiled) => compiled.mesh,
            Err(report) => bail!("{report}"),
        };
        let validated = begun.elapsed();
        let none = Secrets::none();
        let mut rendered = render::kong(&mesh, &none)?.to_yaml()?.len();
        rendered += render::environment(&mesh, "/filters").len();
        rendered += serde_json::to_string_pretty(&render::orchestrator(&mesh, &none)?)?.len();
        for sidecar in render::sidecars(&mesh, &none)? {
            rendered += serde_json::to_string_pretty(&sidecar)?.len();
        }
        let took = begun.elapsed();
        let line = json!({
            "validate_ms": validated.as_secs_f64() * 1e3,
            "total_ms": took.as_secs_f64() * 1e3,
            "rendered": rendered,
            "peak_mib": peak_mib()?,
        });
        println!("{line}");
        Ok(())
    }
}

/// The most memory of this process that was resident, in MiB.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmHWM in /proc")?
        .parse()?;
    Ok(kib / 1024.0)
}
