//! From a task to a checked plan.
//!
//! ```text
//!             draft ┌────────┐ findings, once     ┌───────┐
//!  model ──────────▶│ check  │───────────────────▶│ model │──▶ check ──▶ plan
//!    │ fails        └────────┘                    └───────┘      │ findings again
//!    └──────────────────────────▶ rules ──▶ check ──▶ plan ◀─────┘
//! ```
//!
//! What a planner says is a [`Draft`]; only [`check::check`] makes a plan of it, whoever wrote it.
//! The plan says who made it and why nobody better did (`source`, `risks`).
//!
//! A model has at most two calls, each within its own time limit (`ollama.timeout_ms`), and for both
//! no more than a third of the task's time: whoever plans, the plan still has most of it to run in.

mod catalog;
pub mod check;
pub mod draft;
mod finding;
pub mod ollama;
pub mod prompt;
pub mod rules;

use crate::assign::Assigner;
use crate::config;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::ollama::Models;
use crate::ollama::cache::PlanCache;
use crate::resources::Amounts;
use crate::run::dag::Dag;
use async_trait::async_trait;
pub use catalog::{Catalog, Originator};
use check::{Bounds, Finding};
use draft::{Draft, Usage};
use mesh_protocol::AgentId;
use mesh_protocol::load::AgentLoad;
use mesh_protocol::plan::{Plan, PlanSource};
use mesh_protocol::task::TaskRequest;
use mesh_trace::Span;
use rules::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The part of a task's time that a model may plan for is one of this many.
const MODEL_SHARE: u32 = 3;

/// The port: someone who proposes plans.
#[async_trait]
pub trait Planner: Send + Sync {
    /// Proposes a plan. `findings` are what the check said of this planner's first proposal.
    ///
    /// # Errors
    /// [`PlannerError`].
    async fn draft(
        &self,
        request: &TaskRequest,
        findings: &[Finding],
    ) -> Result<Draft, PlannerError>;

    /// Who it is, for the plan's `source`.
    fn source(&self) -> PlanSource;
}

/// Why there is no proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlannerError {
    /// No agent of this mesh takes this type of task.
    #[error("unknown task type; known are {}", .known.join(", "))]
    UnknownTaskType {
        /// The types that are taken.
        known: Vec<String>,
    },
    /// The model is not there, too slow, or says no plan.
    #[error("{0}")]
    Model(String),
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// No agent of this mesh takes this type of task.
    #[error("unknown task type; known are {}", .known.join(", "))]
    UnknownTaskType {
        /// The types that are taken.
        known: Vec<String>,
    },
    /// The rules themselves make a plan that the bounds forbid.
    #[error("the plan for this task type does not pass the check")]
    Rejected(Vec<Finding>),
}

/// A plan that passed the check, and its graph.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedPlan {
    /// The plan.
    pub plan: Plan,
    /// Its graph, steps in the order of the plan.
    pub dag: Dag,
}

/// The planners of this mesh, and the check between them and the run.
pub struct Planning {
    catalog: Arc<Catalog>,
    bounds: Bounds,
    model: Option<Arc<dyn Planner>>,
    /// Plans of the model that are used again.
    cache: Option<Arc<PlanCache>>,
    /// The model behind it, for whatever else is asked of it.
    chat: Option<Arc<ollama::Chat>>,
    /// What it is called, for traces.
    model_name: Option<String>,
    rules: Arc<dyn Planner>,
    assigner: Option<Assigner>,
    task_types: BTreeMap<String, Vec<Slot>>,
    general_agent: Option<AgentId>,
    metrics: Arc<Metrics>,
}

