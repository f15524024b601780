//! Who may call this service, and who may have tasks sent to it.
//!
//! ```text
//!  request ─▶ headers: aliases dropped, the assertion taken
//!               └▶ assertion: verified, once for all requests that bring it
//!                    └▶ intentions: by peer, method, path, originator ─▶ identity headers made ─▶ program
//!  step ────────────▶ assertion, by the time of submission ─▶ intentions, as a POST /process from the orchestrator
//!  each refusal ─▶ counter, audit log, and the answer
//! ```
//!
//! Deny is the default and wins. A decision takes no lock but that of the assertions' table and allocates only when
//! there is something to drop, to make or to refuse: it is on the way of every request.

mod assertion;
pub(crate) mod audit;
mod headers;
mod intention;
mod path;
mod refusal;

pub(crate) use audit::Audit;
pub(crate) use refusal::Refusal;

use crate::SidecarError;
use crate::config::{self, AssertionRule, Config, Inbound, ServiceName};
use crate::identity::SpiffeId;
use assertion::{Assertions, Verified};
use audit::Refused;
use headers::{Brought, Claim, Guarded};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use intention::{Decision, Intentions};
use mesh_protocol::assertion::{Claims, LEEWAY_S};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_protocol::task::MAX_TIMEOUT_S;
use mesh_protocol::{StepId, TaskId, Timestamp};
use mesh_trace::Context;
use path::Prefix;
use refusal::{Direction, Reason, Refusals};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How far two machines' clocks may differ.
const LEEWAY: Duration = Duration::from_secs(LEEWAY_S);
/// The longest that a task lasts.
const LONGEST_TASK: Duration = Duration::from_secs(MAX_TIMEOUT_S as u64);
/// What a step is handed over as.
const PROCESS: &str = "/process";

/// Decides on requests and tasks.
pub(crate) struct Policy {
    service: ServiceName,
    orchestrator: ServiceName,
    intentions: Intentions,
    assertions: Option<Assertions>,
    /// Who must show an assertion.
    required: Option<Required>,
    guarded: Guarded,
    made: Box<[(HeaderName, Claim)]>,
    forward_assertion: bool,
    audit: Audit,
    refusals: Refusals,
}

/// Who must show an assertion.
struct Required {
    /// The services that must; all when empty.
    from: Vec<ServiceName>,
    /// Where nobody must.
    except: Vec<Prefix>,
}

/// Who asks, by its certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// The verified id.
    pub(crate) id: &'a SpiffeId,
    /// Where it connected from.
    pub(crate) address: SocketAddr,
}

/// A request that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// On whose behalf, where an assertion says so.
    pub(crate) originator: Option<Arc<Claims>>,
    /// Whether it came without an assertion from where one is needed, on a path that is exempt from that.
    pub(crate) exempt: bool,
}

/// A step and what its message says of its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) task_id: &'a TaskId,
    pub(crate) step_id: &'a StepId,
    /// The originator's assertion.
    pub(crate) assertion: Option<&'a str>,
    /// When the task was submitted, where the message says so.
    pub(crate) submitted: Option<Timestamp>,
    /// `traceparent` of the message.
    pub(crate) traceparent: Option<&'a str>,
}

/// Makes the policy of a sidecar and what writes its audit log.
///
/// `None` for a plain worker, without identity and without intentions: it belongs to no mesh in which services could
/// tell each other apart, and takes every step. With an identity everything is denied that no intention allows.
///
/// # Errors
/// [`SidecarError`] when the audit log cannot be opened or the metrics are there already.
pub(crate) fn build(
    config: &Config,
    metrics: &prometheus::Registry,
) -> Result<Option<(Arc<Policy>, audit::Writer)>, SidecarError> {
    if !config.identity.exists() && config.policy.intentions.is_empty() {
        return Ok(None);
    }
    let (audit, writer) = Audit::open(config.policy.audit.as_deref(), &config.service, metrics)?;
    let inbound = config.inbound.as_ref();
    let policy = Policy::new(&config.service, &config.policy, inbound, audit, metrics)?;
    Ok(Some((Arc::new(policy), writer)))
}

