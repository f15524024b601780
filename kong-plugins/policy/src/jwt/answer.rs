//! Why a token is refused, and what the client is told (RFC 6750, section 3).
//!
//! A client learns what helps an honest one: that the token is expired, or is for someone else. Which
//! of issuer, key and signature failed is for the metric alone.

use crate::Refusal;
use mesh_protocol::problem::Problem;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    SeveralTokens,
    Malformed,
    UnknownIssuer,
    UnknownKey,
    Signature,
    MissingClaim,
    Expired,
    NotYetValid,
    Audience,
    Scope,
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Self::SeveralTokens => "several_tokens",
            Self::Malformed => "malformed",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::MissingClaim => "missing_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Scope => "scope",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::SeveralTokens => "the request carries more than one token",
            Self::Malformed => "the token is malformed",
            Self::UnknownIssuer | Self::UnknownKey | Self::Signature => {
                "the token is not signed by an accepted key"
            }
            Self::MissingClaim => "the token lacks a required claim",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not yet valid",
            Self::Audience => "the token is meant for another audience",
            Self::Scope => "the token does not grant the required scope",
        }
    }
}

/// The answers of one configuration.
#[derive(Debug)]
pub(super) struct Answers {
    realm: String,
    scope: String,
}

impl Answers {
    pub(super) fn new(realm: &str, required_scopes: &[String]) -> Self {
        Self {
            // Between quotes: what would end or escape them is left out.
            realm: realm
                .chars()
                .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
                .collect(),
            scope: required_scopes.join(" "),
        }
    }

    /// No token at all: the challenge carries no error code (RFC 6750, section 3.1).
    pub(super) fn no_token(&self) -> Refusal {
        let problem = Problem::new(401, "token-required", "a bearer token is required");
        Refusal::new("no_token", &problem).with_header(
            "www-authenticate",
            format!("Bearer realm=\"{}\"", self.realm),
        )
    }

    pub(super) fn refused(&self, fault: Fault) -> Refusal {
        let (status, name, title, error) = match fault {
            Fault::Scope => (
                403,
                "insufficient-scope",
                "the token does not allow this",
                "insufficient_scope",
            ),
            _ => (
                401,
                "invalid-token",
                "the token is not valid",
                "invalid_token",
            ),
        };
        let mut challenge = format!(
            "Bearer realm=\"{}\", error=\"{error}\", error_description=\"{}\"",
            self.realm,
            fault.description()
        );
        if fault == Fault::Scope {
            challenge.push_str(&format!(", scope=\"{}\"", self.scope));
        }
        let problem = Problem::new(status, name, title).with_detail(fault.description());
        Refusal::new(fault.reason(), &problem).with_header("www-authenticate", challenge)
    }
}

/// A client sent a header that only the gateway may set.
pub(super) fn reserved(name: &str) -> Refusal {
    let problem = Problem::new(
        400,
        "reserved-header",
        "a header of the request is reserved",
    )
    .with_detail(format!("remove the header {name} from the request"));
    Refusal::new("reserved_header", &problem)
}
