//! Between the store and the broker: a step that is stored goes out, and one that went out is marked.

use crate::mesh::{Ground, Mesh, answer_well, config, result_of, silence};
use async_trait::async_trait;
use mesh_bus::memory::MemoryBus;
use mesh_bus::{Bus, BusError, Deliveries, Depth, Message, Topology};
use mesh_protocol::names::EXCHANGE_TASKS;
use mesh_protocol::outcome::Outcome;
use mesh_tests::wait_for;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// A broker that takes steps and does not confirm them, or does not even take them.
struct Mute {
    bus: Arc<MemoryBus>,
    takes: bool,
    asked: AtomicUsize,
}

impl Mute {
    fn over(bus: &Arc<MemoryBus>, takes: bool) -> Arc<Self> {
        Arc::new(Self {
            bus: Arc::clone(bus),
            takes,
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Bus for Mute {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        self.bus.declare(topology).await
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        if message.exchange != EXCHANGE_TASKS {
            return self.bus.publish(message).await;
        }
        if self.takes {
            self.bus.publish(message).await?;
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        self.bus.consume(queue, prefetch).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BusError> {
        self.bus.depth(queue).await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.bus.connected()
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}

/// A task whose step was stored, and a mesh that stopped before the broker confirmed the step.
async fn cut_off(takes: bool) -> (Ground, String) {
    let ground = Ground::new();
    let mute = Mute::over(&ground.bus, takes);
    let mesh = Mesh::on_bus(config(), Arc::clone(&mute) as Arc<dyn Bus>, ground).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    wait_for("the step to be on its way", async || {
        mute.asked.load(Ordering::Relaxed) == 1
    })
    .await;
    let task = mesh.get_json(&format!("/task/{id}")).await;
    let step = &task["steps"]["data-processor"];
    assert_eq!(step["status"], "dispatched");
    assert!(step["dispatched_at"].is_string(), "{step}");
    assert_eq!(step["published_at"], Value::Null);
    (mesh.stop().await, id)
}

#[tokio::test]
async fn a_step_that_was_stored_and_not_published_goes_out() {
    let (ground, id) = cut_off(false).await;
    let mesh = Mesh::without_agents(config(), ground).await;
    let given = mesh.agent("data-processor", answer_well).await;
    assert_eq!(mesh.ended(&id).await["status"], "completed");
    assert_eq!(given.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_step_whose_confirm_was_not_stored_goes_out_as_the_same_message() {
    let (ground, id) = cut_off(true).await;
    let mesh = Mesh::without_agents(config(), ground).await;
    wait_for("the second message", async || {
        let depth = mesh.ground.bus.depth("agent.data_processor.tasks").await;
        depth.unwrap().messages == 2
    })
    .await;
    let given = mesh.agent("data-processor", answer_well).await;
    assert_eq!(mesh.ended(&id).await["status"], "completed");
    wait_for("both messages", async || given.lock().unwrap().len() == 2).await;
    let given = given.lock().unwrap();
    let key = Some(format!("{id}:data-processor"));
    for (_, properties) in given.iter() {
        assert_eq!(properties.idempotency_key, key);
        assert_eq!(properties.message_id, key);
    }
}

#[tokio::test]
async fn a_step_that_takes_its_time_is_marked_as_published() {
    let mesh = Mesh::without_agents(config(), Ground::new()).await;
    let given = mesh.agent("data-processor", silence).await;
    let id = mesh.submit(&json!({"task": "data_processing"})).await;
    let task = mesh
        .until(&format!("/task/{id}"), |task| {
            task["steps"]["data-processor"]["published_at"].is_string()
        })
        .await;
    assert_eq!(task["steps"]["data-processor"]["status"], "dispatched");
    let stored = mesh.ground.store.load(&id.parse().unwrap()).await;
    assert!(stored.unwrap().unwrap().steps[0].published_at.is_some());
    let (step, _) = given.lock().unwrap()[0].clone();
    let result = json!(1);
    mesh.publish_result(&result_of(&step, Outcome::Completed { result }))
        .await;
    let task = mesh.ended(&id).await;
    assert_eq!(task["status"], "completed");
    assert!(task["steps"]["data-processor"]["published_at"].is_string());
}
