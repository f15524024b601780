//! What is late.

use super::{Command, Machine, StepStatus, TaskEnd};
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::StepError;

impl Machine {
    /// Fails what is late. Whether the task itself is, and is over.
    pub(super) fn expire(&mut self, now: Timestamp, commands: &mut Vec<Command>) -> bool {
        let task_late = now >= self.deadline;
        let late: Vec<usize> = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, s)| s.is_out())
            .filter(|(_, s)| task_late || s.deadline.is_some_and(|d| now >= d))
            .map(|(step, _)| step)
            .collect();
        if !late.is_empty() {
            // What was to be taken up in this very event is late as well.
            commands.retain(|c| match c {
                Command::Dispatch { step, .. }
                | Command::Ask { step, .. }
                | Command::Hold { step } => !late.contains(step),
                Command::Settle { .. } | Command::End(_) => true,
            });
        }
        for step in late {
            let detail = match self.status(step) {
                Some(StepStatus::Waiting) => "its resources were not free before the deadline",
                _ => "no result came before the deadline",
            };
            let error = StepError::new("deadline_exceeded", detail);
            if task_late {
                self.settle(step, StepStatus::Failed, None, Some(error), commands);
            } else {
                self.fail(step, error, commands);
            }
        }
        if !task_late {
            return false;
        }
        for step in 0..self.steps.len() {
            if !self.settled(step) {
                let error = StepError::new("deadline_exceeded", "the task's time was up");
                self.settle(step, StepStatus::Skipped, None, Some(error), commands);
            }
        }
        if self.steps.iter().all(|s| s.status == StepStatus::Completed) {
            self.end(TaskEnd::Completed, commands);
        } else {
            let error = StepError::new("deadline_exceeded", "the task's time was up");
            self.end(TaskEnd::Failed(error), commands);
        }
        true
    }
}
