//! What a run does next: `(state, event) → commands`, pure. The executor carries the commands out.
//!
//! ```text
//!            Begin             Granted            Answered(ok)
//!  Pending ─────────▶ Waiting ─────────▶ Dispatched ─────────▶ Completed
//!     │ └─ takes nothing ────┼──────────────▲ │ Answered(failed), Undeliverable, Clock
//!     │                      └────────────────┴─────────────▶ Failed
//!     │ predecessor failed, or the task ends
//!     └──▶ Skipped                               Cancelled ◀── Cancel, from all
//! ```
//!
//! A step that takes resources waits for them on its own time: the wait counts for its deadline.
//!
//! A failed step does not cut short the steps that run beside it: they are settled by their own
//! answers or deadlines, so that the task's record is whole when it ends. Only the task's deadline
//! and a cancel end everything at once.

mod terms;
mod time;

pub use terms::{Command, Event, Illegal, StepState, StepStatus, TaskEnd};

use super::dag::Dag;
use crate::config::OnFailure;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::{Outcome, StepError};
use serde_json::Value;
use std::time::Duration;

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
    needs: bool,
    published: bool,
}

impl Step {
    /// Whether its time runs.
    fn is_out(&self) -> bool {
        matches!(self.status, StepStatus::Waiting | StepStatus::Dispatched)
    }
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
                    needs: s.needs,
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
                needs: false,
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

    /// Whether the step takes resources that it has to be granted.
    pub fn needs(&self, step: usize) -> bool {
        self.steps.get(step).is_some_and(|s| s.needs)
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
            .filter(|s| s.is_out())
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
                self.expect(step, StepStatus::Dispatched)?;
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
            (Phase::Running, Event::Granted { step }) => {
                self.expect(step, StepStatus::Waiting)?;
                self.send(step, false, &mut commands);
            }
            (Phase::Running, Event::Undeliverable { step, error }) => {
                if self.expect(step, StepStatus::Waiting).is_err() {
                    self.expect(step, StepStatus::Dispatched)?;
                }
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

    fn expect(&self, step: usize, wanted: StepStatus) -> Result<(), Illegal> {
        match self.status(step) {
            None => Err(Illegal::NoStep),
            Some(status) if status == wanted => Ok(()),
            Some(StepStatus::Dispatched) => Err(Illegal::Dispatched),
            Some(StepStatus::Pending | StepStatus::Waiting) => Err(Illegal::NotDispatched),
            Some(_) => Err(Illegal::Settled),
        }
    }

    fn settled(&self, step: usize) -> bool {
        self.status(step).is_some_and(StepStatus::is_settled)
    }

    /// A stored run: what the broker is not known to have may have been lost with the process that was to
    /// hand it over.
    fn take_up(&mut self, commands: &mut Vec<Command>) {
        for step in 0..self.steps.len() {
            let state = &self.steps[step];
            let deadline = state.deadline.unwrap_or(self.deadline);
            match (state.status, state.needs) {
                (StepStatus::Waiting, true) => commands.push(Command::Ask {
                    step,
                    deadline,
                    again: true,
                }),
                // Resources are declared no more.
                (StepStatus::Waiting, false) => self.send(step, false, commands),
                (StepStatus::Dispatched, needs) => {
                    if needs {
                        commands.push(Command::Hold { step });
                    }
                    if !state.published {
                        self.send(step, true, commands);
                    }
                }
                _ => {}
            }
        }
        for step in 0..self.steps.len() {
            if self.status(step) == Some(StepStatus::Failed) {
                self.skip_behind(step, commands);
            }
        }
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
            if !matches!(
                self.status(next),
                Some(StepStatus::Pending | StepStatus::Waiting)
            ) {
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

    /// Dispatches what is ready, or asks for what it takes; ends the run when nothing is left.
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
            let Some(state) = self.steps.get_mut(step) else {
                continue;
            };
            let deadline = now.plus(state.budget).min(self.deadline);
            state.deadline = Some(deadline);
            if state.needs {
                state.status = StepStatus::Waiting;
                commands.push(Command::Ask {
                    step,
                    deadline,
                    again: false,
                });
            } else {
                self.send(step, false, commands);
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

    fn send(&mut self, step: usize, again: bool, commands: &mut Vec<Command>) {
        if let Some(state) = self.steps.get_mut(step) {
            state.status = StepStatus::Dispatched;
            commands.push(Command::Dispatch {
                step,
                deadline: state.deadline.unwrap_or(self.deadline),
                again,
            });
        }
    }

    fn end(&mut self, end: TaskEnd, commands: &mut Vec<Command>) {
        self.phase = Phase::Over;
        commands.push(Command::End(end));
    }
}
