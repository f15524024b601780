//! Why a request or a task is refused, for the caller, the audit and the metrics.

use crate::SidecarError;
use crate::config::ServiceName;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use mesh_protocol::assertion::AssertionError;
use mesh_protocol::problem::{self, Problem};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Why, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Rules speak of paths, and readers differ on what this one means.
    Path,
    /// There are two assertions.
    AssertionTwice,
    /// There is none where one is required.
    AssertionMissing,
    /// It is no assertion.
    AssertionMalformed,
    /// No key of this mesh signed it.
    AssertionUnknownKey,
    /// Its signature is wrong.
    AssertionSignature,
    /// It is for another mesh.
    AssertionAudience,
    /// It is not valid at this time.
    AssertionExpired,
    /// It says what no header can.
    Identity,
    /// A task was submitted too long ago, or has not been yet.
    Submission,
    /// An intention denies it.
    Denied,
    /// No intention allows it.
    NoIntention,
}

impl Reason {
    /// Every one.
    pub(crate) const ALL: [Self; 12] = [
        Self::Path,
        Self::AssertionTwice,
        Self::AssertionMissing,
        Self::AssertionMalformed,
        Self::AssertionUnknownKey,
        Self::AssertionSignature,
        Self::AssertionAudience,
        Self::AssertionExpired,
        Self::Identity,
        Self::Submission,
        Self::Denied,
        Self::NoIntention,
    ];

    /// The word, in metrics and in the audit.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::AssertionTwice => "assertion_twice",
            Self::AssertionMissing => "assertion_missing",
            Self::AssertionMalformed => "assertion_malformed",
            Self::AssertionUnknownKey => "assertion_unknown_key",
            Self::AssertionSignature => "assertion_signature",
            Self::AssertionAudience => "assertion_audience",
            Self::AssertionExpired => "assertion_expired",
            Self::Identity => "identity",
            Self::Submission => "submission",
            Self::Denied => "denied",
            Self::NoIntention => "no_intention",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::BAD_REQUEST,
            Self::Denied | Self::NoIntention => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

impl std::convert::From<AssertionError> for Reason {
    fn from(error: AssertionError) -> Self {
        match error {
            AssertionError::Malformed => Self::AssertionMalformed,
            AssertionError::UnknownKey => Self::AssertionUnknownKey,
            AssertionError::Signature => Self::AssertionSignature,
            AssertionError::Audience => Self::AssertionAudience,
            AssertionError::Expired => Self::AssertionExpired,
        }
    }
}

/// A refusal: counted and in the audit already, to be told to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Refusal {
    reason: Reason,
    detail: String,
    /// Number of the intention that decided, if one did.
    intention: Option<usize>,
}

impl Refusal {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            intention: None,
        }
    }

    pub(super) fn by(mut self, intention: usize) -> Self {
        self.intention = Some(intention);
        self
    }

    /// Number of the intention that decided, if one did.
    pub(super) fn intention(&self) -> Option<usize> {
        self.intention
    }

    /// Why, as a word.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// Why, for people; holds no secret.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Status of the answer: 400, 401 or 403.
    pub(crate) fn status(&self) -> StatusCode {
        self.reason.status()
    }

    /// The answer's body.
    pub(crate) fn problem(&self) -> Problem {
        let (name, title) = match self.status() {
            StatusCode::BAD_REQUEST => ("path-not-plain", "The path is not in its plain form"),
            // As the orchestrator says it.
            StatusCode::UNAUTHORIZED => ("unauthenticated", "Who is calling is not known"),
            _ => ("call-not-allowed", "The mesh does not allow this call"),
        };
        Problem::new(self.status().as_u16(), name, title).with_detail(&*self.detail)
    }

    /// The whole answer.
    pub(crate) fn response(&self) -> Response<Bytes> {
        // Texts and numbers always serialise.
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(problem::CONTENT_TYPE),
        );
        if self.status() == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 15.5.2: a 401 says what would help.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// A peer's request.
    Inbound,
    /// A step off the bus.
    Task,
}

/// `sidecar_refusals_total`, with every series there from the start: an alert on a rate needs the zero before.
pub(super) struct Refusals {
    inbound: Box<[IntCounter]>,
    task: Box<[IntCounter]>,
}

impl Refusals {
    pub(super) fn register(
        registry: &Registry,
        service: &ServiceName,
    ) -> Result<Self, SidecarError> {
        let opts = Opts::new(
            "sidecar_refusals_total",
            "What policy refused, by direction (inbound, task) and reason",
        );
        let counters = IntCounterVec::new(opts, &["agent", "direction", "reason"])?;
        registry.register(Box::new(counters.clone()))?;
        let of = |direction| -> Box<[IntCounter]> {
            let counter = |reason: Reason| {
                counters.with_label_values(&[service.as_str(), direction, reason.as_str()])
            };
            Reason::ALL.into_iter().map(counter).collect()
        };
        Ok(Self {
            inbound: of("inbound"),
            task: of("task"),
        })
    }

    pub(super) fn count(&self, direction: Direction, reason: Reason) {
        let counters = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Task => &self.task,
        };
        // In the order of ALL, which is that of the declaration; a test holds it.
        if let Some(counter) = counters.get(reason as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_word_and_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(place, reason as usize);
            let same = Reason::ALL.iter().filter(|r| r.as_str() == reason.as_str());
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn an_answer_says_why_and_what_would_help() {
        let refused = |reason| Refusal::new(reason, "because").response();
        let answer = refused(Reason::AssertionExpired);
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(problem.kind, "urn:agent-mesh:problem:unauthenticated");
        assert_eq!(problem.detail.as_deref(), Some("because"));
        assert_eq!(refused(Reason::Denied).status(), 403);
        assert_eq!(refused(Reason::Path).status(), 400);
        assert!(
            !refused(Reason::Denied)
                .headers()
                .contains_key("www-authenticate")
        );
    }
}
