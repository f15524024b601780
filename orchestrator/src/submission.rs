//! The one way in for tasks, by whichever door: HTTP ([`crate::api`]) or the broker ([`crate::intake`]).
//!
//! ```text
//!  seen before? ──▶ room? ──▶ plan ──▶ store and begin
//! ```

use crate::api::{Caller, Failure, Found, find};
use crate::config::Config;
use crate::planner::{CheckedPlan, NoPlan, Planning};
use crate::run::admission::SubmitError;
use crate::run::executor::{Executor, Submitted};
use crate::run::new_task_id;
use crate::store::{Earlier, ReplyTo, RunRecord, StoreError, SubmissionKey};
use mesh_protocol::assertion::{self, AssertionError, PublicKey};
use mesh_protocol::task::{RequestError, TaskRequest};
use mesh_protocol::{AgentId, TaskId, Timestamp};
use mesh_trace::{Context, Kind, Span, Tracer};
use std::sync::Arc;

/// What both doors share.
pub struct Submissions {
    executor: Arc<Executor>,
    planning: Arc<Planning>,
    tracer: Tracer,
    keys: Vec<PublicKey>,
    audience: String,
    /// Largest request, in bytes.
    pub max_body_bytes: usize,
}

/// When a request arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// By the wall clock.
    at: Timestamp,
    /// By the clock of deadlines.
    clock: Timestamp,
}

/// A task that somebody wants done.
pub struct Asked {
    /// The task.
    pub task: TaskRequest,
    /// Bytes of its request.
    pub bytes: usize,
    /// When it came.
    pub arrival: Arrival,
    /// Who wants it.
    pub caller: Caller,
    /// Under which key.
    pub key: Option<SubmissionKey>,
    /// Where it belongs in its trace.
    pub place: Context,
    /// The agent that is to do it, and what, where its submitter has chosen.
    pub agent: Option<(AgentId, String)>,
    /// Where its submitter hears how it ended, if not by asking.
    pub reply: Option<ReplyTo>,
    /// What its submitter calls it.
    pub client_task_id: Option<String>,
}

/// A task that is taken.
pub struct Taken {
    /// Its run.
    pub run: Found,
    /// Whether it was submitted before, under the same key.
    pub repeated: bool,
}

impl Submissions {
    /// Submissions to `executor`, planned by `planning`.
    ///
    /// # Errors
    /// An assertion key is none.
    pub fn new(
        config: &Config,
        executor: Arc<Executor>,
        planning: Arc<Planning>,
    ) -> Result<Self, AssertionError> {
        let keys = config.assertions.keys.iter();
        let keys = keys.map(|k| PublicKey::from_base64(k.kid.clone(), &k.x));
        Ok(Self {
            tracer: executor.context().tracing.tracer().clone(),
            executor,
            planning,
            keys: keys.collect::<Result<_, _>>()?,
            audience: config.assertions.audience.clone(),
            max_body_bytes: config.limits.max_body_bytes,
        })
    }

    /// What plans tasks.
    pub fn planning(&self) -> &Arc<Planning> {
        &self.planning
    }

    /// Who writes this assertion.
    ///
    /// # Errors
    /// It proves nothing, or nothing now.
    pub fn asserted(&self, text: &str) -> Result<Caller, AssertionError> {
        let claims = assertion::verify(text, &self.keys, &self.audience, Timestamp::now())?;
        Ok(Caller::Asserted {
            claims: Box::new(claims),
            assertion: text.to_owned(),
        })
    }

    /// Now.
    pub fn arrival(&self) -> Arrival {
        Arrival {
            at: Timestamp::now(),
            clock: self.executor.clock().now(),
        }
    }

    /// Takes a task, plans it, keeps it, begins it; or finds what came of it before.
    ///
    /// # Errors
    /// Why not; 503 when it may be taken later.
    pub async fn submit(&self, mut asked: Asked) -> Result<Taken, Failure> {
        let agent = asked.agent.take();
        let originator = asked.caller.originator();
        let plan = async |task: &TaskRequest, span: &mut Span| {
            let planned = match &agent {
                None => self.planning.plan(task, &originator, span).await,
                Some((agent, action)) => self.planning.of_one(agent, action),
            };
            planned.map_err(|error| no_plan(error, &task.task_type))
        };
        self.submit_planned(asked, new_task_id(), plan).await
    }

