//! What can be wrong with a plan, by code.
//!
//! | code | finding |
//! |---|---|
//! | P001 | the agent is not in this mesh |
//! | P002 | the agent lacks the capability |
//! | P003 | two steps have one id |
//! | P004 | a dependency does not exist |
//! | P005 | a dependency names an agent that has several steps |
//! | P006 | steps wait for each other |
//! | P007 | too many steps |
//! | P008 | too many steps that can run at the same time |
//! | P009 | a text is missing or too long |
//! | P010 | no steps |
//! | P011 | a step id is no id |
//! | P012 | a time budget is out of range |
//! | P013 | a part cannot be read, or means nothing |
//! | P014 | a step takes what this mesh does not have, or more than it has |

use super::draft::clip;
use serde::Serialize;

/// Most findings of one check; a hopeless plan need not be described to the end.
pub(super) const MAX_FINDINGS: usize = 20;

/// What is wrong with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs, reason = "the table at the head of this file")]
pub enum Code {
    P001,
    P002,
    P003,
    P004,
    P005,
    P006,
    P007,
    P008,
    P009,
    P010,
    P011,
    P012,
    P013,
    P014,
}

impl Code {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P001 => "P001",
            Self::P002 => "P002",
            Self::P003 => "P003",
            Self::P004 => "P004",
            Self::P005 => "P005",
            Self::P006 => "P006",
            Self::P007 => "P007",
            Self::P008 => "P008",
            Self::P009 => "P009",
            Self::P010 => "P010",
            Self::P011 => "P011",
            Self::P012 => "P012",
            Self::P013 => "P013",
            Self::P014 => "P014",
        }
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// The step, by its id or its place (`#3`); `None` for the plan as a whole.
    pub step: Option<String>,
    /// The fault and the mend.
    pub detail: String,
}

/// The findings of one check.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, code: Code, step: Option<&str>, detail: impl Into<String>) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding {
                code,
                step: step.map(|s| clip(s, 128)),
                detail: detail.into(),
            });
        }
    }
}
