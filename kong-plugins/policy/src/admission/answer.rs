//! The refusals of `task_admission`.

use crate::Refusal;
use crate::task_body::Fault;
use mesh_protocol::problem::{FieldError, Problem};

/// The IANA registry's problem types, of which `rate_limit` uses one, too.
const CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// 415: the body says that it is something else than JSON.
pub(super) fn media_type() -> Refusal {
    let problem = Problem::new(415, "unsupported-media-type", "a task is JSON")
        .with_detail("send it as content-type: application/json");
    Refusal::new("media_type", &problem)
}

/// 413: the body is longer than allowed, or than the gateway's buffer.
pub(super) fn too_large(most: u64) -> Refusal {
    let detail = format!("at most {most} bytes are taken");
    let problem = Problem::new(413, "body-too-large", "the body is too large")
        .with_detail(&detail)
        .with_errors(vec![FieldError::new("payload", "too_large", detail)]);
    Refusal::new("too_large", &problem)
}

/// 400: there is no body.
pub(super) fn empty() -> Refusal {
    let problem = Problem::new(400, "not-json", "the body is not JSON")
        .with_detail("the body is empty: send a task");
    Refusal::new("not_json", &problem)
}

/// 400 or 422: the body is no task.
pub(super) fn no_task(fault: Fault) -> Refusal {
    match fault {
        Fault::NotJson(detail) => {
            let problem = Problem::new(400, "not-json", "the body is not JSON").with_detail(detail);
            Refusal::new("not_json", &problem)
        }
        Fault::Fields(errors) => wrong_fields("wrong_fields", errors),
    }
}

/// 422: the task asks for too little or too much time.
pub(super) fn timeout(asked_s: u32, min_s: u32, max_s: u32) -> Refusal {
    let detail =
        format!("timeout must be an integer from {min_s} to {max_s} here; this task has {asked_s}");
    wrong_fields(
        "timeout",
        vec![FieldError::new("timeout", "out_of_range", detail)],
    )
}

fn wrong_fields(reason: &'static str, errors: Vec<FieldError>) -> Refusal {
    let problem =
        Problem::new(422, "wrong-fields", "the request has wrong fields").with_errors(errors);
    Refusal::new(reason, &problem)
}

/// 403: the caller may not ask for this type of task.
pub(super) fn task_type(asked: &str) -> Refusal {
    let problem = Problem::new(
        403,
        "task-type-not-allowed",
        "this caller may not ask for such a task",
    )
    .with_detail(format!("the caller's scopes do not allow {asked}"));
    Refusal::new("task_type", &problem)
}

/// 403: the task asks for a higher priority than its caller may.
pub(super) fn priority(asked: u8, ceiling: u8) -> Refusal {
    let problem = Problem::new(
        403,
        "priority-not-allowed",
        "this caller may not ask for such a priority",
    )
    .with_detail(format!(
        "at most {ceiling} is allowed; this task has {asked}"
    ));
    Refusal::new("priority", &problem)
}

/// 503: the task could not begin in time.
pub(super) fn no_capacity(reason: &'static str, detail: String, retry_after_s: u64) -> Refusal {
    let problem = Problem {
        kind: CAPACITY.to_owned(),
        ..Problem::new(503, "", "there is no room for the task at the moment")
    }
    .with_detail(detail);
    Refusal::new(reason, &problem).with_header("retry-after", retry_after_s.to_string())
}
