//! The `task_admission` filter: which tasks may enter, and whether there is room for them.
//!
//! ```text
//!  head ──▶ a POST? JSON? not too long? ──▶ body ──▶ a task? its type allowed? its priority? its time?
//!                                                      └─▶ could it begin before its deadline? ──▶ pass
//! ```
//!
//! Requests of other methods are no tasks and pass: a filter may guard a route that has several. What
//! the filter knows of the agents is asked on its tick ([`crate::knowledge`]); while that is stale, tasks
//! pass or are refused as configured, and counted as such.

mod answer;
mod capacity;
mod lower;

use crate::callers::{Calling, Condition};
use crate::config::{AboveCeiling, TaskAdmission, TimeoutBounds, WhenStale};
use crate::knowledge::Knowledge;
use crate::task_body::{self, Task};
use crate::{ConfigError, Decision, Fetch, Fetched, Filter, Host, Pass, Refusal, RequestHead};
use mesh_protocol::task::{MAX_PRIORITY, MAX_TIMEOUT_S};
use std::collections::BTreeSet;

/// Most bytes of a body that may be configured: a filter holds it in memory, and no gateway's buffer is
/// meant to be larger.
const MAX_BODY: u64 = 16 << 20;
/// Most entries of a list in a configuration.
const MOST: usize = 64;
/// Stands for every task type.
const EVERY: &str = "*";

/// A compiled `task_admission` configuration, and what it knows of the agents.
#[derive(Debug)]
pub struct Policy {
    max_body_bytes: u64,
    max_depth: u8,
    task_types: Vec<Allowed>,
    ceilings: Option<Ceilings>,
    timeout: TimeoutBounds,
    knowledge: Option<Knowledge>,
}

#[derive(Debug)]
struct Allowed {
    /// None: every type.
    types: Option<BTreeSet<String>>,
    to: Condition,
}

#[derive(Debug)]
struct Ceilings {
    ceilings: Vec<(Condition, u8)>,
    otherwise: u8,
    above: AboveCeiling,
}

/// What is kept of one request.
#[derive(Debug, Default)]
pub struct Request {
    is_task: bool,
}

impl Filter for Policy {
    const NAME: &'static str = "task_admission";
    type Config = TaskAdmission;
    type Request = Request;

    fn compile(config: &TaskAdmission) -> Result<Self, Vec<ConfigError>> {
        compile(config)
    }

    fn revision(config: &TaskAdmission) -> &str {
        &config.revision
    }

    fn tick_ms(&self) -> Option<u32> {
        self.knowledge.as_ref().map(Knowledge::interval_ms)
    }

    fn tick(&self, _host: &dyn Host) -> Vec<Fetch> {
        self.knowledge
            .as_ref()
            .map_or_else(Vec::new, Knowledge::tick)
    }

    fn fetched(&self, id: u32, fetched: Fetched, host: &dyn Host) {
        if let Some(knowledge) = &self.knowledge {
            knowledge.fetched(id, &fetched, host);
        }
    }

