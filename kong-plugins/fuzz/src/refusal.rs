//! What every refusal of a filter is.

use mesh_policy::{Decision, Pass, Refusal};
use mesh_protocol::problem::{CONTENT_TYPE, Problem};

/// The pass; none where the decision is a refusal, which must be a whole answer.
pub(crate) fn passed(decision: Decision) -> Option<Pass> {
    match decision {
        Decision::Pass(pass) => {
            for (name, value) in &pass.set_headers {
                assert!(is_value(value), "header {name}: {value:?}");
            }
            Some(pass)
        }
        Decision::Refuse(refusal) => {
            check(&refusal);
            None
        }
    }
}

/// Problem details (RFC 9457) of the same status, and headers that can be sent.
fn check(refusal: &Refusal) {
    assert!((400..600).contains(&refusal.status), "{refusal:?}");
    let problem: Problem = serde_json::from_slice(&refusal.body).expect("a problem");
    assert_eq!(problem.status, refusal.status);
    let kind = ("content-type", CONTENT_TYPE.to_owned());
    assert!(refusal.headers.contains(&kind), "{refusal:?}");
    for (name, value) in &refusal.headers {
        assert!(is_value(value), "header {name}: {value:?}");
    }
}

/// Whether `text` can be the value of a header wherever it goes.
fn is_value(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}