    /// The same for a task with this id, whose plan is made by `plan`.
    ///
    /// # Errors
    /// As [`Self::submit`], and what `plan` says.
    pub async fn submit_planned(
        &self,
        asked: Asked,
        id: TaskId,
        plan: impl AsyncFnOnce(&TaskRequest, &mut Span) -> Result<CheckedPlan, Failure>,
    ) -> Result<Taken, Failure> {
        // Before planning: a plan may cost a model's time. Before the question whether a new task could begin
        // now: this one may have begun.
        if let Some(key) = &asked.key {
            let earlier = self.executor.context().store.submitted(key).await;
            if let Some(earlier) = earlier.map_err(|e| refusal(e.into()))? {
                return self.again(&asked.caller, earlier).await;
            }
        }
        let slot = self.executor.admit(asked.bytes).await.map_err(refusal)?;
        let place = Some(asked.place.clone());
        let mut span = self.tracer.start(Kind::Internal, "plan task", place);
        span.set("mesh.task.id", id.as_str());
        let planned = plan(&asked.task, &mut span).await;
        drop(span);
        let planned = planned?;
        let trace = (&asked.place).into();
        let mut run = RunRecord::new(id, asked.task, planned.plan, trace, asked.arrival.at);
        let budget = run.deadline.since(run.created_at);
        run.deadline = asked.arrival.clock.plus(budget);
        run.owner = asked.caller.owner();
        run.key = asked.key;
        run.reply = asked.reply;
        run.client_task_id = asked.client_task_id;
        if let Caller::Asserted { assertion, .. } = &asked.caller {
            run.assertion = Some(assertion.clone());
        }
        match self.executor.submit(run, slot).await.map_err(refusal)? {
            Submitted::Begun(handle) => Ok(Taken {
                run: Found::Live(handle),
                repeated: false,
            }),
            Submitted::Earlier(earlier) => self.again(&asked.caller, earlier).await,
        }
    }

    /// The task that was submitted under the same key.
    async fn again(&self, caller: &Caller, earlier: Earlier) -> Result<Taken, Failure> {
        if !earlier.same_body {
            return Err(Failure::key_reused());
        }
        // It is about to end, for its client heard that it is not accepted.
        if self.executor.is_withdrawing(&earlier.run) {
            return Err(Failure::unavailable(
                "the task cannot be kept at the moment",
            ));
        }
        Ok(Taken {
            run: find(&self.executor, caller, &earlier.run).await?,
            repeated: true,
        })
    }
}

/// What is wrong with a request.
pub fn wrong(error: RequestError) -> Failure {
    match error {
        RequestError::NotJson(detail) => Failure::not_json(detail),
        RequestError::Fields(faults) => Failure::fields(faults),
    }
}

fn no_plan(error: NoPlan, task_type: &str) -> Failure {
    match error {
        NoPlan::UnknownTaskType { known } => Failure::unknown_task_type(task_type, &known),
        NoPlan::Rejected(findings) => Failure::no_plan(
            findings
                .iter()
                .map(|f| format!("{}: {}", f.code.as_str(), f.detail))
                .collect::<Vec<_>>()
                .join("; "),
        ),
    }
}

fn refusal(error: SubmitError) -> Failure {
    match error {
        SubmitError::Busy => Failure::unavailable("as many tasks as allowed are in flight"),
        SubmitError::Broker => Failure::unavailable("steps cannot be handed out at the moment"),
        SubmitError::NoLease => Failure::unavailable("the task cannot be kept at the moment"),
        SubmitError::Store(StoreError::Unavailable { detail, .. }) => {
            tracing::warn!(detail, "a task was refused, since it cannot be kept");
            Failure::unavailable("the task cannot be kept at the moment")
        }
        SubmitError::Store(error) => {
            tracing::error!(%error, "a task was refused, since it cannot be kept");
            Failure::unavailable("the task cannot be kept at the moment")
        }
        SubmitError::Plan(detail) => Failure::no_plan(detail),
    }
}