impl Planning {
    /// The planners that `config` names; the model is one of `models`.
    pub fn new(
        config: &config::Planner,
        agents: &[config::Agent],
        resources: &Amounts,
        models: Option<&Arc<Models>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let catalog = Arc::new(Catalog::new(agents.to_vec()).with_resources(resources.clone()));
        let bounds = Bounds {
            max_steps: config.max_steps,
            max_width: config.max_width,
        };
        let chat = models.map(|models| Arc::new(ollama::Chat::new(Arc::clone(models))));
        let model = chat.as_ref().map(|chat| {
            let planner = ollama::OllamaPlanner::new(Arc::clone(chat), &catalog, bounds);
            Arc::new(planner) as Arc<dyn Planner>
        });
        let cache = models.and_then(|models| {
            let metrics = Arc::clone(models.metrics());
            PlanCache::new(models.config(), &catalog, bounds, metrics)
        });
        let rules = rules::RulesPlanner::new(
            config.rules.clone(),
            config.general_agent.clone(),
            Arc::clone(&catalog),
        );
        Self {
            catalog,
            bounds,
            model,
            chat,
            cache,
            model_name: models.map(|models| models.config().model.clone()),
            task_types: rules.task_types(),
            general_agent: rules.general_agent().cloned(),
            rules: Arc::new(rules),
            assigner: None,
            metrics,
        }
    }

    /// The plans that are used again, to be told how their runs end.
    pub fn cache(&self) -> Option<&Arc<PlanCache>> {
        self.cache.as_ref()
    }

    /// The same, with what `load` knows for the choice of agents; without it, steps have to name theirs.
    #[must_use]
    pub fn assigned_by(mut self, load: Arc<Load>) -> Self {
        self.assigner = Some(Assigner::new(load, Arc::clone(&self.metrics)));
        self
    }

    /// The agents of the mesh.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The model that plans, if there is one.
    pub fn chat(&self) -> Option<&Arc<ollama::Chat>> {
        self.chat.as_ref()
    }

    /// Bounds on every plan.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Counts what was wrong with a model's plan.
    pub(crate) fn rejected(&self, codes: impl Iterator<Item = &'static str>) {
        codes.for_each(|code| self.metrics.rejected_as(code));
    }

    /// The agents that the rules would give a task of each type to now, as busy as they are; a model may choose others.
    pub fn task_types(&self, loads: &BTreeMap<String, AgentLoad>) -> BTreeMap<String, Vec<String>> {
        let of = |slot: &Slot| match slot {
            Slot::Agent(agent) => Some(agent.to_string()),
            Slot::Capability(capability) => {
                let busy = |agent: &&config::Agent| {
                    let load = loads.get(agent.id.as_str());
                    load.map_or((true, 0), |load| (load.consumers == 0, load.depth))
                };
                let agent = self.catalog.capable(capability).min_by_key(busy)?;
                Some(agent.id.to_string())
            }
        };
        let types = self.task_types.iter();
        types
            .map(|(name, slots)| (name.clone(), slots.iter().filter_map(of).collect()))
            .collect()
    }

    /// The agent that takes every other type of task, if there is one.
    pub fn general_agent(&self) -> Option<&AgentId> {
        self.general_agent.as_ref()
    }

