//! Steps while the agent is away, alone and beside others that take from the queue.

use crate::lane::{self, Lane, Reply, TestAgent, agent_id, ok, quick, step};
use crate::start;
use mesh_bus::Bus;
use mesh_bus::memory::MemoryBus;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::Outcome;
use mesh_sidecar::config::Worker;
use mesh_tests::wait_for;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

#[tokio::test]
async fn an_agent_that_is_not_there_is_said_to_be_away() {
    let agent = TestAgent::start(vec![ok(json!(1))]).await;
    let gone = TestAgent::start(vec![ok(json!(1))]).await.address;
    let mut lane = Lane::with_agent(Arc::new(MemoryBus::new()), agent, quick()).await;
    wait_for("ready", || async { lane.admin("/ready").await.0 == 200 }).await;
    assert_eq!(lane.admin("/health").await.0, 200);
    lane.step(&step("s")).await;
    lane.result().await;
    let (_, metrics) = lane.admin("/metrics").await;
    for line in [
        r#"agent_tasks_processed_total{agent="data-processor",outcome="completed"} 1"#,
        r#"agent_task_duration_seconds_count{agent="data-processor"} 1"#,
        r#"agent_tasks_in_flight{agent="data-processor"}"#,
        r#"sidecar_bus_connected{agent="data-processor"} 1"#,
        r#"sidecar_redeliveries_total{agent="data-processor"} 0"#,
        // A step that does not say when it was sent has no wait.
        r#"agent_task_queue_wait_seconds_count{agent="data-processor"} 0"#,
        r#"sidecar_ack_deadline_left_seconds{agent="data-processor"} "#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(lane.admin("/nothing").await.0, 404);
    lane.stop().await;

    let deps = mesh_sidecar::Deps {
        bus: Some(Arc::new(MemoryBus::new())),
        ..lane::deps()
    };
    let bound = mesh_sidecar::build(lane::config(gone, quick()), deps)
        .await
        .unwrap();
    assert_ne!(bound.admin_address().port(), 0);
}

/// A sidecar beside an agent at `place`; where its admin listener is.
async fn beside(bus: Arc<MemoryBus>, place: SocketAddr) -> (SocketAddr, DropGuard) {
    let deps = mesh_sidecar::Deps {
        bus: Some(bus),
        ..lane::deps()
    };
    let bound = mesh_sidecar::build(lane::config(place, quick()), deps);
    let bound = bound.await.unwrap();
    let (admin, stop) = (bound.admin_address(), CancellationToken::new());
    tokio::spawn(bound.run(stop.clone()));
    (admin, stop.drop_guard())
}

/// Two lanes, one of them beside an agent that is away. The other one's agent is busy with its first step until it
/// is released, so that what comes then is taken by the lane without an agent; which rests by now.
async fn one_of_two_rests() -> (Lane, Arc<MemoryBus>, SocketAddr, DropGuard) {
    let bus = Arc::new(MemoryBus::new());
    let agent = TestAgent::start(vec![Reply::Held]).await;
    let one_at_a_time = Worker {
        concurrency: 1,
        ..quick()
    };
    let lane = Lane::with_agent(Arc::clone(&bus) as _, agent, one_at_a_time).await;
    taken_by(&bus, 1).await;
    lane.step(&step("s0")).await;
    lane.agent.was_called(1).await;
    let place = TestAgent::start(vec![]).await.address;
    let (_, running) = beside(Arc::clone(&bus), place).await;
    taken_by(&bus, 2).await;
    lane.step(&step("s1")).await;
    taken_by(&bus, 1).await;
    (lane, bus, place, running)
}

async fn taken_by(bus: &MemoryBus, lanes: u32) {
    let queue = agent_id().task_queue();
    wait_for("as many lanes to take", async || {
        let depth = bus.depth(&queue).await;
        depth.is_ok_and(|depth| depth.consumers == lanes)
    })
    .await;
}

#[tokio::test]
async fn a_lane_whose_agent_is_away_leaves_its_steps_to_others() {
    let (mut lane, bus, place, _running) = one_of_two_rests().await;
    lane.agent.release();
    for _ in 0..2 {
        let result = lane.result().await;
        assert!(matches!(result.outcome, Outcome::Completed { .. }));
    }
    assert_eq!(lane.agent.calls().len(), 2);
    // It goes on when its agent comes.
    let _there = TestAgent::start_at(place, vec![ok(json!(1))]).await;
    taken_by(&bus, 2).await;
}

#[tokio::test]
async fn a_lane_that_rests_goes_on_when_nobody_else_is_left() {
    let (mut lane, bus, _, _running) = one_of_two_rests().await;
    lane.shutdown.cancel();
    lane.agent.release();
    let result = lane.result().await;
    assert_eq!(result.step_id.as_str(), "s0");
    assert!(matches!(result.outcome, Outcome::Completed { .. }));
    // A step has to end with somebody.
    assert_eq!(lane.failure().await.0, "agent_unreachable");
    taken_by(&bus, 1).await;
}

#[tokio::test]
async fn a_step_that_was_sent_waited_and_holds_the_broker() {
    let mut lane = start(vec![Reply::Held], quick()).await;
    let mut sent = step("s");
    sent.timestamp = Timestamp::from_millis(Timestamp::now().millis() - 7_000).to_string();
    lane.step(&sent).await;
    lane.agent.was_called(1).await;
    let (_, metrics) = lane.admin("/metrics").await;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(
        value("agent_task_queue_wait_seconds_sum") >= 7.0,
        "{metrics}"
    );
    assert_eq!(value("agent_task_queue_wait_seconds_count"), 1.0);
    // RabbitMQ's half hour, less what has passed.
    let left = value("sidecar_ack_deadline_left_seconds");
    assert!(0.0 < left && left < 1800.0, "{left}");
    lane.agent.release();
    lane.result().await;
    lane.stop().await;
}
