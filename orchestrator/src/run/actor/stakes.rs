//! What the steps of a run take of the mesh's resources: asked for before they go out, given back when they are settled.
//!
//! A run that leaves this process keeps what its steps have: whoever takes it up asks for the same under a higher fencing
//! token.

use super::{Actor, Round};
use crate::resources::{Got, Key, OnDrop, Want};
use crate::run::machine::{Event, StepStatus};
use futures_util::FutureExt;
use mesh_protocol::outcome::StepError;

impl Actor {
    /// Asks for what `step` takes; `running` when it has gone out already.
    pub(super) fn ask(&mut self, step: usize, running: bool) {
        let wanted = if running {
            StepStatus::Dispatched
        } else {
            StepStatus::Waiting
        };
        let Some(desk) = &self.executor.context().desk else {
            return;
        };
        if self.machine.status(step) != Some(wanted) {
            return;
        }
        let want = self.handle.read(|run| {
            let planned = run.plan.execution_plan.get(step)?;
            Some(Want {
                key: Key {
                    id: format!("{}/{}", run.task_id, planned.id),
                    holder: String::new(),
                    generation: run.fence,
                },
                needs: planned.resources.clone(),
                priority: run.request.priority,
                ttl: None,
                running,
            })
        });
        if let Some(want) = want {
            let (stake, got) = desk.ask(want, OnDrop::Forget);
            self.stakes.insert(step, stake);
            self.grants.push(got.map(move |got| (step, got)).boxed());
        }
    }

    /// What came of asking.
    pub(super) fn got(&mut self, step: usize, got: Got, round: &mut Round) {
        match got {
            Got::Granted { .. } => self.event(Event::Granted { step }, round),
            // What runs already runs on.
            Got::TooMuch if self.machine.status(step) == Some(StepStatus::Dispatched) => {}
            Got::TooMuch => {
                let detail = "it takes more than this mesh declares";
                let error = StepError::new("resources_exceeded", detail);
                self.event(Event::Undeliverable { step, error }, round);
            }
            // The run as well, as its next write shows.
            Got::Superseded => round.look = true,
        }
    }

    /// Returns what `step` has, if anything.
    pub(super) fn give_back(&mut self, step: usize) {
        if let Some(stake) = self.stakes.remove(&step) {
            stake.give_back();
        }
    }

    pub(super) fn give_back_all(&mut self) {
        for (_, stake) in self.stakes.drain() {
            stake.give_back();
        }
    }
}
