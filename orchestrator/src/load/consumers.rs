//! How many sidecars consume each agent's queue: what the broker says, asked at most once a second however
//! many gateways want to know.

use crate::metrics::Metrics;
use futures_util::StreamExt;
use mesh_bus::{Bus, BusError, Depth};
use mesh_protocol::AgentId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long things last here.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// How long an answer is good.
    fresh: Duration,
    /// How long an agent keeps the number that was heard last, while the broker does not answer.
    last_known: Duration,
    /// Time for the broker to answer about all queues.
    patience: Duration,
}

const TIMES: Times = Times {
    fresh: Duration::from_secs(1),
    // RabbitMQ takes some ten seconds to start.
    last_known: Duration::from_secs(30),
    patience: Duration::from_secs(1),
};

/// Questions to the broker at the same time; each has a channel of its own.
const AT_ONCE: usize = 8;

pub(super) struct Consumers {
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
    agents: Vec<AgentId>,
    times: Times,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    asked: Option<Instant>,
    heard: HashMap<AgentId, (Instant, Depth)>,
}

impl Consumers {
    pub(super) fn new(bus: Arc<dyn Bus>, agents: Vec<AgentId>, metrics: Arc<Metrics>) -> Self {
        Self {
            bus,
            metrics,
            agents,
            times: TIMES,
            seen: Mutex::default(),
        }
    }

    /// By agent; without those of which the broker has not told for a while.
    pub(super) async fn count(&self) -> BTreeMap<AgentId, u32> {
        let depths = self.depths().await.into_iter();
        depths
            .map(|(agent, depth)| (agent, depth.consumers))
            .collect()
    }

    /// Likewise, with how many messages wait.
    pub(super) async fn depths(&self) -> BTreeMap<AgentId, Depth> {
        // Whoever comes meanwhile waits here for the same answer.
        let mut seen = self.seen.lock().await;
        if seen
            .asked
            .is_none_or(|asked| asked.elapsed() >= self.times.fresh)
        {
            self.ask(&mut seen).await;
            seen.asked = Some(Instant::now());
        }
        seen.heard
            .retain(|_, (at, _)| at.elapsed() < self.times.last_known);
        seen.heard
            .iter()
            .map(|(agent, (_, depth))| (agent.clone(), *depth))
            .collect()
    }

    async fn ask(&self, seen: &mut Seen) {
        let looks = self.agents.iter().cloned().map(|agent| {
            let bus = Arc::clone(&self.bus);
            async move {
                let depth = bus.depth(&agent.task_queue()).await;
                (agent, depth)
            }
        });
        let mut looks = std::pin::pin!(futures_util::stream::iter(looks).buffer_unordered(AT_ONCE));
        let until = Instant::now() + self.times.patience;
        loop {
            let (agent, depth) = match tokio::time::timeout_at(until, looks.next()).await {
                Ok(None) => return,
                Ok(Some((agent, Ok(depth)))) => (agent, depth),
                // Not declared yet, or deleted: nobody works.
                Ok(Some((agent, Err(BusError::NoQueue { .. })))) => {
                    let nothing = Depth {
                        messages: 0,
                        consumers: 0,
                    };
                    (agent, nothing)
                }
                Ok(Some((agent, Err(error)))) => {
                    self.metrics.bus_error("depth");
                    tracing::debug!(%agent, %error, "its queue cannot be looked at");
                    continue;
                }
                Err(_) => {
                    self.metrics.bus_error("depth");
                    tracing::debug!("the broker does not answer about all queues in time");
                    return;
                }
            };
            seen.heard.insert(agent, (Instant::now(), depth));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use mesh_bus::{Deliveries, Message, Topology};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::watch;

    /// A broker that answers as it is told, and counts.
    #[derive(Default)]
    struct Told {
        asked: AtomicU32,
        silent: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl Bus for Told {
        async fn declare(&self, _: &Topology) -> Result<(), BusError> {
            unreachable!("nothing is declared here")
        }

        async fn publish(&self, _: Message) -> Result<(), BusError> {
            unreachable!("nothing is published here")
        }

        async fn consume(&self, _: &str, _: u16) -> Result<Deliveries, BusError> {
            unreachable!("nothing is consumed here")
        }

        async fn depth(&self, queue: &str) -> Result<Depth, BusError> {
            if self.silent.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let consumers = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if queue == "agent.gone.tasks" {
                let queue = queue.to_owned();
                return Err(BusError::NoQueue { queue });
            }
            Ok(Depth {
                messages: 0,
                consumers,
            })
        }

        fn connected(&self) -> watch::Receiver<bool> {
            watch::channel(true).1
        }

        async fn close(&self) {}
    }

    fn consumers(bus: &Arc<Told>, agents: &[&str]) -> Consumers {
        let agents = agents.iter().map(|a| a.parse().unwrap()).collect();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Consumers::new(Arc::clone(bus) as Arc<dyn Bus>, agents, Arc::new(metrics))
    }

    const NEVER: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn many_questions_are_one_to_the_broker() {
        let bus = Arc::new(Told::default());
        let mut consumers = consumers(&bus, &["a", "gone"]);
        (consumers.times.fresh, consumers.times.patience) = (NEVER, NEVER);
        let answers = futures_util::future::join_all((0..50).map(|_| consumers.count())).await;
        assert_eq!(bus.asked.load(Ordering::Relaxed), 2);
        let gone: AgentId = "gone".parse().unwrap();
        for answer in answers {
            assert_eq!((answer.len(), answer[&gone]), (2, 0));
        }
        consumers.times.fresh = Duration::ZERO;
        consumers.count().await;
        assert_eq!(bus.asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_silent_broker_leaves_what_was_known_and_then_nothing() {
        let bus = Arc::new(Told::default());
        let mut consumers = consumers(&bus, &["a"]);
        consumers.times = Times {
            fresh: Duration::ZERO,
            last_known: NEVER,
            patience: NEVER,
        };
        let a: AgentId = "a".parse().unwrap();
        assert_eq!(consumers.count().await[&a], 1);
        bus.silent.store(true, Ordering::Relaxed);
        consumers.times.patience = Duration::from_millis(1);
        assert_eq!(consumers.count().await[&a], 1);
        consumers.times.last_known = Duration::ZERO;
        assert!(consumers.count().await.is_empty());
        bus.silent.store(false, Ordering::Relaxed);
        (consumers.times.last_known, consumers.times.patience) = (NEVER, NEVER);
        assert_eq!(consumers.count().await[&a], 2);
    }
}
