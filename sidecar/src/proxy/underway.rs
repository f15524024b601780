//! What a request holds for as long as it is under way: its count, its place at the instance and at the breaker, its
//! span.

use super::balance::Picked;
use super::body::Held;
use super::breaker::Permit;
use super::frames::BodyError;
use super::metrics::Counted;
use mesh_trace::Span;

/// What is dropped when the last byte of an answer has gone.
pub(crate) struct Underway {
    pub(crate) counted: Counted,
    #[expect(dead_code, reason = "the instance counts as busy until it is dropped")]
    pub(crate) picked: Option<Picked>,
    #[expect(
        dead_code,
        reason = "the breaker counts it as under way until it is dropped"
    )]
    pub(crate) permit: Permit,
    pub(crate) span: Option<Span>,
}

impl Held for Underway {
    fn answered(&mut self, status: u16) {
        self.counted.answered(status);
    }

    fn broke_off(&mut self, why: BodyError) {
        if let Some(span) = &mut self.span {
            span.fail(why.to_string());
        }
    }
}
