//! Reads `/proc`. The formats are those of proc(5); a line that does not fit is passed over.

use super::{number, text};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Clock ticks per second in `/proc`: fixed at 100 towards user space on Linux.
const TICKS: f64 = 100.0;
/// Most processes looked at, so that a fork bomb does not become this agent's work.
const MAX_PROCESSES: usize = 4096;

/// Memory and swap, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    /// What new work can have without swapping.
    pub(crate) available_bytes: u64,
    pub(crate) swap_total_bytes: u64,
    pub(crate) swap_used_bytes: u64,
    pub(crate) dirty_bytes: u64,
}

/// Ticks of all cores since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) busy: u64,
    pub(crate) io_wait: u64,
    /// Taken by the hypervisor for others.
    pub(crate) stolen: u64,
    pub(crate) total: u64,
}

/// Share of time in which work waited for something, in per cent (PSI).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Pressure {
    /// Some task waited, over 10 s and 60 s.
    pub(crate) some_avg10: f64,
    pub(crate) some_avg60: f64,
    /// All tasks waited, over 10 s; absent for the processor on older kernels.
    pub(crate) full_avg10: Option<f64>,
}

/// A file system on a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Disk {
    pub(crate) device: String,
    pub(crate) mounted_on: String,
    pub(crate) total_bytes: u64,
    /// For processes without privileges.
    pub(crate) available_bytes: u64,
    pub(crate) used_percent: f64,
    pub(crate) inodes_used_percent: Option<f64>,
    /// Since boot; absent where the device keeps no counters under its name.
    pub(crate) traffic: Option<Traffic>,
}

/// Traffic of a device since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    /// Time with a request under way, in milliseconds.
    pub(crate) busy_ms: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    /// Per cent of one core, over the life of the process.
    pub(crate) cpu_percent: f64,
    pub(crate) memory_bytes: u64,
}

/// Cores that are online; at least one, since this runs.
pub(crate) fn cores(proc: &Path) -> u64 {
    let stat = text(&proc.join("stat")).unwrap_or_default();
    let is_core = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    (stat.lines().filter(is_core).count() as u64).max(1)
}

/// Load averages over 1, 5 and 15 minutes.
pub(crate) fn load(proc: &Path) -> Option<[f64; 3]> {
    let text = text(&proc.join("loadavg"))?;
    let mut words = text.split_whitespace().map(str::parse);
    Some([
        words.next()?.ok()?,
        words.next()?.ok()?,
        words.next()?.ok()?,
    ])
}

pub(crate) fn memory(proc: &Path) -> Option<Memory> {
    let text = text(&proc.join("meminfo"))?;
    let field = |name: &str| -> Option<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let swap_total = field("SwapTotal").unwrap_or(0);
    Some(Memory {
        total_bytes: field("MemTotal")?,
        available_bytes: field("MemAvailable").or_else(|| field("MemFree"))?,
        swap_total_bytes: swap_total,
        swap_used_bytes: swap_total.saturating_sub(field("SwapFree").unwrap_or(swap_total)),
        dirty_bytes: field("Dirty").unwrap_or(0),
    })
}

pub(crate) fn ticks(proc: &Path) -> Option<Ticks> {
    let text = text(&proc.join("stat"))?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let fields: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    let at = |n: usize| fields.get(n).copied().unwrap_or(0);
    let total: u64 = fields.iter().sum();
    Some(Ticks {
        busy: total.saturating_sub(at(3) + at(4)),
        io_wait: at(4),
        stolen: at(7),
        total,
    })
}

/// Pressure on `what`: `cpu`, `memory` or `io`.
pub(crate) fn pressure(proc: &Path, what: &str) -> Option<Pressure> {
    let text = text(&proc.join("pressure").join(what))?;
    let figure = |kind: &str, name: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?
            .parse()
            .ok()
    };
    Some(Pressure {
        some_avg10: figure("some", "avg10")?,
        some_avg60: figure("some", "avg60")?,
        full_avg10: figure("full", "avg10"),
    })
}

/// File systems on devices, once per device.
pub(crate) fn disks(proc: &Path) -> Vec<Disk> {
    let mounts = text(&proc.join("self/mounts"))
        .or_else(|| text(&proc.join("mounts")))
        .unwrap_or_default();
    let counters = text(&proc.join("diskstats")).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut disks = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(mounted_on)) = (words.next(), words.next()) else {
            continue;
        };
        // Network file systems can hang whoever asks, the rest holds no space of its own.
        let Some(name) = device.strip_prefix("/dev/") else {
            continue;
        };
        if name.starts_with("loop") || !seen.insert(device.to_owned()) {
            continue;
        }
        let Ok(space) = rustix::fs::statvfs(mounted_on) else {
            continue;
        };
        let used = space.f_blocks.saturating_sub(space.f_bfree);
        disks.push(Disk {
            device: device.to_owned(),
            mounted_on: mounted_on.to_owned(),
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            used_percent: percent(used, used.saturating_add(space.f_bavail)).unwrap_or(0.0),
            inodes_used_percent: percent(
                space.f_files.saturating_sub(space.f_ffree),
                space.f_files,
            ),
            traffic: traffic(&counters, name),
        });
    }
    disks
}

fn traffic(counters: &str, name: &str) -> Option<Traffic> {
    const SECTOR: u64 = 512;
    let fields: Vec<&str> = counters
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&name))?;
    let at = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Traffic {
        read_bytes: at(5)?.saturating_mul(SECTOR),
        written_bytes: at(9)?.saturating_mul(SECTOR),
        busy_ms: at(12)?,
    })
}

/// Every process that can be seen.
pub(crate) fn processes(proc: &Path) -> Vec<Process> {
    let uptime = text(&proc.join("uptime"))
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    let page = rustix::param::page_size() as u64;
    let Ok(entries) = std::fs::read_dir(proc) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            process(pid, &text(&entry.path().join("stat"))?, uptime, page)
        })
        .take(MAX_PROCESSES)
        .collect()
}

fn process(pid: u32, stat: &str, uptime: f64, page: u64) -> Option<Process> {
    // The name is in parentheses and may hold anything, parentheses included.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let at = |n: usize| fields.get(n)?.parse::<u64>().ok();
    // Counted from the state, which is the third field of the line.
    let busy = (at(11)? + at(12)?) as f64 / TICKS;
    let age = (uptime - at(19)? as f64 / TICKS).max(1.0);
    Some(Process {
        pid,
        name: name.chars().filter(|c| !c.is_control()).collect(),
        cpu_percent: round(busy / age * 100.0),
        memory_bytes: at(21)?.saturating_mul(page),
    })
}

/// Open files of the machine and the most there can be.
pub(crate) fn open_files(proc: &Path) -> Option<(u64, u64)> {
    let text = text(&proc.join("sys/fs/file-nr"))?;
    let open = text.split_whitespace().next()?.parse().ok()?;
    Some((open, number(&proc.join("sys/fs/file-max"))?))
}

/// `part` of `whole` in per cent, with two decimals.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| round(part as f64 / whole as f64 * 100.0))
}

/// Two decimals are what a reader can use.
pub(crate) fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