impl Policy {
    /// The policy of `service`, for what comes in by `inbound` and off the bus.
    ///
    /// # Errors
    /// [`SidecarError`] for keys, methods and headers that are none, and for metrics that are there already.
    pub(crate) fn new(
        service: &ServiceName,
        config: &config::Policy,
        inbound: Option<&Inbound>,
        audit: Audit,
        metrics: &prometheus::Registry,
    ) -> Result<Self, SidecarError> {
        let fault = |fault: String| SidecarError::Config(vec![fault]);
        let assertions = config.assertions.as_ref().map(Assertions::new);
        let made = inbound.map(|inbound| headers::made(&inbound.identity_headers));
        let made = made.transpose().map_err(fault)?.unwrap_or_default();
        let required = match inbound.map(|inbound| &inbound.assertion) {
            None | Some(AssertionRule::Optional) => None,
            Some(AssertionRule::Required { from, except }) => Some(Required {
                from: from.clone(),
                except: except.iter().map(|path| Prefix::new(path)).collect(),
            }),
        };
        Ok(Self {
            service: service.clone(),
            orchestrator: ORCHESTRATOR
                .parse()
                .map_err(|e: config::NameError| fault(e.to_string()))?,
            intentions: Intentions::new(&config.intentions).map_err(fault)?,
            assertions: assertions.transpose().map_err(fault)?,
            required,
            guarded: Guarded::new(made.iter().map(|(name, _)| name.as_str())),
            made,
            forward_assertion: inbound.is_some_and(|inbound| inbound.forward_assertion),
            audit,
            refusals: Refusals::register(metrics, service)?,
        })
    }

    /// Decides on a request, and leaves in `headers` what the program may see: every alias of a reserved header and
    /// of an identity header is dropped, then identity headers are made from the verified assertion and the peer's
    /// certificate. The assertion itself stays only with `forward_assertion`, and only when it was verified.
    ///
    /// `path` is as it came, without the query. Headers that `Connection` names must be gone before: one that named
    /// an identity header would take it away again.
    ///
    /// # Errors
    /// Why not; counted and in the audit log already.
    pub(crate) fn request(
        &self,
        peer: Peer<'_>,
        method: &Method,
        path: &str,
        headers: &mut HeaderMap,
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let keep = self.forward_assertion && self.assertions.is_some();
        let brought = self.guarded.take(headers, keep);
        let mut verified = None;
        let mut exempt = false;
        let decided = self.originator(brought, now).and_then(|found| {
            verified = found;
            exempt = self.exempt(verified.is_some(), &peer.id.service, path)?;
            self.judge(&peer.id.service, method, path, verified.as_deref())?;
            self.make(headers, peer, verified.as_deref())
        });
        if let Err(refusal) = decided {
            self.refusals.count(Direction::Inbound, refusal.reason());
            self.audit.refused(&Refused {
                at: now,
                direction: Direction::Inbound,
                refusal: &refusal,
                peer: Some(peer),
                claims: verified.as_ref().map(|v| &*v.claims),
                method,
                path,
                trace_id: Context::from_headers(headers).map(|context| context.trace_id),
                task: None,
            });
            return Err(refusal);
        }
        Ok(Admitted {
            originator: verified.map(|v| Arc::clone(&v.claims)),
            exempt,
        })
    }

    /// Drops from a request's trailers what is dropped from its headers: some programs read them as one.
    pub(crate) fn trailers(&self, trailers: &mut HeaderMap) {
        self.guarded.take(trailers, false);
    }

    /// Decides whether a step may be handed over: as a `POST /process` from the orchestrator, from where steps come,
    /// on behalf of whom the assertion names at the time of submission.
    ///
    /// That time is the orchestrator's word. Whoever can write to the broker could put an old assertion with an old
    /// time, so it is believed only as far back as a task can last.
    ///
    /// # Errors
    /// Why not; counted and in the audit log already.
    pub(crate) fn task(
        &self,
        origin: Origin<'_>,
        now: Timestamp,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        let mut verified = None;
        let decided = submission(origin, now).and_then(|submitted| {
            let found = origin.assertion.map(|token| self.verify(token, submitted));
            verified = found.transpose()?.flatten();
            self.exempt(verified.is_some(), &self.orchestrator, PROCESS)?;
            self.judge(
                &self.orchestrator,
                &Method::POST,
                PROCESS,
                verified.as_deref(),
            )
        });
        if let Err(refusal) = decided {
            let context = origin
                .traceparent
                .and_then(|text| Context::parse(text, None));
            self.refusals.count(Direction::Task, refusal.reason());
            self.audit.refused(&Refused {
                at: now,
                direction: Direction::Task,
                refusal: &refusal,
                peer: None,
                claims: verified.as_ref().map(|v| &*v.claims),
                method: &Method::POST,
                path: PROCESS,
                trace_id: context.map(|context| context.trace_id),
                task: Some((origin.task_id, origin.step_id)),
            });
            return Err(refusal);
        }
        Ok(verified.map(|v| Arc::clone(&v.claims)))
    }

