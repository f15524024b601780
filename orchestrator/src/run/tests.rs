//! The machine over random graphs, outcomes and orders of events, and its single transitions.

use super::dag::Dag;
use super::machine::{Command, Event, Illegal, Machine, StepState, StepStatus, TaskEnd};
use super::message::incoming_data;
use crate::config::OnFailure;
use crate::store::contract::sample;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::{Outcome, StepError};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn later(ms: u64) -> Timestamp {
    START.plus(Duration::from_millis(ms))
}

fn machine(before: &[&[usize]], policy: OnFailure) -> Machine {
    let dag = Dag::new(before.iter().map(|b| b.to_vec()).collect()).unwrap();
    let steps = vec![pending(); dag.len()];
    Machine::new(dag, steps, policy, later(10_000))
}

fn pending() -> StepState {
    StepState {
        status: StepStatus::Pending,
        budget: Duration::from_millis(1000),
        deadline: None,
        needs: false,
        published: false,
        error: None,
    }
}

fn done(step: usize) -> Event {
    Event::Answered {
        step,
        outcome: Outcome::Completed {
            result: json!({"step": step}),
        },
    }
}

fn failed(step: usize) -> Event {
    Event::Answered {
        step,
        outcome: Outcome::Failed {
            error: StepError::new("agent_status", "500"),
        },
    }
}

fn dispatched(commands: &[Command]) -> Vec<usize> {
    commands
        .iter()
        .filter_map(|c| match c {
            Command::Dispatch { step, .. } => Some(*step),
            _ => None,
        })
        .collect()
}

fn end(commands: &[Command]) -> Option<&TaskEnd> {
    match commands.last()? {
        Command::End(end) => Some(end),
        _ => None,
    }
}

#[test]
fn ready_steps_go_together_and_the_last_ends_the_task() {
    let mut machine = machine(&[&[], &[], &[0, 1]], OnFailure::FailTask);
    let commands = machine.apply(Event::Begin, START).unwrap();
    assert_eq!(dispatched(&commands), [0, 1]);
    assert!(dispatched(&machine.apply(done(0), later(1)).unwrap()).is_empty());
    assert_eq!(dispatched(&machine.apply(done(1), later(2)).unwrap()), [2]);
    let commands = machine.apply(done(2), later(3)).unwrap();
    assert_eq!(end(&commands), Some(&TaskEnd::Completed));
    assert_eq!(machine.apply(done(2), later(4)), Err(Illegal::Over));
}

#[test]
fn what_has_no_place_changes_nothing() {
    let mut machine = machine(&[&[], &[0]], OnFailure::FailTask);
    assert_eq!(machine.apply(done(0), START), Err(Illegal::NotBegun));
    machine.apply(Event::Begin, START).unwrap();
    assert_eq!(machine.apply(Event::Begin, START), Err(Illegal::Begun));
    assert_eq!(machine.apply(done(1), START), Err(Illegal::NotDispatched));
    assert_eq!(machine.apply(done(9), START), Err(Illegal::NoStep));
    machine.apply(done(0), START).unwrap();
    assert_eq!(machine.apply(done(0), START), Err(Illegal::Settled));
    assert_eq!(machine.status(1), Some(StepStatus::Dispatched));
}

#[test]
fn the_policy_decides_what_a_failure_stops() {
    // 0 -> 1, 2 -> 3
    let shape: &[&[usize]] = &[&[], &[0], &[], &[2]];
    let mut strict = machine(shape, OnFailure::FailTask);
    strict.apply(Event::Begin, START).unwrap();
    strict.apply(failed(0), later(1)).unwrap();
    assert_eq!(strict.status(3), Some(StepStatus::Skipped));
    assert_eq!(strict.status(2), Some(StepStatus::Dispatched));
    let commands = strict.apply(done(2), later(2)).unwrap();
    assert!(matches!(end(&commands), Some(TaskEnd::Failed(e)) if e.code == "agent_status"));

    let mut lenient = machine(shape, OnFailure::Continue);
    lenient.apply(Event::Begin, START).unwrap();
    lenient.apply(failed(0), later(1)).unwrap();
    assert_eq!(lenient.status(1), Some(StepStatus::Skipped));
    assert_eq!(dispatched(&lenient.apply(done(2), later(2)).unwrap()), [3]);
    let commands = lenient.apply(done(3), later(3)).unwrap();
    assert!(matches!(end(&commands), Some(TaskEnd::Failed(_))));
}

