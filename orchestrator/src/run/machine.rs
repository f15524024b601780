//! What a run does next: `(state, event) → commands`, pure. The executor carries the commands out.
//!
//! ```text
//!            Begin            Answered(ok)
//!  Waiting ─────────▶ Dispatched ─────────▶ Completed
//!     │                   │ Answered(failed), Undeliverable, Clock
//!     │                   └───────────────▶ Failed
//!     │ predecessor failed, or the task ends
//!     └──▶ Skipped                          Cancelled ◀── Cancel, from both
//! ```
//!
//! A failed step does not cut short the steps that run beside it: they are settled by their own
//! answers or deadlines, so that the task's record is whole when it ends. Only the task's deadline
//! and a cancel end everything at once.

use super::dag::Dag;
use crate::config::OnFailure;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::{Outcome, StepError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// Waits for its predecessors.
    Pending,
    /// Handed to the broker, or about to be.
    Dispatched,
    /// Its agent answered.
    Completed,
    /// It did not.
    Failed,
    /// Will not run, since something before it failed or the task's time is up.
    Skipped,
    /// The client called the task off.
    Cancelled,
}

impl StepStatus {
    /// Whether nothing more happens to the step.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Dispatched)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Dispatched => "dispatched",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a task ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// Every step is completed.
    Completed,
    /// Some step is not, and why.
    Failed(StepError),
    /// The client called it off.
    Cancelled,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run begins, or is taken up again after a restart.
    Begin,
    /// A step's agent answered.
    Answered {
        /// The step.
        step: usize,
        /// What it answered, or why not.
        outcome: Outcome,
    },
    /// A step cannot be handed to the broker, for good.
    Undeliverable {
        /// The step.
        step: usize,
        /// Why.
        error: StepError,
    },
    /// Time has passed.
    Clock,
    /// The client calls the task off.
    Cancel,
}

/// What the executor must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Hand the step to the broker.
    Dispatch {
        /// The step.
        step: usize,
        /// When its result stops being wanted.
        deadline: Timestamp,
        /// Whether another process, or an earlier life of this one, may have handed it over already.
        again: bool,
    },
    /// The step is settled.
    Settle {
        /// The step.
        step: usize,
        /// `Completed`, `Failed`, `Skipped` or `Cancelled`.
        status: StepStatus,
        /// The answer, when completed.
        result: Option<Value>,
        /// Why not, otherwise.
        error: Option<StepError>,
    },
    /// The task is over. Always the last command of a run.
    End(TaskEnd),
}

/// An event that the state has no use for. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// `Begin` came before.
    #[error("the run has begun")]
    Begun,
    /// The run has not begun.
    #[error("the run has not begun")]
    NotBegun,
    /// The run is over.
    #[error("the run is over")]
    Over,
    /// The step is settled: a second answer.
    #[error("the step is settled")]
    Settled,
    /// The step was never handed out.
    #[error("the step was not dispatched")]
    NotDispatched,
    /// There is no such step.
    #[error("there is no such step")]
    NoStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    status: StepStatus,
    budget: Duration,
    deadline: Option<Timestamp>,
    published: bool,
}

/// The state of one run.
#[derive(Debug, Clone)]
pub struct Machine {
    dag: Dag,
    steps: Vec<Step>,
    phase: Phase,
    policy: OnFailure,
    deadline: Timestamp,
    first_error: Option<StepError>,
}

/// A step as the machine is told of it.
#[derive(Debug, Clone)]
pub struct StepState {
    /// Where it stands; `Pending` in a new run.
    pub status: StepStatus,
    /// Its time budget, from its dispatch.
    pub budget: Duration,
    /// Its deadline, once dispatched.
    pub deadline: Option<Timestamp>,
    /// Whether the broker is known to have it.
    pub published: bool,
    /// Why it failed, if it did.
    pub error: Option<StepError>,
}

impl Machine {
    /// A run that has not begun, new or as it was stored.
    ///
    /// `steps` are in the order of `dag`; a missing one counts as pending without a budget.
    pub fn new(dag: Dag, steps: Vec<StepState>, policy: OnFailure, deadline: Timestamp) -> Self {
        let mut first_error = None;
        let mut steps: Vec<Step> = steps
            .into_iter()
            .map(|s| {
                if s.status == StepStatus::Failed && first_error.is_none() {
                    first_error = s.error;
                }
                Step {
                    status: s.status,
                    budget: s.budget,
                    deadline: s.deadline,
                    published: s.published,
                }
            })
            .collect();
        steps.resize(
            dag.len(),
            Step {
                status: StepStatus::Pending,
                budget: Duration::ZERO,
                deadline: None,
                published: false,
            },
        );
        Self {
            dag,
            steps,
            phase: Phase::New,
            policy,
            deadline,
            first_error,
        }
    }

    /// The graph.
    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// Whether `End` was commanded.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Where a step stands.
    pub fn status(&self, step: usize) -> Option<StepStatus> {
        self.steps.get(step).map(|s| s.status)
    }