    /// A checked plan for `request` of `originator`, from the model within its share of the task's time, else by rules;
    /// `span` is told how it came about.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub async fn plan(
        &self,
        request: &TaskRequest,
        originator: &Originator,
        span: &mut Span,
    ) -> Result<CheckedPlan, NoPlan> {
        let started = Instant::now();
        let mut usage = Usage::default();
        let owner = originator.owner.as_ref();
        let cache = self.cache.as_ref();
        let kept = cache.and_then(|cache| cache.find(request, owner));
        let cached = kept.is_some();
        let planned = match kept {
            Some(plan) => Ok(plan),
            None => self.plan_by_either(request, originator, &mut usage).await,
        };
        if span.is_recording() {
            self.tell(span, request, &planned, usage);
            if cached {
                span.set("mesh.plan.cached", "true");
            }
        }
        let source = match &planned {
            Ok(_) if cached => "cache",
            Ok(p) => source_name(p.plan.source),
            Err(_) => "none",
        };
        self.metrics.planned(source, started.elapsed());
        planned
    }

    /// A checked plan of one step, for who has chosen the agent.
    ///
    /// # Errors
    /// [`NoPlan::Rejected`], when there is no such agent.
    pub fn of_one(&self, agent: &AgentId, action: &str) -> Result<CheckedPlan, NoPlan> {
        let step = draft::DraftStep {
            id: Some(agent.as_str().to_owned()),
            agent: agent.as_str().to_owned(),
            action: action.to_owned(),
            ..draft::DraftStep::default()
        };
        let draft = Draft {
            steps: vec![step],
            estimated_time: 60.0,
            confidence: 1.0,
            ..Draft::default()
        };
        check::check(draft, PlanSource::Rules, &self.catalog, self.bounds).map_err(NoPlan::Rejected)
    }

    fn tell(
        &self,
        span: &mut Span,
        request: &TaskRequest,
        planned: &Result<CheckedPlan, NoPlan>,
        usage: Usage,
    ) {
        span.set("mesh.task.type", request.task_type.as_str());
        match planned {
            Ok(planned) => {
                span.set("mesh.plan.source", source_name(planned.plan.source));
                let steps = planned.plan.execution_plan.len();
                span.set_number("mesh.plan.steps", i64::try_from(steps).unwrap_or(i64::MAX));
            }
            Err(error) => span.fail(error.to_string()),
        }
        if let Some(name) = &self.model_name {
            span.set("gen_ai.request.model", name.as_str());
        }
        if usage != Usage::default() {
            let tokens = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            span.set_number("gen_ai.usage.input_tokens", tokens(usage.input));
            span.set_number("gen_ai.usage.output_tokens", tokens(usage.output));
        }
    }

    async fn plan_by_either(
        &self,
        request: &TaskRequest,
        originator: &Originator,
        usage: &mut Usage,
    ) -> Result<CheckedPlan, NoPlan> {
        let mut why_rules = None;
        if let Some(model) = &self.model {
            let share = Duration::from_secs(request.timeout.into()) / MODEL_SHARE;
            match tokio::time::timeout(share, self.ask(&**model, request, originator, usage)).await
            {
                Ok(Ok(plan)) => return Ok(plan),
                Ok(Err(reason)) => why_rules = Some(reason),
                Err(_) => {
                    why_rules = Some("no plan within its share of the task's time".to_owned())
                }
            }
        }
        let mut draft = match self.rules.draft(request, &[]).await {
            Ok(draft) => draft,
            Err(PlannerError::UnknownTaskType { known }) => {
                return Err(NoPlan::UnknownTaskType { known });
            }
            Err(PlannerError::Model(_)) => {
                return Err(NoPlan::UnknownTaskType { known: Vec::new() });
            }
        };
        if let Some(reason) = why_rules {
            tracing::warn!(reason, task_type = request.task_type, "planned by rules");
            draft.risks.push(format!(
                "planned by rules, since the model failed: {reason}"
            ));
        }
        self.check(draft, self.rules.source(), request, originator)
            .await
            .map_err(NoPlan::Rejected)
    }

    /// Finds agents for steps that name none, and makes a plan of it.
    async fn check(
        &self,
        mut draft: Draft,
        source: PlanSource,
        request: &TaskRequest,
        originator: &Originator,
    ) -> Result<CheckedPlan, Vec<Finding>> {
        if let Some(assigner) = &self.assigner {
            let assigned = assigner.assign(&mut draft, request, originator, &self.catalog);
            assigned.await;
        }
        check::check(draft, source, &self.catalog, self.bounds)
    }

    /// The model's plan, with one chance to mend it.
    async fn ask(
        &self,
        model: &dyn Planner,
        request: &TaskRequest,
        originator: &Originator,
        usage: &mut Usage,
    ) -> Result<CheckedPlan, String> {
        let source = model.source();
        let draft = model.draft(request, &[]).await.map_err(|e| e.to_string())?;
        *usage += draft.usage;
        let findings = match self.check(draft, source, request, originator).await {
            Ok(plan) => return Ok(plan),
            Err(findings) => findings,
        };
        self.metrics.rejected(&findings);
        let draft = model
            .draft(request, &findings)
            .await
            .map_err(|e| format!("its plan was wrong ({}), then: {e}", codes(&findings)))?;
        *usage += draft.usage;
        let checked = self.check(draft, source, request, originator).await;
        checked.map_err(|again| {
            self.metrics.rejected(&again);
            format!(
                "its plan was wrong twice ({}, then {})",
                codes(&findings),
                codes(&again)
            )
        })
    }
}

/// The name of a source in metrics.
pub fn source_name(source: PlanSource) -> &'static str {
    match source {
        PlanSource::Rules => "rules",
        PlanSource::Ollama => "ollama",
        PlanSource::Client => "client",
    }
}

fn codes(findings: &[Finding]) -> String {
    let mut codes: Vec<&str> = findings.iter().map(|f| f.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(" ")
}
