//! The short forms of `make chaos`.

use mesh_chaos::{Fault, Play, play};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_lost_while_every_part_fails_in_turn() {
    let report = play(&Play {
        tasks: 1_100,
        rate: 10.0,
        kill_every: None,
        backlog: 5_000,
        seed: 1,
        longest: Duration::from_secs(300),
    })
    .await;
    eprintln!("{}", serde_json::to_string(&report).unwrap());
    assert!(report.holds(), "{report:#?}");
    for fault in Fault::ALL {
        assert!(report.faults.contains_key(&fault), "{fault:?} happened");
    }
    assert!(report.pairs > 0, "two happened at the same time");
    assert!(report.answers_given_twice > 0 && report.answers_of_nobody > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_lost_while_one_of_two_orchestrators_is_killed_every_ten_seconds() {
    let report = play(&Play {
        tasks: 500,
        rate: 10.0,
        kill_every: Some(Duration::from_secs(10)),
        backlog: 0,
        seed: 2,
        longest: Duration::from_secs(240),
    })
    .await;
    eprintln!("{}", serde_json::to_string(&report).unwrap());
    assert!(report.holds(), "{report:#?}");
    for fault in [Fault::OrchestratorKilled, Fault::SecondOrchestratorKilled] {
        assert!(report.faults.contains_key(&fault), "{fault:?} happened");
    }
}
