//! The refusals of `agent_router`.

use crate::Refusal;
use mesh_protocol::problem::Problem;

/// What a client is told to wait for an agent that is not there, in seconds: about as long as a sidecar
/// needs to come back.
const RETURN_S: u64 = 10;

/// 404: no rule is about the request.
pub(super) fn no_rule() -> Refusal {
    let problem = Problem::new(404, "unknown-agent", "there is no such agent")
        .with_detail("no rule says which agent takes such a request");
    Refusal::new("no_rule", &problem)
}

/// 404: the request names an agent that is not declared. The name is not repeated: it is the client's.
pub(super) fn unknown_agent() -> Refusal {
    let problem = Problem::new(404, "unknown-agent", "there is no such agent")
        .with_detail("the request names an agent that this mesh does not have");
    Refusal::new("unknown_agent", &problem)
}

/// 404: the request asks for a capability that no agent has.
pub(super) fn unknown_capability() -> Refusal {
    let problem = Problem::new(404, "unknown-capability", "no agent can do that")
        .with_detail("the request asks for a capability that no agent of this mesh has");
    Refusal::new("unknown_capability", &problem)
}

/// 503: nobody works for the agents that could take the request.
pub(super) fn none_healthy() -> Refusal {
    let problem = Problem::new(
        503,
        "no-healthy-instance",
        "the agent is not there at the moment",
    )
    .with_detail("nobody works for the agents that take such requests");
    Refusal::new("none_healthy", &problem).with_header("retry-after", RETURN_S.to_string())
}

/// 503: nobody knows which agents are there, and that is a reason to refuse.
pub(super) fn stale(interval_ms: u32) -> Refusal {
    let problem = Problem::new(
        503,
        "no-healthy-instance",
        "the agent is not there at the moment",
    )
    .with_detail("the gateway does not know which agents are there");
    let retry_s = u64::from(interval_ms).div_ceil(1_000);
    Refusal::new("stale_refused", &problem).with_header("retry-after", retry_s.to_string())
}
