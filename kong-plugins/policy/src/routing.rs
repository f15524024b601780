//! The `agent_router` filter: which agent a request is for.
//!
//! The first rule whose matchers all hold decides. What it decides is handed on as the header
//! [`HEADER_AGENT`], which the sidecar beside the gateway follows, and left for later filters. A client that
//! sends that header is refused, whether or not another filter looks for it too.
//!
//! A rule about task types cannot be decided by the head. Then the filter keeps what the head says of that
//! rule and of the later ones, and decides when the body is there:
//!
//! ```text
//!  head ──▶ rules in their order ──▶ one holds ─────────────────────────────────▶ agent ▶ header
//!                   └─ would hold if the task type fits: keep it ──▶ body ──▶ first that fits ──▶ agent
//! ```

mod answer;
mod choice;
mod rules;

use crate::callers::Calling;
use crate::config::{AgentRouter, Otherwise, Sticky, WhenStale};
use crate::decision::FOUND_AGENT;
use crate::knowledge::{self, Knowledge};
use crate::{
    Caller, ConfigError, Decision, Fetch, Fetched, Filter, Host, Pass, Refusal, RequestHead,
};
use crate::{task_body, task_body::MAX_DEPTH};
use mesh_protocol::assertion::{HEADER_AGENT, RESERVED_HEADERS};
use rules::{Agents, MOST, Named, Pathed, Rule, To};

/// A compiled `agent_router` configuration, and what it knows of the agents.
#[derive(Debug)]
pub struct Policy {
    agents: Agents,
    rules: Vec<Rule>,
    otherwise: Otherwise,
    knowledge: Option<Knowledge>,
}

/// What is kept of one request: the rules that may yet decide, in their order.
#[derive(Debug, Default)]
pub struct Request {
    open: Vec<Open>,
}

/// A rule that holds as far as the request's head goes.
#[derive(Debug)]
struct Open {
    rule: usize,
    named: Named,
    /// What its choice among several agents is made by.
    key: Vec<u8>,
}

impl Filter for Policy {
    const NAME: &'static str = "agent_router";
    type Config = AgentRouter;
    type Request = Request;

    fn compile(config: &AgentRouter) -> Result<Self, Vec<ConfigError>> {
        compile(config)
    }

