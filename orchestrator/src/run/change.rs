//! From commands to the change of a stored run; pure.

use super::machine::{Command, StepStatus, TaskEnd};
use crate::store::{Change, End, RunRecord, StepRecord, TaskStatus};
use mesh_protocol::Timestamp;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// What a sidecar reports of a step beside its outcome.
pub(super) struct Report {
    pub(super) started_at: Timestamp,
    pub(super) attempts: u32,
}

/// The change to `run` that `commands` make.
pub(super) fn change_for(
    run: &RunRecord,
    commands: &[Command],
    reports: &HashMap<usize, Report>,
    now: Timestamp,
) -> Change {
    let mut steps: BTreeMap<usize, StepRecord> = BTreeMap::new();
    let mut end = None;
    for command in commands {
        match command {
            Command::Ask {
                step,
                deadline,
                again,
            } => {
                let needs = run.plan.execution_plan.get(*step).map(|s| &s.resources);
                if let (false, Some(record)) = (again, slot(&mut steps, run, *step)) {
                    record.status = StepStatus::Waiting;
                    record.time = now;
                    record.deadline = Some(*deadline);
                    record.waiting_for = needs.into_iter().flatten().map(|n| n.0.clone()).collect();
                }
            }
            // The store says so already.
            Command::Hold { .. } => {}
            Command::Dispatch {
                step,
                deadline,
                again,
            } => {
                // Dispatched again: the store says so already.
                if let (false, Some(record)) = (again, slot(&mut steps, run, *step)) {
                    record.status = StepStatus::Dispatched;
                    record.time = now;
                    record.waiting_for.clear();
                    record.dispatched_at = Some(now);
                    record.deadline = Some(*deadline);
                }
            }
            Command::Settle {
                step,
                status,
                result,
                error,
            } => {
                if let Some(record) = slot(&mut steps, run, *step) {
                    record.status = *status;
                    record.time = now;
                    record.finished_at = Some(now);
                    record.waiting_for.clear();
                    record.result.clone_from(result);
                    record.error.clone_from(error);
                    if let Some(report) = reports.get(step) {
                        record.started_at = Some(report.started_at);
                        record.attempts = Some(report.attempts);
                    }
                }
            }
            Command::End(how) => {
                let (status, error) = match how {
                    TaskEnd::Completed => (TaskStatus::Completed, None),
                    TaskEnd::Failed(error) => (TaskStatus::Failed, Some(error.clone())),
                    TaskEnd::Cancelled => (TaskStatus::Cancelled, None),
                };
                end = Some(End {
                    status,
                    error,
                    at: now,
                });
            }
        }
    }
    let completed = (0..run.steps.len())
        .filter(|place| {
            let step = steps.get(place).or_else(|| run.steps.get(*place));
            step.is_some_and(|s| s.status == StepStatus::Completed)
        })
        .count();
    Change {
        steps: steps
            .into_iter()
            .filter_map(|(place, record)| {
                let id = run.plan.execution_plan.get(place)?.id.clone();
                Some((place, id, record))
            })
            .collect(),
        completed,
        end,
        version: run.version + 1,
        handed: Vec::new(),
        events: Vec::new(),
    }
}

/// Adds to `change` that the broker has these steps since then; of those that are settled it is of no use.
pub(super) fn mark_published(
    change: &mut Change,
    run: &RunRecord,
    published: &BTreeMap<usize, Timestamp>,
) {
    for (&place, &at) in published {
        if let Some((_, _, record)) = change.steps.iter_mut().find(|(p, ..)| *p == place) {
            record.published_at = Some(at);
            continue;
        }
        let planned = run.plan.execution_plan.get(place);
        let record = run
            .steps
            .get(place)
            .filter(|step| !step.status.is_settled());
        if let (Some(planned), Some(record)) = (planned, record) {
            let mut record = record.clone();
            record.published_at = Some(at);
            change.steps.push((place, planned.id.clone(), record));
        }
    }
}

fn slot<'a>(
    steps: &'a mut BTreeMap<usize, StepRecord>,
    run: &RunRecord,
    step: usize,
) -> Option<&'a mut StepRecord> {
    match steps.entry(step) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) => Some(entry.insert(run.steps.get(step)?.clone())),
    }
}
