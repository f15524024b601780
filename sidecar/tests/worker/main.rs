//! The lane over the memory bus, with agents of every kind of behaviour.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod absence;
#[path = "../lane/mod.rs"]
mod lane;
mod older;

use lane::{Lane, Reply, TestAgent, agent_id, config, deps, ok, quick, step};
use mesh_bus::Properties;
use mesh_bus::memory::MemoryBus;
use mesh_protocol::Timestamp;
use mesh_protocol::names::EXCHANGE_COORDINATION;
use mesh_protocol::outcome::Outcome;
use mesh_sidecar::config::Worker;
use mesh_tests::{wait_for, within};
use mesh_trace::{Context, Tracer};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

async fn start(script: Vec<Reply>, worker: Worker) -> Lane {
    Lane::start(Arc::new(MemoryBus::new()), script, worker).await
}

#[tokio::test]
async fn a_step_goes_to_the_agent_and_its_answer_comes_back_untouched() {
    let mut lane = start(vec![ok(json!({"sum": 1.50}))], quick()).await;
    let properties = Properties {
        idempotency_key: Some("key-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        tracestate: Some("a=b".into()),
        ..Properties::default()
    };
    lane.publish(serde_json::to_vec(&step("s")).unwrap(), properties.clone())
        .await;
    let delivery = within("a result", lane.results.next()).await.unwrap();
    assert_eq!(
        delivery.message.properties.correlation_id.as_deref(),
        Some("t")
    );
    assert_eq!(
        delivery.message.properties.traceparent,
        properties.traceparent
    );
    let result: serde_json::Value = serde_json::from_slice(&delivery.message.body).unwrap();
    assert_eq!(result["status"], "completed");
    assert_eq!(result["result"], json!({"sum": 1.5}));
    assert_eq!(
        (&result["step_id"], &result["attempts"]),
        (&json!("s"), &json!(1))
    );
    let call = lane.agent.calls().remove(0);
    assert_eq!(
        call.body,
        json!({"task_id": "t", "step_id": "s", "role": "r", "action": "Process x",
            "payload": {"n": 1}, "incoming_data": {"s0": {"agent": "b", "data": [1]}}})
    );
    assert_eq!(call.headers["idempotency-key"], "key-1");
    assert_eq!(call.headers["traceparent"], properties.traceparent.unwrap());
    assert_eq!(call.headers["tracestate"], "a=b");
    assert_eq!(call.headers["content-type"], "application/json");
    lane.stop().await;
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let script = vec![
        Reply::Answer(503, "", b"busy".to_vec()),
        Reply::Answer(429, "Retry-After: 0\r\n", vec![]),
        Reply::Close,
        Reply::Answer(408, "", vec![]),
        ok(json!(1)),
    ];
    let worker = Worker {
        max_attempts: 5,
        ..quick()
    };
    let mut lane = start(script, worker).await;
    lane.step(&step("s")).await;
    let result = lane.result().await;
    assert_eq!(result.attempts, 5);
    assert_eq!(result.outcome, Outcome::Completed { result: json!(1) });
    let keys: Vec<_> = lane
        .agent
        .calls()
        .iter()
        .map(|c| c.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys, ["t:s"; 5]);
    lane.stop().await;
}

#[tokio::test]
async fn each_failure_says_what_it_is() {
    let answers = |status, body: &str| Reply::Answer(status, "", body.as_bytes().to_vec());
    let five_megabytes = format!("\"{}\"", "x".repeat(5 * 1024 * 1024));
    for (reply, code, detail, attempts) in [
        (
            answers(422, "no\u{1} such column"),
            "agent_status",
            "422",
            1,
        ),
        (answers(302, ""), "agent_status", "302", 1),
        (answers(500, "boom"), "agent_status", "boom", 3),
        (answers(200, "<html>"), "agent_answer", "<html>", 1),
        (answers(200, ""), "agent_answer", "no body", 1),
        (
            answers(200, &five_megabytes),
            "agent_answer",
            "4194304 bytes",
            1,
        ),
        (answers(200, &"[".repeat(500)), "agent_answer", "nested", 1),
        (answers(404, &five_megabytes), "agent_status", "xxx", 1),
        (Reply::CutOff, "agent_answer", "cut off", 1),
        (Reply::Forever, "agent_answer", "4194304 bytes", 1),
        (Reply::Close, "agent_unreachable", "reached", 3),
    ] {
        let mut lane = start(vec![reply], quick()).await;
        lane.step(&step("s")).await;
        let failure = lane.failure().await;
        assert_eq!(
            (failure.0.as_str(), failure.2),
            (code, attempts),
            "{failure:?}"
        );
        assert!(failure.1.contains(detail), "{failure:?}");
        assert!(!failure.1.contains(char::is_control) && failure.1.len() < 400);
        lane.stop().await;
    }
}

#[tokio::test]
async fn with_traces_the_agent_is_told_of_its_call_and_the_orchestrator_of_the_step() {
    // Nobody receives the spans, which is nobody's concern.
    let traces = mesh_trace::Config {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        ..mesh_trace::Config::default()
    };
    let tracer = Tracer::new("tested", &traces).unwrap();
    let script = vec![Reply::Answer(503, "", Vec::new()), ok(json!(1))];
    let agent = TestAgent::start(script).await;
    let config = config(agent.address, quick());
    let given = mesh_sidecar::Deps { tracer, ..deps() };
    let mut lane = Lane::given(Arc::new(MemoryBus::new()), agent, config, given).await;
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let properties = Properties {
        traceparent: Some(sent.into()),
        tracestate: Some("a=b".into()),
        ..Properties::default()
    };
    lane.publish(serde_json::to_vec(&step("s")).unwrap(), properties)
        .await;
    let delivery = within("a result", lane.results.next()).await.unwrap();
    let place =
        |parent: Option<&str>, state: Option<&str>| Context::parse(parent.unwrap(), state).unwrap();
    let properties = &delivery.message.properties;
    let mut places = vec![
        place(Some(sent), Some("a=b")),
        place(
            properties.traceparent.as_deref(),
            properties.tracestate.as_deref(),
        ),
    ];
    for call in lane.agent.calls() {
        let header = |name: &str| call.headers.get(name).map(String::as_str);
        places.push(place(header("traceparent"), header("tracestate")));
    }
    // The sender's, the step's, and one of each call.
    assert_eq!(places.len(), 4);
    let first = places[0].clone();
    assert!(
        places
            .iter()
            .all(|p| p.trace_id == first.trace_id && p.state == first.state)
    );
    let mut spans: Vec<_> = places.iter().map(|p| p.span_id).collect();
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 4);
    delivery.ack().await.unwrap();
    let (_, metrics) = lane.admin("/metrics").await;
    assert!(metrics.contains("trace_spans_total"), "{metrics}");
    lane.stop().await;
}