    fn originator(
        &self,
        brought: Brought,
        now: Timestamp,
    ) -> Result<Option<Arc<Verified>>, Refusal> {
        match brought {
            Brought::None => Ok(None),
            Brought::One(value) => {
                // What is no text is no assertion; the check of its length is the verification's.
                self.verify(value.to_str().unwrap_or_default(), now)
            }
            Brought::Several => Err(Refusal::new(
                Reason::AssertionTwice,
                "there are two assertions",
            )),
        }
    }

    /// Who `token` names; nobody where no key is known, since nothing asks for it then.
    fn verify(&self, token: &str, at: Timestamp) -> Result<Option<Arc<Verified>>, Refusal> {
        let Some(assertions) = &self.assertions else {
            return Ok(None);
        };
        assertions
            .verify(token, at, &self.intentions, &self.made)
            .map(Some)
            .map_err(|error| Refusal::new(error.into(), error.to_string()))
    }

    /// Whether there is no assertion where one is needed, and the path is exempt from that.
    fn exempt(&self, there: bool, from: &ServiceName, path: &str) -> Result<bool, Refusal> {
        let Some(Required {
            from: whose,
            except,
        }) = self.required.as_ref().filter(|_| !there)
        else {
            return Ok(false);
        };
        if !whose.is_empty() && !whose.contains(from) {
            return Ok(false);
        }
        let missing = || {
            Refusal::new(
                Reason::AssertionMissing,
                format!(
                    "{} is called through a gateway of this mesh: there is no assertion",
                    self.service
                ),
            )
        };
        if except.is_empty() {
            return Err(missing());
        }
        let path = path::plain(path).ok_or_else(unclear)?;
        if except.iter().any(|prefix| prefix.holds(&path)) {
            return Ok(true);
        }
        Err(missing())
    }

    fn judge(
        &self,
        from: &ServiceName,
        method: &Method,
        path: &str,
        verified: Option<&Verified>,
    ) -> Result<(), Refusal> {
        let held = verified.map(|v| &v.held);
        let to = &self.service;
        match self.intentions.decide(from, method, path, held) {
            Decision::Allowed => Ok(()),
            Decision::Denied(number) => {
                let detail = format!("an intention denies this call of {from} to {to}");
                Err(Refusal::new(Reason::Denied, detail).by(number))
            }
            Decision::Nothing => {
                let detail = format!("no intention allows this call of {from} to {to}");
                Err(Refusal::new(Reason::NoIntention, detail))
            }
            Decision::Unclear(number) => Err(unclear().by(number)),
        }
    }

    fn make(
        &self,
        headers: &mut HeaderMap,
        peer: Peer<'_>,
        verified: Option<&Verified>,
    ) -> Result<(), Refusal> {
        if let Some(verified) = verified {
            let made = verified.headers.as_ref().map_err(|name| {
                let detail =
                    format!("the assertion says of its originator what `{name}` cannot hold");
                Refusal::new(Reason::Identity, detail)
            })?;
            for (name, value) in made {
                headers.insert(name, value.clone());
            }
        }
        for (name, claim) in &self.made {
            let text = match claim {
                Claim::Peer => peer.id.to_string(),
                Claim::PeerService => peer.id.service.as_str().to_owned(),
                _ => continue,
            };
            // An id holds no character that a header cannot.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        Ok(())
    }
}

fn unclear() -> Refusal {
    Refusal::new(
        Reason::Path,
        "the path can be read in two ways: send it without empty and dot segments, `\\`, `;` and escapes of them",
    )
}

/// The time by which the assertion of a task is judged.
fn submission(origin: Origin<'_>, now: Timestamp) -> Result<Timestamp, Refusal> {
    let Some(submitted) = origin.submitted else {
        return Ok(now);
    };
    let refusal = |detail| Err(Refusal::new(Reason::Submission, detail));
    if submitted.since(now) > LEEWAY {
        return refusal("the task says that it was submitted in the future");
    }
    if now.since(submitted) > LONGEST_TASK.saturating_add(LEEWAY) {
        return refusal("the task says that it was submitted longer ago than a task can last");
    }
    Ok(submitted)
}

#[cfg(test)]
mod tests;
