//! Errors over HTTP, as RFC 9457 problem details.

use serde::{Deserialize, Serialize};

/// Media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";
/// Prefix of the problem types that this project defines; the rest names the kind.
pub const TYPE_PREFIX: &str = "urn:agent-mesh:problem:";

/// Header of an answer whose fault is not the service's that gives it but of something behind it, so that nobody leaves
/// that service alone for it: its value is [`FAULT_BEHIND`].
pub const HEADER_FAULT: &str = "x-mesh-fault";
/// The fault is behind the service: of a model server, say, that all instances share.
pub const FAULT_BEHIND: &str = "behind";

/// RFC 9457 problem details, with one entry per wrong field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// URI that identifies the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words, the same for every occurrence.
    pub title: String,
    /// HTTP status, repeated for readers that lost the response line.
    pub status: u16,
    /// This occurrence, and the mend where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is wrong, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field, as a path with dots (`payload.language`); empty for the body as a whole.
    pub field: String,
    /// Stable word for programs, such as `out_of_range`.
    pub code: String,
    /// The fault and the mend, for people.
    pub detail: String,
}

impl FieldError {
    /// A fault of `field`.
    pub fn new(
        field: impl Into<String>,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            code: code.into(),
            detail: detail.into(),
        }
    }
}

impl Problem {
    /// A problem of the kind `name` (appended to [`TYPE_PREFIX`]).
    pub fn new(status: u16, name: &str, title: impl Into<String>) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{name}"),
            title: title.into(),
            status,
            detail: None,
            errors: Vec::new(),
        }
    }

    /// The same with this occurrence described.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with the wrong fields named.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}
