//! Lowers the priority that a body asks for, and leaves every other byte as it is.
//!
//! Where the body says a priority, the new one takes its place with spaces before it, so that the body
//! keeps its length: ceilings are no longer than what they take the place of (`10` becomes ` 9`, and
//! `null` is longer than any). Where it says none, the default is above the ceiling, and the priority
//! becomes the first field: the one case in which the body grows.

use crate::task_body::Task;

/// `body`, which `task` was read from, with the priority `ceiling`; none where that cannot be, which is
/// never so of a body that was read.
pub(super) fn lowered(body: &[u8], task: &Task, ceiling: u8) -> Option<Vec<u8>> {
    let number = ceiling.to_string();
    let (before, put, after) = match &task.priority_at {
        Some(at) => {
            let width = at.len();
            let put = format!("{number:>width$}");
            (body.get(..at.start)?, put, body.get(at.end..)?)
        }
        None => {
            let start = body.iter().position(|byte| *byte == b'{')?.checked_add(1)?;
            // The object holds a task type, so a comma follows.
            let put = format!("\"priority\":{number},");
            (body.get(..start)?, put, body.get(start..)?)
        }
    };
    Some([before, put.as_bytes(), after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_body::{MAX_DEPTH, read};

    #[test]
    fn only_the_number_changes() {
        for (body, ceiling, expected) in [
            (
                r#"{"task":"a","priority":10}"#,
                7,
                r#"{"task":"a","priority": 7}"#,
            ),
            (
                r#"{"priority" : 8 ,"task":"a"}"#,
                0,
                r#"{"priority" : 0 ,"task":"a"}"#,
            ),
            (
                r#"{"task":"a","priority":null}"#,
                3,
                r#"{"task":"a","priority":   3}"#,
            ),
            (
                r#"{"task":"a","payload":{"priority":10},"\u0070riority":9}"#,
                1,
                r#"{"task":"a","payload":{"priority":10},"\u0070riority":1}"#,
            ),
            (
                " \n{ \"task\":\"\u{61}\"}",
                4,
                " \n{\"priority\":4, \"task\":\"a\"}",
            ),
        ] {
            let task = read(body.as_bytes(), MAX_DEPTH).unwrap();
            let lowered = lowered(body.as_bytes(), &task, ceiling).unwrap();
            assert_eq!(String::from_utf8(lowered.clone()).unwrap(), expected);
            let again = read(&lowered, MAX_DEPTH).unwrap();
            assert_eq!(again.priority, ceiling, "{expected}");
            assert_eq!(again.task_type, task.task_type);
        }
    }
}