    fn decide(&self, request: &mut Request, head: &dyn RequestHead, _host: &dyn Host) -> Decision {
        match self.look_at(head) {
            Ok(true) => {
                request.is_task = true;
                Decision::Pass(Pass::because("awaits_body"))
            }
            Ok(false) => Decision::Pass(Pass::because("not_a_task")),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    fn wants_body(&self, request: &Request) -> bool {
        request.is_task
    }

    fn decide_body(
        &self,
        _request: &mut Request,
        body: Option<&[u8]>,
        host: &dyn Host,
    ) -> Decision {
        match self.admit(body, host) {
            Ok(pass) => Decision::Pass(pass),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }
}

impl Policy {
    /// Whether the request is a task, as far as its head says.
    fn look_at(&self, head: &dyn RequestHead) -> Result<bool, Refusal> {
        if head.method()? != b"POST" {
            return Ok(false);
        }
        match head.header("content-type")?.as_slice() {
            [value] if is_json(value) => {}
            _ => return Err(answer::media_type()),
        }
        // No length: it comes in chunks, and is measured when it is there.
        for length in head.header("content-length")? {
            let length: Option<u64> = std::str::from_utf8(&length)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            match length {
                Some(0) => return Err(answer::empty()),
                Some(length) if length <= self.max_body_bytes => {}
                _ => return Err(answer::too_large(self.max_body_bytes)),
            }
        }
        Ok(true)
    }

    fn admit(&self, body: Option<&[u8]>, host: &dyn Host) -> Result<Pass, Refusal> {
        let body = body
            .filter(|body| u64::try_from(body.len()).is_ok_and(|len| len <= self.max_body_bytes))
            .ok_or_else(|| answer::too_large(self.max_body_bytes))?;
        if body.is_empty() {
            return Err(answer::empty());
        }
        let mut task = task_body::read(body, self.max_depth).map_err(answer::no_task)?;
        let calling = Calling::of(host);
        if !self.allows(&task.task_type, &calling) {
            return Err(answer::task_type(&task.task_type));
        }
        let TimeoutBounds { min_s, max_s } = self.timeout;
        if !(min_s..=max_s).contains(&task.timeout_s) {
            return Err(answer::timeout(task.timeout_s, min_s, max_s));
        }
        let mut pass = Pass::because("admitted");
        if let Some(ceilings) = &self.ceilings {
            let ceiling = ceilings.of(&calling);
            if task.priority > ceiling {
                if ceilings.above == AboveCeiling::Refuse {
                    return Err(answer::priority(task.priority, ceiling));
                }
                let lowered = lower::lowered(body, &task, ceiling);
                pass.set_body = Some(lowered.ok_or_else(Refusal::host_failure)?);
                pass.reason = "lowered";
                task.priority = ceiling;
            }
        }
        if let Some(knowledge) = &self.knowledge
            && !in_time(knowledge, &task, host)?
        {
            pass.reason = "stale_passed";
        }
        Ok(pass)
    }

    fn allows(&self, task_type: &str, calling: &Calling<'_>) -> bool {
        self.task_types.is_empty()
            || self.task_types.iter().any(|allowed| {
                let named = |types: &BTreeSet<String>| types.contains(task_type);
                allowed.types.as_ref().is_none_or(named) && allowed.to.holds(calling)
            })
    }
}

impl Ceilings {
    fn of(&self, calling: &Calling<'_>) -> u8 {
        self.ceilings
            .iter()
            .find(|(about, _)| about.holds(calling))
            .map_or(self.otherwise, |(_, max)| *max)
    }
}

/// Whether anybody knows that the task can begin in time.
fn in_time(knowledge: &Knowledge, task: &Task, host: &dyn Host) -> Result<bool, Refusal> {
    let late = knowledge.at(host.now_ns()?, |loads| {
        capacity::in_time(loads, &task.task_type, task.priority, task.timeout_s)
    });
    match late {
        Some(Ok(())) => Ok(true),
        Some(Err(late)) => {
            let detail = match late.wait_ms {
                Some(wait_ms) => format!(
                    "a task of type {} and priority {} would wait about {} s for the agent {}, too long \
                     for its timeout of {} s",
                    task.task_type,
                    task.priority,
                    wait_ms.div_ceil(1_000),
                    late.agent,
                    task.timeout_s
                ),
                None => format!("nobody works for the agent {} at the moment", late.agent),
            };
            Err(answer::no_capacity(
                "no_capacity",
                detail,
                late.retry_after_s,
            ))
        }
        None if knowledge.when_stale() == WhenStale::Pass => Ok(false),
        None => Err(answer::no_capacity(
            "stale_refused",
            "the gateway does not know how busy the agents are".to_owned(),
            u64::from(knowledge.interval_ms()).div_ceil(1_000),
        )),
    }
}

/// Whether a media type is JSON (RFC 8259) or a format over it (RFC 6839), parameters aside.
fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let Ok(essence) = std::str::from_utf8(essence) else {
        return false;
    };
    let essence = essence.trim_matches([' ', '\t']).to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix("application/") else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
    let format = |name: &str| !name.is_empty() && name.bytes().all(plain);
    subtype == "json" || subtype.strip_suffix("+json").is_some_and(format)
}

/// Checks and prepares a configuration.
///
/// # Errors
/// Every fault, by path.
pub fn compile(config: &TaskAdmission) -> Result<Policy, Vec<ConfigError>> {
    let mut faults = Vec::new();
    if !(1..=MAX_BODY).contains(&config.max_body_bytes) {
        let what = format!("must be from 1 to {MAX_BODY}");
        faults.push(ConfigError::new("max_body_bytes", what));
    }
    if !(1..=task_body::MAX_DEPTH).contains(&config.max_depth) {
        let what = format!("must be from 1 to {}", task_body::MAX_DEPTH);
        faults.push(ConfigError::new("max_depth", what));
    }
    let TimeoutBounds { min_s, max_s } = config.timeout;
    if !(1..=MAX_TIMEOUT_S).contains(&min_s) {
        let what = format!("must be from 1 to {MAX_TIMEOUT_S}");
        faults.push(ConfigError::new("timeout.min_s", what));
    }
    if max_s < min_s || max_s > MAX_TIMEOUT_S {
        let what = format!("must be from min_s to {MAX_TIMEOUT_S}");
        faults.push(ConfigError::new("timeout.max_s", what));
    }
    let task_types = compile_types(config, &mut faults);
    let ceilings = config
        .priority
        .as_ref()
        .map(|ceilings| compile_ceilings(ceilings, &mut faults));
    let knowledge = config
        .load
        .as_ref()
        .and_then(|load| Knowledge::compile(load, "load", &mut faults));
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Policy {
        max_body_bytes: config.max_body_bytes,
        max_depth: config.max_depth,
        task_types,
        ceilings,
        timeout: config.timeout,
        knowledge,
    })
}

fn compile_types(config: &TaskAdmission, faults: &mut Vec<ConfigError>) -> Vec<Allowed> {
    if config.task_types.len() > MOST {
        faults.push(ConfigError::new("task_types", format!("at most {MOST}")));
    }
    let mut compiled = Vec::new();
    for (number, allowed) in config.task_types.iter().enumerate() {
        let path = format!("task_types[{number}]");
        if allowed.types.is_empty() {
            faults.push(ConfigError::new(
                format!("{path}.types"),
                "at least one is needed; \"*\" stands for every type",
            ));
        }
        let mut types = BTreeSet::new();
        for (number, name) in allowed.types.iter().enumerate() {
            let path = format!("{path}.types[{number}]");
            if name != EVERY && !task_body::is_task_type(name) {
                let what = "must be 1 to 128 letters, digits, '.', '_' or '-', or \"*\"";
                faults.push(ConfigError::new(path, what));
            } else if !types.insert(name.clone()) {
                faults.push(ConfigError::new(path, "is there twice"));
            }
        }
        let every = types.contains(EVERY);
        compiled.push(Allowed {
            types: (!every).then_some(types),
            to: Condition::compile(&allowed.scopes, &Default::default(), &path, faults),
        });
    }
    compiled
}

fn compile_ceilings(config: &crate::config::Ceilings, faults: &mut Vec<ConfigError>) -> Ceilings {
    let mut check = |path: String, max: u8| {
        if max > MAX_PRIORITY {
            let what = format!("must be from 0 to {MAX_PRIORITY}");
            faults.push(ConfigError::new(path, what));
        }
    };
    check("priority.otherwise".to_owned(), config.otherwise);
    for (number, ceiling) in config.ceilings.iter().enumerate() {
        check(format!("priority.ceilings[{number}].max"), ceiling.max);
    }
    if config.ceilings.len() > MOST {
        faults.push(ConfigError::new(
            "priority.ceilings",
            format!("at most {MOST}"),
        ));
    }
    let ceilings = config.ceilings.iter().enumerate().map(|(number, ceiling)| {
        let path = format!("priority.ceilings[{number}]");
        let about = Condition::compile(&ceiling.scopes, &ceiling.claims, &path, faults);
        if about.is_empty() {
            faults.push(ConfigError::new(
                path,
                "scopes or claims are needed; \"otherwise\" is about everybody else",
            ));
        }
        (about, ceiling.max)
    });
    Ceilings {
        ceilings: ceilings.collect(),
        otherwise: config.otherwise,
        above: config.above,
    }
}

#[cfg(test)]
mod tests;
