//! Limits of the control group this process is in, version 1, version 2 or both.
//!
//! A limit of an ancestor binds as well, so the tightest on the way to the root counts.

use super::{Roots, number, text};
use std::path::{Path, PathBuf};

/// Version 1 writes "no limit" as the largest multiple of the page size; no machine has so much.
const NO_LIMIT: u64 = 1 << 62;

/// What the control groups allow; `None` is no limit, or none that can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    pub(crate) cpu_millicores: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    /// Memory charged to the group that has the limit.
    pub(crate) memory_used_bytes: Option<u64>,
}

impl Limits {
    pub(crate) fn read(roots: &Roots) -> Self {
        let mut limits = Self::default();
        for line in text(&roots.proc.join("self/cgroup"))
            .unwrap_or_default()
            .lines()
        {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if controllers.is_empty() {
                for mount in [roots.cgroup.clone(), roots.cgroup.join("unified")] {
                    for group in ancestors(&mount, path) {
                        limits.tighten_cpu(cpu_v2(&group));
                        limits.tighten_memory(
                            number(&group.join("memory.max")),
                            number(&group.join("memory.current")),
                        );
                    }
                }
                continue;
            }
            for controller in controllers.split(',') {
                for group in ancestors(&roots.cgroup.join(controller), path) {
                    match controller {
                        "cpu" => limits.tighten_cpu(cpu_v1(&group)),
                        "memory" => limits.tighten_memory(
                            number(&group.join("memory.limit_in_bytes"))
                                .filter(|limit| *limit < NO_LIMIT),
                            number(&group.join("memory.usage_in_bytes")),
                        ),
                        _ => {}
                    }
                }
            }
        }
        limits
    }

    fn tighten_cpu(&mut self, limit: Option<u64>) {
        if let Some(limit) = limit {
            self.cpu_millicores = Some(self.cpu_millicores.map_or(limit, |old| old.min(limit)));
        }
    }

    fn tighten_memory(&mut self, limit: Option<u64>, used: Option<u64>) {
        if let Some(limit) = limit
            && self.memory_bytes.is_none_or(|old| limit < old)
        {
            self.memory_bytes = Some(limit);
            self.memory_used_bytes = used;
        }
    }
}

/// The group at `path` below `mount` and those above it; only the mount itself where a container
/// shows its own group as the root.
fn ancestors(mount: &Path, path: &str) -> Vec<PathBuf> {
    let inner = Path::new(path.trim_start_matches('/'));
    let safe = inner
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    if !safe {
        return vec![mount.to_owned()];
    }
    inner.ancestors().map(|part| mount.join(part)).collect()
}

fn cpu_v2(group: &Path) -> Option<u64> {
    let text = text(&group.join("cpu.max"))?;
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    millicores(quota, words.next()?.parse().ok()?)
}

fn cpu_v1(group: &Path) -> Option<u64> {
    // -1 is no limit, and no u64.
    let quota = number(&group.join("cpu.cfs_quota_us"))?;
    millicores(quota, number(&group.join("cpu.cfs_period_us"))?)
}

fn millicores(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(1000)?.checked_div(period_us)
}
