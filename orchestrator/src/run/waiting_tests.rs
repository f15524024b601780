//! The machine of runs whose steps take resources: asked for, granted, given back, whatever happens.

use super::dag::Dag;
use super::machine::{Command, Event, Illegal, Machine, StepState, StepStatus, TaskEnd};
use crate::config::OnFailure;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::{Outcome, StepError};
use proptest::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn later(ms: u64) -> Timestamp {
    START.plus(Duration::from_millis(ms))
}

fn step(status: StepStatus, needs: bool) -> StepState {
    StepState {
        status,
        budget: Duration::from_millis(1000),
        deadline: (status != StepStatus::Pending).then(|| later(500)),
        needs,
        published: false,
        error: None,
    }
}

fn machine(before: &[&[usize]], steps: Vec<StepState>) -> Machine {
    let dag = Dag::new(before.iter().map(|b| b.to_vec()).collect()).unwrap();
    Machine::new(dag, steps, OnFailure::FailTask, later(10_000))
}

fn done(step: usize) -> Event {
    let result = json!(step);
    let outcome = Outcome::Completed { result };
    Event::Answered { step, outcome }
}

#[test]
fn a_step_goes_out_once_it_has_what_it_takes() {
    let steps = vec![
        step(StepStatus::Pending, true),
        step(StepStatus::Pending, false),
    ];
    let mut machine = machine(&[&[], &[]], steps);
    let commands = machine.apply(Event::Begin, START).unwrap();
    let (ask, dispatch) = (
        Command::Ask {
            step: 0,
            deadline: later(1000),
            again: false,
        },
        Command::Dispatch {
            step: 1,
            deadline: later(1000),
            again: false,
        },
    );
    assert_eq!(commands, [ask, dispatch]);
    assert_eq!(machine.apply(done(0), START), Err(Illegal::NotDispatched));
    // The wait was on its own time.
    let commands = machine
        .apply(Event::Granted { step: 0 }, later(300))
        .unwrap();
    let dispatch = Command::Dispatch {
        step: 0,
        deadline: later(1000),
        again: false,
    };
    assert_eq!(commands, [dispatch]);
    let again = machine.apply(Event::Granted { step: 0 }, later(300));
    assert_eq!(again, Err(Illegal::Dispatched));
    machine.apply(done(0), later(301)).unwrap();
    let commands = machine.apply(done(1), later(302)).unwrap();
    assert_eq!(commands.last(), Some(&Command::End(TaskEnd::Completed)));
}

#[test]
fn a_wait_ends_with_the_deadline_a_failure_and_a_cancel() {
    let both = || {
        vec![
            step(StepStatus::Pending, true),
            step(StepStatus::Pending, false),
        ]
    };
    let mut late = machine(&[&[], &[]], both());
    late.apply(Event::Begin, START).unwrap();
    assert_eq!(late.next_deadline(), Some(later(1000)));
    late.apply(done(1), later(1)).unwrap();
    let commands = late.apply(Event::Clock, later(1000)).unwrap();
    let Some(Command::Settle { status, error, .. }) = commands.first() else {
        panic!("{commands:?}");
    };
    assert_eq!(*status, StepStatus::Failed);
    assert!(error.as_ref().unwrap().detail.contains("resources"));

    // It has not begun: a failure beside it ends its wait.
    let mut beside = machine(&[&[], &[]], both());
    beside.apply(Event::Begin, START).unwrap();
    let error = StepError::new("agent_status", "500");
    let outcome = Outcome::Failed { error };
    beside
        .apply(Event::Answered { step: 1, outcome }, later(1))
        .unwrap();
    assert_eq!(beside.status(0), Some(StepStatus::Skipped));
    assert!(beside.is_over());

    let mut called_off = machine(&[&[], &[]], both());
    called_off.apply(Event::Begin, START).unwrap();
    called_off.apply(Event::Cancel, later(1)).unwrap();
    assert_eq!(called_off.status(0), Some(StepStatus::Cancelled));

    let mut never = machine(&[&[], &[]], both());
    never.apply(Event::Begin, START).unwrap();
    let error = StepError::new("resources_exceeded", "");
    never
        .apply(Event::Undeliverable { step: 0, error }, later(1))
        .unwrap();
    assert_eq!(never.status(0), Some(StepStatus::Failed));
}

