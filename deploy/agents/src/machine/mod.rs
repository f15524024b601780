//! What this machine has and how it is used, read from `/proc` and the control groups.
//!
//! Every figure is optional: containers hide files, and an agent that says what it could not read is
//! worth more than one that fails.

pub(crate) mod cgroup;
pub(crate) mod proc;

use std::path::{Path, PathBuf};

/// Where the machine's figures are read; other roots are for tests and for looking into a container.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
        }
    }
}

/// What work on this machine can have, control groups considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Thousandths of a core.
    pub(crate) cpu_millicores: u64,
    pub(crate) memory_bytes: u64,
    /// NVIDIA devices that the driver shows; other makers' are not counted.
    pub(crate) gpus: u64,
}

impl Capacity {
    /// Reads it; a machine whose memory cannot be read has none to give.
    pub(crate) fn read(roots: &Roots) -> Self {
        let limits = cgroup::Limits::read(roots);
        let cores = proc::cores(&roots.proc) * 1000;
        let memory = proc::memory(&roots.proc).map_or(0, |m| m.total_bytes);
        Self {
            cpu_millicores: limits
                .cpu_millicores
                .map_or(cores, |limit| limit.min(cores)),
            memory_bytes: limits
                .memory_bytes
                .map_or(memory, |limit| limit.min(memory)),
            gpus: std::fs::read_dir(roots.proc.join("driver/nvidia/gpus"))
                .map_or(0, |entries| entries.flatten().count() as u64),
        }
    }
}

/// The text of a small file, `None` when it cannot be read.
fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number that a file holds alone.
fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}
