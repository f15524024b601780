//! hardware-optimizer: measures the machine and says what to change and why.
//!
//! Figures are at most a second old: a burst of steps is answered from one measurement, since reading
//! every process is the most that this agent costs the machine it is to spare.

mod advise;
#[cfg(test)]
mod tests;

use crate::machine::{Roots, cgroup, proc};
use crate::process;
use advise::{Recommendation, advise};
use axum::Router;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a measurement is good for.
const FRESH: Duration = Duration::from_secs(1);
/// How many processes are named by memory, and by processor time.
const TOP: usize = 5;

/// The agent, reading the machine at `roots`.
pub fn router(roots: Roots) -> Router {
    let state = Mutex::new(State::default());
    process::router(
        "hardware-optimizer",
        process::blocking(move |_| {
            // What is in there is replaced as a whole.
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(state.report(&roots))
        }),
    )
}

#[derive(Default)]
struct State {
    last: Option<(Instant, Value)>,
    ticks: Option<proc::Ticks>,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize)]
struct Figures {
    cores: u64,
    /// What control groups allow, in thousandths of a core.
    cpu_limit_millicores: Option<u64>,
    load_average: Option<[f64; 3]>,
    load_per_core: Option<f64>,
    cpu: Option<Cpu>,
    memory: Option<proc::Memory>,
    memory_used_percent: Option<f64>,
    memory_limit_bytes: Option<u64>,
    memory_limit_used_percent: Option<f64>,
    disks: Vec<proc::Disk>,
    pressure_cpu: Option<proc::Pressure>,
    pressure_memory: Option<proc::Pressure>,
    pressure_io: Option<proc::Pressure>,
    open_files_percent: Option<f64>,
    processes: usize,
    top_by_memory: Vec<proc::Process>,
    top_by_cpu: Vec<proc::Process>,
}

/// Use of the processor, in per cent of all cores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cpu {
    busy_percent: f64,
    io_wait_percent: f64,
    stolen_percent: f64,
    /// `boot` for the first measurement, else `last_measurement`.
    since: &'static str,
}

impl State {
    fn report(&mut self, roots: &Roots) -> Value {
        if let Some((at, report)) = &self.last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let figures = self.measure(roots);
        let recommendations = advise(&figures);
        let report = json!({
            "agent": "hardware-optimizer",
            "summary": summary(&recommendations),
            "figures": figures,
            "recommendations": recommendations,
            "not_readable": not_readable(&figures),
        });
        self.last = Some((Instant::now(), report.clone()));
        report
    }

    fn measure(&mut self, roots: &Roots) -> Figures {
        let root = &roots.proc;
        let limits = cgroup::Limits::read(roots);
        let cores = proc::cores(root);
        let load_average = proc::load(root);
        let memory = proc::memory(root);
        let mut by_memory = proc::processes(root);
        let processes = by_memory.len();
        let mut by_cpu = by_memory.clone();
        by_memory.sort_by_key(|p| (std::cmp::Reverse(p.memory_bytes), p.pid));
        by_cpu.sort_by(|a, b| {
            b.cpu_percent
                .total_cmp(&a.cpu_percent)
                .then(a.pid.cmp(&b.pid))
        });
        by_memory.truncate(TOP);
        by_cpu.truncate(TOP);
        Figures {
            cores,
            cpu_limit_millicores: limits.cpu_millicores,
            load_average,
            load_per_core: load_average.map(|[one, ..]| proc::round(one / cores as f64)),
            cpu: self.cpu(root),
            memory,
            memory_used_percent: memory.and_then(|m| {
                proc::percent(
                    m.total_bytes.saturating_sub(m.available_bytes),
                    m.total_bytes,
                )
            }),
            memory_limit_bytes: limits.memory_bytes,
            memory_limit_used_percent: limits
                .memory_used_bytes
                .zip(limits.memory_bytes)
                .and_then(|(used, limit)| proc::percent(used, limit)),
            disks: proc::disks(root),
            pressure_cpu: proc::pressure(root, "cpu"),
            pressure_memory: proc::pressure(root, "memory"),
            pressure_io: proc::pressure(root, "io"),
            open_files_percent: proc::open_files(root)
                .and_then(|(open, most)| proc::percent(open, most)),
            processes,
            top_by_memory: by_memory,
            top_by_cpu: by_cpu,
        }
    }

    fn cpu(&mut self, root: &std::path::Path) -> Option<Cpu> {
        let now = proc::ticks(root)?;
        let before = self.ticks.replace(now);
        let (past, since) = match before {
            Some(past) if now.total > past.total => (past, "last_measurement"),
            _ => (
                proc::Ticks {
                    busy: 0,
                    io_wait: 0,
                    stolen: 0,
                    total: 0,
                },
                "boot",
            ),
        };
        let total = now.total.saturating_sub(past.total);
        let share = |now: u64, past: u64| proc::percent(now.saturating_sub(past), total);
        Some(Cpu {
            busy_percent: share(now.busy, past.busy)?,
            io_wait_percent: share(now.io_wait, past.io_wait)?,
            stolen_percent: share(now.stolen, past.stolen)?,
            since,
        })
    }
}

fn summary(recommendations: &[Recommendation]) -> String {
    match recommendations.first() {
        None => "nothing needs changing".to_owned(),
        Some(worst) => format!(
            "{} recommendation(s), the gravest is {}: {}",
            recommendations.len(),
            worst.severity.name(),
            worst.why
        ),
    }
}

fn not_readable(figures: &Figures) -> Vec<&'static str> {
    [
        ("load", figures.load_average.is_none()),
        ("cpu", figures.cpu.is_none()),
        ("memory", figures.memory.is_none()),
        ("disks", figures.disks.is_empty()),
        ("pressure", figures.pressure_cpu.is_none()),
        ("processes", figures.processes == 0),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect()
}