#[test]
fn a_run_that_is_taken_up_asks_for_what_it_waits_for_and_keeps_what_it_has() {
    let published = StepState {
        published: true,
        ..step(StepStatus::Dispatched, true)
    };
    let steps = vec![
        step(StepStatus::Waiting, true),
        published,
        step(StepStatus::Dispatched, true),
        // Resources are declared no more.
        step(StepStatus::Waiting, false),
    ];
    let mut machine = machine(&[&[], &[], &[], &[]], steps);
    let commands = machine.apply(Event::Begin, later(100)).unwrap();
    let deadline = later(500);
    let expected = [
        Command::Ask {
            step: 0,
            deadline,
            again: true,
        },
        Command::Hold { step: 1 },
        Command::Hold { step: 2 },
        Command::Dispatch {
            step: 2,
            deadline,
            again: true,
        },
        Command::Dispatch {
            step: 3,
            deadline,
            again: false,
        },
    ];
    assert_eq!(commands, expected);
}

#[test]
fn what_is_late_when_taken_up_asks_for_nothing() {
    let steps = vec![
        step(StepStatus::Waiting, true),
        step(StepStatus::Dispatched, true),
    ];
    let mut machine = machine(&[&[], &[]], steps);
    let commands = machine.apply(Event::Begin, later(600)).unwrap();
    let settles = |c: &Command| matches!(c, Command::Settle { .. } | Command::End(_));
    assert!(commands.iter().all(settles), "{commands:?}");
}

proptest! {
    #[test]
    fn whatever_was_asked_for_is_settled_and_nothing_goes_out_without_a_grant(
        needs in proptest::collection::vec(any::<bool>(), 1..10),
        chain in any::<bool>(),
        moves in proptest::collection::vec((0u8..12, any::<prop::sample::Index>(), 0u64..200), 0..150),
    ) {
        let before: Vec<Vec<usize>> = (0..needs.len())
            .map(|s| if chain && s > 0 { vec![s - 1] } else { vec![] })
            .collect();
        let steps: Vec<StepState> = needs.iter().map(|n| step(StepStatus::Pending, *n)).collect();
        let mut machine = Machine::new(Dag::new(before).unwrap(), steps, OnFailure::Continue, later(10_000));
        let (mut now, mut asked, mut granted, mut settled) =
            (START, HashSet::new(), HashSet::new(), HashSet::new());
        let mut log = machine.apply(Event::Begin, now).unwrap();
        for (kind, which, pass) in moves {
            now = now.plus(Duration::from_millis(pass));
            let step = which.index(needs.len());
            let event = match kind {
                0..=5 => Event::Granted { step },
                6..=8 => done(step),
                9 => Event::Undeliverable { step, error: StepError::new("x", "") },
                10 => Event::Clock,
                _ if pass > 195 => Event::Cancel,
                _ => Event::Clock,
            };
            let grants = matches!(event, Event::Granted { .. });
            if let Ok(commands) = machine.apply(event, now) {
                if grants {
                    prop_assert!(needs[step] && granted.insert(step));
                }
                log.extend(commands);
            }
            for command in log.drain(..) {
                match command {
                    Command::Ask { step, again, .. } => prop_assert!(!again && asked.insert(step)),
                    Command::Dispatch { step, .. } => prop_assert!(!needs[step] || granted.contains(&step)),
                    Command::Settle { step, .. } => prop_assert!(settled.insert(step)),
                    Command::Hold { .. } => prop_assert!(false, "nothing was taken up"),
                    Command::End(_) => prop_assert!(machine.is_over()),
                }
            }
        }
        if !machine.is_over() {
            for command in machine.apply(Event::Clock, later(1_000_000)).unwrap().into_iter().chain(log) {
                if let Command::Settle { step, .. } = command {
                    settled.insert(step);
                }
            }
        }
        prop_assert!(machine.is_over());
        prop_assert!(asked.is_subset(&settled));
    }
}
