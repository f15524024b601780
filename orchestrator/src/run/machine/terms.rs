//! The words of a run: where its steps stand, what happens to it, what is to be done.

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
    /// Waits for the resources that it takes.
    Waiting,
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
        !matches!(self, Self::Pending | Self::Waiting | Self::Dispatched)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
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
    /// A step has the resources that it waits for.
    Granted {
        /// The step.
        step: usize,
    },
    /// A step cannot be handed to the broker, or never will have its resources.
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
    /// Ask for the resources that the step takes. Its time runs from now on.
    Ask {
        /// The step.
        step: usize,
        /// When its result stops being wanted.
        deadline: Timestamp,
        /// Whether the store has it so already: it waited when another process had the run.
        again: bool,
    },
    /// The step has its resources, from another process or an earlier life of this one: keep them.
    Hold {
        /// The step.
        step: usize,
    },
    /// The step is settled, and gives back what it has.
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
    /// The step was handed out: it waits no more.
    #[error("the step is dispatched")]
    Dispatched,
    /// The step was never handed out.
    #[error("the step was not dispatched")]
    NotDispatched,
    /// There is no such step.
    #[error("there is no such step")]
    NoStep,
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
    /// Whether it takes resources that it has to be granted first.
    pub needs: bool,
    /// Whether the broker is known to have it.
    pub published: bool,
    /// Why it failed, if it did.
    pub error: Option<StepError>,
}