#[tokio::test]
async fn a_slow_agent_is_given_up_and_asked_again() {
    let worker = Worker {
        timeout_ms: 50,
        max_attempts: 2,
        ..quick()
    };
    let mut lane = start(vec![Reply::Held], worker).await;
    lane.step(&step("s")).await;
    let (code, detail, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("agent_timeout", 2));
    assert!(detail.contains("50 ms"), "{detail}");
    lane.stop().await;
}

#[tokio::test]
async fn a_deadline_bounds_everything() {
    let mut lane = start(vec![Reply::Held], quick()).await;
    let mut late = step("late");
    late.deadline_ms = Some(Timestamp::now().millis() - 1);
    lane.step(&late).await;
    let (code, _, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("deadline_exceeded", 0));
    assert!(lane.agent.calls().is_empty());

    let mut short = step("short");
    short.deadline_ms = Some(Timestamp::now().plus(Duration::from_millis(100)).millis());
    lane.step(&short).await;
    let (code, _, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("deadline_exceeded", 1));
    lane.stop().await;

    // No time for the pause that the agent asks for: its own answer stands.
    let busy = Reply::Answer(503, "Retry-After: 25\r\n", b"later".to_vec());
    let mut lane = start(vec![busy], quick()).await;
    let mut soon = step("soon");
    soon.deadline_ms = Some(Timestamp::now().plus(Duration::from_secs(20)).millis());
    lane.step(&soon).await;
    let (code, detail, attempts) = lane.failure().await;
    assert_eq!((code.as_str(), attempts), ("agent_status", 1));
    assert!(
        detail.contains("503") && detail.contains("no time"),
        "{detail}"
    );
    lane.stop().await;
}

#[tokio::test]
async fn garbage_is_put_aside_and_the_lane_goes_on() {
    let mut lane = start(vec![ok(json!(1))], quick()).await;
    for (body, why) in [
        (&b"not json"[..], "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{}", "task_id is missing"),
        (
            br#"{"task_id":"t","agent":"other","action":"a"}"#,
            "lay in the queue",
        ),
    ] {
        lane.publish(body, Properties::default()).await;
        let (reason, kept) = lane.dead_letter().await;
        assert!(reason.contains(why), "{reason}");
        assert_eq!(kept, body);
    }
    lane.step(&step("s")).await;
    lane.result().await;
    let (_, metrics) = lane.admin("/metrics").await;
    let line = r#"sidecar_dead_letters_total{agent="data-processor",reason="message"} 4"#;
    assert!(metrics.contains(line), "{metrics}");
    lane.stop().await;
}