    /// When `Clock` is due next; `None` when the run is over.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.phase == Phase::Over {
            return None;
        }
        self.steps
            .iter()
            .filter(|s| s.status == StepStatus::Dispatched)
            .filter_map(|s| s.deadline)
            .chain([self.deadline])
            .min()
    }

    /// The one transition.
    ///
    /// # Errors
    /// The event has no place in this state, which stays as it was.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<Vec<Command>, Illegal> {
        let mut commands = Vec::new();
        match (self.phase, event) {
            (Phase::Over, _) => return Err(Illegal::Over),
            (Phase::New, Event::Begin) => {
                self.phase = Phase::Running;
                self.take_up(&mut commands);
                if self.expire(now, &mut commands) {
                    return Ok(commands);
                }
            }
            (Phase::New, _) => return Err(Illegal::NotBegun),
            (Phase::Running, Event::Begin) => return Err(Illegal::Begun),
            (Phase::Running, Event::Answered { step, outcome }) => {
                self.expect_dispatched(step)?;
                match outcome {
                    Outcome::Completed { result } => {
                        self.settle(
                            step,
                            StepStatus::Completed,
                            Some(result),
                            None,
                            &mut commands,
                        );
                    }
                    Outcome::Failed { error } => self.fail(step, error, &mut commands),
                }
            }
            (Phase::Running, Event::Undeliverable { step, error }) => {
                self.expect_dispatched(step)?;
                self.fail(step, error, &mut commands);
            }
            (Phase::Running, Event::Clock) => {
                if self.expire(now, &mut commands) {
                    return Ok(commands);
                }
            }
            (Phase::Running, Event::Cancel) => {
                for step in 0..self.steps.len() {
                    if !self.settled(step) {
                        let error = StepError::new("cancelled", "the task was cancelled");
                        self.settle(
                            step,
                            StepStatus::Cancelled,
                            None,
                            Some(error),
                            &mut commands,
                        );
                    }
                }
                self.end(TaskEnd::Cancelled, &mut commands);
                return Ok(commands);
            }
        }
        self.advance(now, &mut commands);
        Ok(commands)
    }

    fn expect_dispatched(&self, step: usize) -> Result<(), Illegal> {
        match self.status(step) {
            None => Err(Illegal::NoStep),
            Some(StepStatus::Dispatched) => Ok(()),
            Some(StepStatus::Pending) => Err(Illegal::NotDispatched),
            Some(_) => Err(Illegal::Settled),
        }
    }

    fn settled(&self, step: usize) -> bool {
        self.status(step).is_some_and(StepStatus::is_settled)
    }

    /// A stored run: what the broker is not known to have may have been lost with the process that was to
    /// hand it over.
    fn take_up(&mut self, commands: &mut Vec<Command>) {
        for (step, state) in self.steps.iter().enumerate() {
            if state.status == StepStatus::Dispatched && !state.published {
                commands.push(Command::Dispatch {
                    step,
                    deadline: state.deadline.unwrap_or(self.deadline),
                    again: true,
                });
            }
        }
        for step in 0..self.steps.len() {
            if self.status(step) == Some(StepStatus::Failed) {
                self.skip_behind(step, commands);
            }
        }
    }

    /// Fails what is late. Whether the task itself is, and is over.
    fn expire(&mut self, now: Timestamp, commands: &mut Vec<Command>) -> bool {
        let task_late = now >= self.deadline;
        let late: Vec<usize> = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, s)| s.status == StepStatus::Dispatched)
            .filter(|(_, s)| task_late || s.deadline.is_some_and(|d| now >= d))
            .map(|(step, _)| step)
            .collect();
        if !late.is_empty() {
            // What was to be dispatched again in this very event is late as well.
            commands
                .retain(|c| !matches!(c, Command::Dispatch { step, .. } if late.contains(step)));
        }
        for step in late {
            let error = StepError::new("deadline_exceeded", "no result came before the deadline");
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

    fn fail(&mut self, step: usize, error: StepError, commands: &mut Vec<Command>) {
        self.settle(step, StepStatus::Failed, None, Some(error), commands);
        self.skip_behind(step, commands);
    }

    /// Skips what cannot or, by the policy, shall not run after `step` failed.
    fn skip_behind(&mut self, step: usize, commands: &mut Vec<Command>) {
        let mut doomed: Vec<usize> = match self.policy {
            OnFailure::FailTask => (0..self.steps.len()).collect(),
            OnFailure::Continue => self.dag.after(step).to_vec(),
        };
        while let Some(next) = doomed.pop() {
            if self.status(next) != Some(StepStatus::Pending) {
                continue;
            }
            let error = StepError::new("predecessor_failed", "a step before this one failed");
            self.settle(next, StepStatus::Skipped, None, Some(error), commands);
            doomed.extend(self.dag.after(next));
        }
    }

    fn settle(
        &mut self,
        step: usize,
        status: StepStatus,
        result: Option<Value>,
        error: Option<StepError>,
        commands: &mut Vec<Command>,
    ) {
        if let Some(state) = self.steps.get_mut(step) {
            state.status = status;
        }
        if status == StepStatus::Failed && self.first_error.is_none() {
            self.first_error.clone_from(&error);
        }
        commands.push(Command::Settle {
            step,
            status,
            result,
            error,
        });
    }

    /// Dispatches what is ready; ends the run when nothing is left.
    fn advance(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        for step in 0..self.steps.len() {
            let ready = self.status(step) == Some(StepStatus::Pending)
                && self
                    .dag
                    .before(step)
                    .iter()
                    .all(|&b| self.status(b) == Some(StepStatus::Completed));
            if !ready {
                continue;
            }
            if let Some(state) = self.steps.get_mut(step) {
                let deadline = now.plus(state.budget).min(self.deadline);
                state.status = StepStatus::Dispatched;
                state.deadline = Some(deadline);
                commands.push(Command::Dispatch {
                    step,
                    deadline,
                    again: false,
                });
            }
        }
        if self.steps.iter().any(|s| !s.status.is_settled()) {
            return;
        }
        let end = if self.steps.iter().all(|s| s.status == StepStatus::Completed) {
            TaskEnd::Completed
        } else {
            let error = self.first_error.clone();
            TaskEnd::Failed(
                error.unwrap_or_else(|| StepError::new("predecessor_failed", "no step is left")),
            )
        };
        self.end(end, commands);
    }

    fn end(&mut self, end: TaskEnd, commands: &mut Vec<Command>) {
        self.phase = Phase::Over;
        commands.push(Command::End(end));
    }
}