    fn revision(config: &AgentRouter) -> &str {
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

    fn decide(&self, request: &mut Request, head: &dyn RequestHead, host: &dyn Host) -> Decision {
        match self.by_head(request, head, host) {
            Ok(pass) => Decision::Pass(pass),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    fn wants_body(&self, request: &Request) -> bool {
        !request.open.is_empty()
    }

    fn decide_body(&self, request: &mut Request, body: Option<&[u8]>, host: &dyn Host) -> Decision {
        let open = std::mem::take(&mut request.open);
        let Some(body) = body else {
            return Refusal::body_too_large().into();
        };
        match self.by_body(&open, body, host) {
            Ok(pass) => Decision::Pass(pass),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }
}

impl Policy {
    fn by_head(
        &self,
        request: &mut Request,
        head: &dyn RequestHead,
        host: &dyn Host,
    ) -> Result<Pass, Refusal> {
        let (pathed, calling) = (Pathed::of(head), Calling::of(host));
        // Who left a caller has refused every reserved header before: asking once is enough, and each
        // question is a call of the gateway.
        if !calling.is_known() {
            for name in RESERVED_HEADERS.iter().filter(|n| n.ends_with("agent")) {
                if !head.header(name)?.is_empty() {
                    return Err(Refusal::reserved(name));
                }
            }
        }
        let mut is_task = None;
        let mut open = Vec::new();
        let mut closed = false;
        for (number, rule) in self.rules.iter().enumerate() {
            let reads_body = !rule.task_types.is_empty();
            if reads_body {
                let may_be = match is_task {
                    Some(known) => known,
                    None => head.method()? == b"POST",
                };
                is_task = Some(may_be);
                if !may_be {
                    continue;
                }
            }
            let Some(named) = rule.holds(&pathed, &calling)? else {
                continue;
            };
            open.push(Open {
                rule: number,
                named,
                key: self.key(rule, number, head, &calling, host)?,
            });
            if !reads_body {
                closed = true;
                break;
            }
        }
        match open.as_slice() {
            [] => self.no_rule(),
            [only] if closed => self.send(only, host),
            _ => {
                request.open = open;
                Ok(Pass::because("awaits_body"))
            }
        }
    }

    fn by_body(&self, open: &[Open], body: &[u8], host: &dyn Host) -> Result<Pass, Refusal> {
        // What is no task has no type; whoever takes it says what is wrong with it.
        let task = task_body::read(body, MAX_DEPTH).ok();
        let fits = |open: &&Open| {
            self.rules.get(open.rule).is_some_and(|rule| {
                let is = |task: &task_body::Task| rule.task_types.contains(&task.task_type);
                rule.task_types.is_empty() || task.as_ref().is_some_and(is)
            })
        };
        match open.iter().find(fits) {
            Some(open) => self.send(open, host),
            None => self.no_rule(),
        }
    }

    fn no_rule(&self) -> Result<Pass, Refusal> {
        match self.otherwise {
            Otherwise::Refuse => Err(answer::no_rule()),
            Otherwise::Pass => Ok(Pass::because("no_rule")),
        }
    }

    /// What the choice of `rule` is made by: what keeps requests together, or the time of this one.
    fn key(
        &self,
        rule: &Rule,
        number: usize,
        head: &dyn RequestHead,
        calling: &Calling<'_>,
        host: &dyn Host,
    ) -> Result<Vec<u8>, Refusal> {
        let sticky = match &rule.to {
            To::Weighted(weights, sticky) if weights.len() > 1 => sticky.as_ref(),
            To::Capability(_) => None,
            // There is nothing to choose.
            To::Weighted(..) | To::Named(_) => return Ok(Vec::new()),
        };
        let together = match sticky {
            Some(Sticky::Consumer) => calling.caller().map(Caller::identity),
            Some(Sticky::Header(name)) => {
                let values = head.header(name)?;
                (!values.is_empty()).then(|| values.join(&b','))
            }
            None => None,
        };
        let mut key = match together {
            Some(together) => together,
            None => host.now_ns()?.to_be_bytes().to_vec(),
        };
        // Canaries of different rules are not the same callers.
        key.extend(u64::try_from(number).unwrap_or_default().to_be_bytes());
        Ok(key)
    }

    /// Sends the request where its rule says.
    fn send(&self, open: &Open, host: &dyn Host) -> Result<Pass, Refusal> {
        let alone;
        let weights = match self.rules.get(open.rule).map(|rule| &rule.to) {
            Some(To::Weighted(weights, _)) => weights.as_slice(),
            Some(To::Named(_)) => {
                let agent = self.agents.find(&open.named.0);
                alone = [(agent.ok_or_else(answer::unknown_agent)?, 1)];
                &alone
            }
            Some(To::Capability(_)) => self
                .agents
                .able(&open.named.0)
                .ok_or_else(answer::unknown_capability)?,
            None => return Err(Refusal::host_failure()),
        };
        let (agent, reason) = match &self.knowledge {
            None => (choice::choose(weights, &open.key, |_| true), "routed"),
            Some(knowledge) => {
                let chosen = knowledge.at(host.now_ns()?, |loads| {
                    choice::choose(weights, &open.key, |agent| {
                        let id = self.agents.ids.get(agent);
                        !knowledge::is_idle(id.and_then(|id| loads.agents.get(id.as_str())))
                    })
                });
                match chosen {
                    Some(agent) => (agent, "routed"),
                    None if knowledge.when_stale() == WhenStale::Refuse => {
                        return Err(answer::stale(knowledge.interval_ms()));
                    }
                    None => (choice::choose(weights, &open.key, |_| true), "stale_passed"),
                }
            }
        };
        let id = agent
            .and_then(|agent| self.agents.ids.get(agent))
            .ok_or_else(answer::none_healthy)?;
        Ok(Pass {
            set_headers: vec![(HEADER_AGENT, id.to_string())],
            leave: vec![(FOUND_AGENT, id.as_str().into())],
            ..Pass::because(reason)
        })
    }
}

/// Checks and prepares a configuration.
///
/// # Errors
/// Every fault, by path.
pub fn compile(config: &AgentRouter) -> Result<Policy, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let agents = Agents::compile(&config.agents, &mut faults);
    if config.rules.is_empty() || config.rules.len() > MOST {
        faults.push(ConfigError::new("rules", format!("1 to {MOST} are needed")));
    }
    let mut rules = Vec::new();
    for (number, rule) in config.rules.iter().enumerate() {
        let path = format!("rules[{number}]");
        rules.extend(Rule::compile(rule, &path, &agents, &mut faults));
    }
    let knowledge = config
        .load
        .as_ref()
        .and_then(|load| Knowledge::compile(load, "load", &mut faults));
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Policy {
        agents,
        rules,
        otherwise: config.otherwise,
        knowledge,
    })
}

#[cfg(test)]
mod tests;