#[tokio::test]
async fn results_go_where_the_step_wants_them() {
    let mut lane = start(vec![ok(json!(1))], quick()).await;
    let body = serde_json::to_vec(&step("s")).unwrap();
    let to = |queue: &str| Properties {
        reply_to: Some(queue.to_owned()),
        ..Properties::default()
    };
    // A queue of the mesh is reached over its exchange, and any other by its name.
    lane.publish(body.clone(), to("agent.orchestrator.coordination"))
        .await;
    let delivery = within("a result", lane.results.next()).await.unwrap();
    assert_eq!(delivery.message.exchange, EXCHANGE_COORDINATION);
    lane.publish(body.clone(), to("nowhere")).await;
    let (reason, kept) = lane.dead_letter().await;
    assert!(reason.contains("no queue takes nowhere"), "{reason}");
    assert_eq!(kept, body);
    lane.stop().await;
}

#[tokio::test]
async fn a_repeated_step_is_answered_without_the_agent() {
    let mut lane = start(vec![Reply::Held], quick()).await;
    lane.step(&step("s")).await;
    lane.agent.was_called(1).await;
    // While it is at the agent, and after.
    lane.step(&step("s")).await;
    wait_for("the second to join", || async {
        lane.admin("/metrics")
            .await
            .1
            .contains("sidecar_repeats_total{agent=\"data-processor\"} 1")
    })
    .await;
    lane.agent.release();
    let first = lane.result().await;
    assert_eq!(lane.result().await, first);
    lane.step(&step("s")).await;
    assert_eq!(lane.result().await, first);
    assert_eq!(lane.agent.calls().len(), 1);
    lane.stop().await;
}

#[tokio::test]
async fn a_failure_of_the_moment_is_not_remembered() {
    let script = vec![Reply::Answer(500, "", vec![]), ok(json!(2))];
    let worker = Worker {
        max_attempts: 1,
        ..quick()
    };
    let mut lane = start(script, worker).await;
    lane.step(&step("s")).await;
    assert_eq!(lane.failure().await.0, "agent_status");
    lane.step(&step("s")).await;
    assert_eq!(
        lane.result().await.outcome,
        Outcome::Completed { result: json!(2) }
    );
    lane.stop().await;
}

#[tokio::test]
async fn no_more_steps_are_at_the_agent_than_allowed() {
    let worker = Worker {
        concurrency: 3,
        ..quick()
    };
    let mut lane = start(vec![Reply::Held], worker).await;
    for n in 0..10 {
        lane.step(&step(&format!("s{n}"))).await;
    }
    lane.agent.was_called(3).await;
    lane.agent.release();
    for _ in 0..10 {
        lane.result().await;
    }
    assert_eq!(lane.agent.most_at_once(), 3);
    lane.stop().await;
}

#[tokio::test]
async fn a_drain_finishes_what_was_begun() {
    let worker = Worker {
        concurrency: 1,
        ..quick()
    };
    let mut lane = start(vec![Reply::Held], worker).await;
    lane.step(&step("begun")).await;
    lane.agent.was_called(1).await;
    lane.step(&step("waiting")).await;
    lane.shutdown.cancel();
    wait_for("the drain to show", || async {
        lane.admin("/ready").await.1.contains("draining")
    })
    .await;
    lane.agent.release();
    assert_eq!(lane.result().await.step_id.as_str(), "begun");
    within("the drain", &mut lane.running).await.unwrap();
    assert_eq!(lane.agent.calls().len(), 1);
    let mut left = lane.bus.consume(&agent_id().task_queue(), 1).await.unwrap();
    let left = within("the waiting step", left.next()).await.unwrap();
    assert!(left.message.body.windows(7).any(|w| w == b"waiting"));
}

#[tokio::test]
async fn a_drain_gives_back_what_takes_too_long() {
    let mut lane = lane::Lane::draining(Arc::new(MemoryBus::new()), vec![Reply::Held], 50).await;
    lane.step(&step("slow")).await;
    lane.agent.was_called(1).await;
    lane.shutdown.cancel();
    within("the drain", &mut lane.running).await.unwrap();
    let mut left = lane.bus.consume(&agent_id().task_queue(), 1).await.unwrap();
    let left = within("the slow step", left.next()).await.unwrap();
    assert!(left.redelivered);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_whole() {
    let agent = TestAgent::start(vec![ok(json!(1))]).await;
    let mut config = lane::config(agent.address, quick());
    config.worker.as_mut().unwrap().concurrency = 0;
    config.app.as_mut().unwrap().url = "https://agent.example".into();
    let deps = mesh_sidecar::Deps {
        bus: Some(Arc::new(MemoryBus::new())),
        ..lane::deps()
    };
    let error = mesh_sidecar::build(config, deps)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("concurrency") && error.contains("http://"),
        "{error}"
    );
}
