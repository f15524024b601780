//! What can be wrong with a collaboration, by code.
//!
//! | code | finding |
//! |---|---|
//! | C001 | the agent is not in this mesh |
//! | C002 | the agent registered and has no queue: it takes no steps |
//! | C003 | an agent has two nodes |
//! | C004 | an edge or a synchronization point names an agent without a node |
//! | C005 | agents wait for one another in a circle, which is named |
//! | C006 | two edges between the same agents |
//! | C007 | no nodes |
//! | C008 | too many nodes, edges or synchronization points |
//! | C009 | too many agents that can work at the same time |
//! | C010 | a text is missing or too long |
//! | C011 | a number is out of range |
//! | C012 | a part cannot be read, or means nothing |

use mesh_protocol::problem::FieldError;

/// Most findings of one check; a hopeless plan need not be described to the end.
const MAX_FINDINGS: usize = 20;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the table at the head of this file")]
pub enum Code {
    C001,
    C002,
    C003,
    C004,
    C005,
    C006,
    C007,
    C008,
    C009,
    C010,
    C011,
    C012,
}

impl Code {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::C001 => "C001",
            Self::C002 => "C002",
            Self::C003 => "C003",
            Self::C004 => "C004",
            Self::C005 => "C005",
            Self::C006 => "C006",
            Self::C007 => "C007",
            Self::C008 => "C008",
            Self::C009 => "C009",
            Self::C010 => "C010",
            Self::C011 => "C011",
            Self::C012 => "C012",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// Where: `nodes[2].role`; empty for the plan as a whole.
    pub place: String,
    /// The fault and the mend.
    pub detail: String,
}

impl Finding {
    /// As a field of the request `{plan: …}`.
    pub fn field(&self) -> FieldError {
        let dot = if self.place.is_empty() { "" } else { "." };
        let field = format!("plan{dot}{}", self.place);
        FieldError::new(field, self.code.as_str(), &self.detail)
    }
}

/// The findings of one check.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, code: Code, place: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding {
                code,
                place: place.into(),
                detail: detail.into(),
            });
        }
    }
}
