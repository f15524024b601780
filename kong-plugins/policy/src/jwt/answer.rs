//! Why a token is refused, and what the client is told (RFC 6750, section 3).
//!
//! A client learns what helps an honest one: that the token is expired, or is for someone else. Which
//! of issuer, key and signature failed is for the metric alone.

use super::remote::RETRY_MS;
use crate::Refusal;
use mesh_protocol::problem::Problem;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The gateway does not show the request.
    Unreadable,
    SeveralTokens,
    Malformed,
    UnknownIssuer,
    /// The issuer's keys are to be fetched, and there is no set that is fresh enough.
    KeysUnavailable,
    UnknownKey,
    Signature,
    Type,
    MissingClaim,
    Expired,
    TooOld,
    NotYetValid,
    Audience,
    Scope,
    /// A claim that is required here is missing or another.
    Claim,
    /// What is to be handed on is too much, or of a form that cannot be.
    HandOn,
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Self::Unreadable => "host_failure",
            Self::SeveralTokens => "several_tokens",
            Self::Malformed => "malformed",
            Self::UnknownIssuer => "unknown_issuer",
            Self::KeysUnavailable => "keys_unavailable",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Type => "type",
            Self::MissingClaim => "missing_claim",
            Self::Expired => "expired",
            Self::TooOld => "too_old",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Scope => "scope",
            Self::Claim => "claim",
            Self::HandOn => "hand_on",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Unreadable => "the gateway could not examine the request",
            Self::SeveralTokens => "the request carries more than one token",
            Self::Malformed => "the token is malformed",
            Self::KeysUnavailable => "the keys of the token's issuer are not available",
            Self::UnknownIssuer | Self::UnknownKey | Self::Signature => {
                "the token is not signed by an accepted key"
            }
            Self::Type => "the token is of another type",
            Self::MissingClaim => "the token lacks a required claim",
            Self::Expired => "the token has expired",
            Self::TooOld => "the token was issued too long ago",
            Self::NotYetValid => "the token is not yet valid",
            Self::Audience => "the token is meant for another audience",
            Self::Scope => "the token does not grant the required scope",
            Self::Claim => "a claim of the token is not as required",
            Self::HandOn => "claims of the token are too long or of a form that is not handed on",
        }
    }
}

impl From<crate::Unreadable> for Fault {
    fn from(_: crate::Unreadable) -> Self {
        Self::Unreadable
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
            Fault::Unreadable => return Refusal::host_failure(),
            Fault::KeysUnavailable => return keys_unavailable(),
            Fault::SeveralTokens => (
                400,
                "several-tokens",
                "the request carries more than one token",
                "invalid_request",
            ),
            Fault::Scope => (
                403,
                "insufficient-scope",
                "the token does not allow this",
                "insufficient_scope",
            ),
            // Of the codes of RFC 6750 the one for what the caller may not, whatever token it gets.
            Fault::Claim => (
                403,
                "insufficient-claims",
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

/// Nobody can judge the token now. Not a word about it, then: RFC 6750 is about tokens that were judged.
fn keys_unavailable() -> Refusal {
    let fault = Fault::KeysUnavailable;
    let problem = Problem::new(503, "keys-unavailable", fault.description());
    Refusal::new(fault.reason(), &problem)
        .with_header("retry-after", RETRY_MS.div_ceil(1000).to_string())
}
