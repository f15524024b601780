//! From figures to recommendations; pure.
//!
//! Each threshold is one that common monitoring rules use for the same figure. A recommendation says
//! the figure that led to it, and a change that a person can make.

use super::Figures;
use crate::machine::proc::{Disk, Process};
use serde::Serialize;

/// How much a finding matters, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Critical,
    Warning,
    Info,
}

impl Severity {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One change worth making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Recommendation {
    pub(super) severity: Severity,
    pub(super) area: &'static str,
    /// The figure.
    pub(super) why: String,
    pub(super) change: String,
}

/// What `figures` ask for, the gravest first.
pub(super) fn advise(figures: &Figures) -> Vec<Recommendation> {
    let mut found = Vec::new();
    cpu(figures, &mut found);
    memory(figures, &mut found);
    pressure(figures, &mut found);
    for disk in &figures.disks {
        space(disk, &mut found);
    }
    if let Some(used) = figures.open_files_percent
        && used >= 80.0
    {
        found.push(Recommendation {
            severity: Severity::Warning,
            area: "files",
            why: format!("{used} % of the machine's open files are in use"),
            change: "raise fs.file-max, or find the process that keeps files open".to_owned(),
        });
    }
    found.sort_by_key(|r| r.severity);
    found
}

/// Critical from `high`, a warning from `low`.
fn grade(figure: f64, low: f64, high: f64) -> Option<Severity> {
    if figure >= high {
        Some(Severity::Critical)
    } else if figure >= low {
        Some(Severity::Warning)
    } else {
        None
    }
}

fn named(processes: &[Process]) -> String {
    match processes.first() {
        Some(p) => format!("{} (pid {})", p.name, p.pid),
        None => "the largest process".to_owned(),
    }
}

fn cpu(figures: &Figures, found: &mut Vec<Recommendation>) {
    if let Some(load) = figures.load_per_core
        && let Some(severity) = grade(load, 1.0, 2.0)
    {
        found.push(Recommendation {
            severity,
            area: "cpu",
            why: format!(
                "load per core is {load} over the last minute, on {} core(s)",
                figures.cores
            ),
            change: format!(
                "run less at a time or add cores; {} has used most processor time",
                named(&figures.top_by_cpu)
            ),
        });
    }
    if let Some(cpu) = figures.cpu {
        if let Some(severity) = grade(cpu.io_wait_percent, 20.0, 40.0) {
            found.push(Recommendation {
                severity,
                area: "io",
                why: format!("cores wait {} % of the time for disks", cpu.io_wait_percent),
                change: "move data to faster disks, or cache what is read again and again".into(),
            });
        }
        if let Some(severity) = grade(cpu.stolen_percent, 10.0, 25.0) {
            found.push(Recommendation {
                severity,
                area: "cpu",
                why: format!("the hypervisor takes {} % of the time", cpu.stolen_percent),
                change: "move this machine to a host with fewer neighbours".to_owned(),
            });
        }
    }
    if let Some(limit) = figures.cpu_limit_millicores
        && limit < figures.cores * 1000
    {
        found.push(Recommendation {
            severity: Severity::Info,
            area: "cpu",
            why: format!(
                "a control group allows {limit} of {} millicores",
                figures.cores * 1000
            ),
            change: "size thread pools by the limit, not by the number of cores".to_owned(),
        });
    }
}

fn memory(figures: &Figures, found: &mut Vec<Recommendation>) {
    if let Some(used) = figures.memory_used_percent
        && let Some(severity) = grade(used, 85.0, 95.0)
    {
        found.push(Recommendation {
            severity,
            area: "memory",
            why: format!("{used} % of memory is in use"),
            change: format!(
                "add memory or stop something; {} holds most",
                named(&figures.top_by_memory)
            ),
        });
    }
    if let Some(used) = figures.memory_limit_used_percent
        && let Some(severity) = grade(used, 85.0, 95.0)
    {
        found.push(Recommendation {
            severity,
            area: "memory",
            why: format!("{used} % of the control group's memory is in use"),
            change: "raise the group's memory limit, or the kernel will end a process".to_owned(),
        });
    }
    let Some(memory) = figures.memory else { return };
    if memory.swap_total_bytes > 0 {
        let used = memory.swap_used_bytes as f64 / memory.swap_total_bytes as f64 * 100.0;
        if let Some(severity) = grade(used, 25.0, 80.0) {
            found.push(Recommendation {
                severity,
                area: "swap",
                why: format!("{used:.0} % of swap is in use"),
                change: "add memory, or lower vm.swappiness where it serves caches".to_owned(),
            });
        }
    } else {
        found.push(Recommendation {
            severity: Severity::Info,
            area: "swap",
            why: format!(
                "there is no swap beside {} MiB of memory",
                memory.total_bytes / (1024 * 1024)
            ),
            change: "where a peak may exceed memory, add swap or zram as a reserve".to_owned(),
        });
    }
}

fn pressure(figures: &Figures, found: &mut Vec<Recommendation>) {
    let areas = [
        ("cpu", figures.pressure_cpu, 25.0, 60.0),
        ("memory", figures.pressure_memory, 5.0, 20.0),
        ("io", figures.pressure_io, 20.0, 50.0),
    ];
    for (area, pressure, low, high) in areas {
        let Some(pressure) = pressure else { continue };
        let Some(severity) = grade(pressure.some_avg60, low, high) else {
            continue;
        };
        let change = match area {
            "cpu" => "give latency-bound work a larger cpu.weight, or run less at a time",
            "memory" => "add memory, or set memory.high on what may wait",
            _ => "spread reads and writes over time or disks",
        };
        found.push(Recommendation {
            severity,
            area,
            why: format!(
                "work waited for {area} in {} % of the last minute",
                pressure.some_avg60
            ),
            change: change.to_owned(),
        });
    }
}

fn space(disk: &Disk, found: &mut Vec<Recommendation>) {
    if let Some(severity) = grade(disk.used_percent, 80.0, 92.0) {
        found.push(Recommendation {
            severity,
            area: "disk",
            why: format!(
                "{} is {} % full, {} MiB are left",
                disk.mounted_on,
                disk.used_percent,
                disk.available_bytes / (1024 * 1024)
            ),
            change: format!("remove or move data on {}, or enlarge it", disk.device),
        });
    }
    if let Some(inodes) = disk.inodes_used_percent
        && let Some(severity) = grade(inodes, 80.0, 95.0)
    {
        found.push(Recommendation {
            severity,
            area: "disk",
            why: format!("{} has used {inodes} % of its inodes", disk.mounted_on),
            change: "remove small files, or make the file system again with more inodes".to_owned(),
        });
    }
}