#[test]
fn deadlines_of_steps_and_of_the_task() {
    let mut machine = machine(&[&[], &[]], OnFailure::Continue);
    machine.apply(Event::Begin, START).unwrap();
    assert_eq!(machine.next_deadline(), Some(later(1000)));
    assert!(machine.apply(Event::Clock, later(999)).unwrap().is_empty());
    machine.apply(done(0), later(999)).unwrap();
    let commands = machine.apply(Event::Clock, later(1000)).unwrap();
    assert!(matches!(end(&commands), Some(TaskEnd::Failed(e)) if e.code == "deadline_exceeded"));
    assert_eq!(machine.next_deadline(), None);

    let mut machine = self::machine(&[&[], &[0]], OnFailure::Continue);
    machine.apply(Event::Begin, START).unwrap();
    machine.apply(Event::Clock, later(20_000)).unwrap();
    assert_eq!(machine.status(0), Some(StepStatus::Failed));
    assert_eq!(machine.status(1), Some(StepStatus::Skipped));
    assert!(machine.is_over());
}

#[test]
fn a_cancel_settles_everything_at_once() {
    let mut machine = machine(&[&[], &[0]], OnFailure::FailTask);
    machine.apply(Event::Begin, START).unwrap();
    let commands = machine.apply(Event::Cancel, later(1)).unwrap();
    assert_eq!(end(&commands), Some(&TaskEnd::Cancelled));
    assert_eq!(machine.status(1), Some(StepStatus::Cancelled));
}

#[test]
fn a_stored_run_goes_on_with_its_old_deadlines() {
    let dag = Dag::new(vec![vec![], vec![], vec![1]]).unwrap();
    let steps = vec![
        StepState {
            status: StepStatus::Dispatched,
            deadline: Some(later(500)),
            ..pending()
        },
        StepState {
            status: StepStatus::Completed,
            ..pending()
        },
        pending(),
    ];
    let taken_up = |now| {
        let mut machine = Machine::new(
            dag.clone(),
            steps.clone(),
            OnFailure::Continue,
            later(10_000),
        );
        machine.apply(Event::Begin, now).unwrap()
    };
    let commands = taken_up(later(100));
    assert_eq!(
        commands[0],
        Command::Dispatch {
            step: 0,
            deadline: later(500),
            again: true
        }
    );
    assert_eq!(dispatched(&commands), [0, 2]);
    // What the broker is known to have is not handed over again.
    let mut published = steps.clone();
    published[0].published = true;
    let mut machine = Machine::new(dag.clone(), published, OnFailure::Continue, later(10_000));
    let commands = machine.apply(Event::Begin, later(100)).unwrap();
    assert_eq!(dispatched(&commands), [2]);
    assert_eq!(machine.next_deadline(), Some(later(500)));
    // Too late for the step, then for the task: nothing is dispatched that nobody wants.
    assert_eq!(dispatched(&taken_up(later(600))), [2]);
    assert!(dispatched(&taken_up(later(20_000))).is_empty());
}

#[test]
fn results_reach_the_successors() {
    let mut run = sample(None);
    run.steps[0].result = Some(json!(1));
    run.steps[1].result = Some(json!({"x": [2]}));
    assert_eq!(
        Value::Object(incoming_data(&run, 2, &[0, 1])),
        json!({
            "a": {"agent": "data-processor", "data": 1},
            "b": {"agent": "data-processor", "data": {"x": [2]}},
        })
    );
}

fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1usize..16).prop_flat_map(|count| {
        (0..count)
            .map(|step| proptest::collection::vec(0..step.max(1), 0..4))
            .collect::<Vec<_>>()
            .prop_map(|mut before| {
                before[0].clear();
                before
            })
    })
}

proptest! {
    #[test]
    fn every_run_ends_and_keeps_its_order(
        before in graph(),
        lenient in any::<bool>(),
        moves in proptest::collection::vec((0u8..20, any::<prop::sample::Index>(), 0u64..300), 0..200),
    ) {
        let dag = Dag::new(before).unwrap();
        let policy = if lenient { OnFailure::Continue } else { OnFailure::FailTask };
        let steps = vec![pending(); dag.len()];
        let mut machine = Machine::new(dag.clone(), steps, policy, later(10_000));
        let mut now = START;
        let mut log: Vec<Command> = machine.apply(Event::Begin, now).unwrap();
        for (kind, which, pass) in moves {
            now = now.plus(Duration::from_millis(pass));
            let step = which.index(dag.len());
            let event = match kind {
                0..=12 => done(step),
                13 | 14 => failed(step),
                15 => Event::Undeliverable { step, error: StepError::new("unroutable", "") },
                16 | 17 => Event::Clock,
                18 => Event::Begin,
                _ if pass > 290 => Event::Cancel,
                _ => Event::Clock,
            };
            let copy = machine.clone();
            match machine.apply(event, now) {
                Ok(commands) => log.extend(commands),
                // An illegal event leaves the state as it was.
                Err(_) => prop_assert_eq!(format!("{copy:?}"), format!("{machine:?}")),
            }
        }
        // Whatever happened, time ends it.
        if !machine.is_over() {
            log.extend(machine.apply(Event::Clock, later(1_000_000)).unwrap());
        }
        prop_assert!(machine.is_over());
        prop_assert!(matches!(log.last(), Some(Command::End(_))));
        let ends = log.iter().filter(|c| matches!(c, Command::End(_))).count();
        prop_assert_eq!(ends, 1);

        let mut dispatched = HashSet::new();
        let mut completed = HashSet::new();
        let mut settled = HashSet::new();
        for command in &log {
            match command {
                Command::Dispatch { step, .. } => {
                    prop_assert!(dispatched.insert(*step), "step {} went out twice", step);
                    prop_assert!(dag.before(*step).iter().all(|b| completed.contains(b)));
                }
                Command::Settle { step, status, result, error } => {
                    prop_assert!(settled.insert(*step), "step {} settled twice", step);
                    prop_assert_eq!(*status == StepStatus::Completed, result.is_some());
                    prop_assert_eq!(*status == StepStatus::Completed, error.is_none());
                    if *status == StepStatus::Completed {
                        completed.insert(*step);
                    }
                }
                Command::Ask { .. } | Command::Hold { .. } => {
                    prop_assert!(false, "no step takes anything");
                }
                Command::End(end) => {
                    let whole = completed.len() == dag.len();
                    prop_assert_eq!(matches!(end, TaskEnd::Completed), whole);
                }
            }
        }
        prop_assert_eq!(settled.len(), dag.len());
    }

    #[test]
    fn a_run_without_faults_completes_in_any_order(
        before in graph(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        let dag = Dag::new(before).unwrap();
        let steps = vec![pending(); dag.len()];
        let mut machine = Machine::new(dag, steps, OnFailure::FailTask, later(10_000));
        let mut out = dispatched(&machine.apply(Event::Begin, START).unwrap());
        let mut last = None;
        for pick in picks {
            if out.is_empty() {
                break;
            }
            let step = out.swap_remove(pick.index(out.len()));
            let commands = machine.apply(done(step), later(1)).unwrap();
            out.extend(dispatched(&commands));
            last = commands.last().cloned();
        }
        prop_assert_eq!(last, Some(Command::End(TaskEnd::Completed)));
    }
}
