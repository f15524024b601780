//! `task_admission` and the bodies of tasks.

use crate::refusal::passed;
use mesh_policy::config::TaskAdmission;
use mesh_policy::host::MemoryHost;
use mesh_policy::request::MemoryHead;
use mesh_policy::task_body::{Fault, MAX_DEPTH, read};
use mesh_policy::{Filter, Pass, Timestamp, admission};
use mesh_protocol::task::{RequestError, TaskRequest};

/// The ceiling of the second policy.
const CEILING: u8 = 3;
/// The three things in which the gateway is stricter than the orchestrator, see [`mesh_policy::task_body`].
const STRICTER: [&str; 3] = [
    "a name occurs twice",
    "arrays and objects are nested too deep",
    "a name is reserved",
];

/// What is admitted is the same task for the orchestrator, also where its priority was lowered; what the
/// orchestrator would take is refused for a reason that is written down.
pub fn task_body(data: &[u8]) -> bool {
    let orchestrator = TaskRequest::from_json(data);
    match (read(data, MAX_DEPTH), &orchestrator) {
        (Ok(task), Ok(request)) => {
            let seen = (task.task_type.as_str(), task.priority, task.timeout_s);
            let taken = (
                request.task_type.as_str(),
                request.priority,
                request.timeout,
            );
            assert_eq!(seen, taken);
        }
        (Ok(task), Err(fault)) => unreachable!("{task:?}, and the orchestrator: {fault}"),
        (Err(Fault::NotJson(fault)), Ok(_)) => {
            assert!(
                STRICTER.iter().any(|known| fault.starts_with(known)),
                "{fault}"
            );
        }
        (Err(Fault::Fields(ours)), Err(RequestError::Fields(theirs))) => {
            let names = |faults: &[mesh_protocol::problem::FieldError]| -> Vec<(String, String)> {
                let name =
                    |f: &mesh_protocol::problem::FieldError| (f.field.clone(), f.code.clone());
                faults.iter().map(name).collect()
            };
            assert_eq!(names(&ours), names(theirs));
        }
        (Err(Fault::Fields(fault)), _) => unreachable!("{fault:?}, and the orchestrator not"),
        (Err(Fault::NotJson(_)), Err(_)) => {}
    }
    let admitted = ask("{}", data);
    assert_eq!(admitted.is_some(), read(data, MAX_DEPTH).is_ok());
    assert!(admitted.as_ref().is_none_or(|pass| pass.set_body.is_none()));

    let shallow = ask(r#"{"max_depth":3}"#, data);
    assert_eq!(shallow.is_some(), read(data, 3).is_ok());

    let lowered = ask(
        &format!(r#"{{"priority":{{"otherwise":{CEILING}}}}}"#),
        data,
    );
    assert_eq!(
        lowered.is_some(),
        orchestrator.is_ok() && read(data, MAX_DEPTH).is_ok()
    );
    if let (Some(pass), Ok(request)) = (lowered, orchestrator) {
        assert_eq!(pass.set_body.is_some(), request.priority > CEILING);
        let sent = pass.set_body.as_deref().unwrap_or(data);
        let wanted = TaskRequest {
            priority: request.priority.min(CEILING),
            ..request
        };
        assert_eq!(TaskRequest::from_json(sent), Ok(wanted));
    }
    admitted.is_some()
}

fn ask(config: &str, body: &[u8]) -> Option<Pass> {
    let config: TaskAdmission = serde_json::from_str(config).expect("the configuration is good");
    let policy = admission::compile(&config).expect("the configuration is good");
    let host = MemoryHost::at(Timestamp::from_millis(0));
    let head = MemoryHead::new("POST", "/").with("content-type", "application/json");
    let mut request = admission::Request::default();
    passed(policy.decide(&mut request, &head, &host)).expect("the head is good");
    assert!(policy.wants_body(&request));
    passed(policy.decide_body(&mut request, Some(body), &host))
}
