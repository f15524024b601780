//! The suite that every backend passes: what callers may rely on.
//!
//! A case gets a way to connect to one broker that is its own and empty at first; each call makes a
//! further connection. [`bus_contract!`](crate::bus_contract) turns the cases into tests.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the cases run in tests only; their names say what holds"
)]

mod delivery;
mod later;
mod routing;

pub use delivery::*;
pub use later::*;
pub use routing::*;

use crate::{
    Binding, Bus, Deliveries, Delivery, Exchange, ExchangeKind, Message, Queue, QueueKind, Topology,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Makes a further connection to the case's broker.
pub type Connect = dyn Fn() -> BoxFuture<'static, Arc<dyn Bus>> + Send + Sync;

/// Makes a test of each case. `$connect` is an `async fn() -> Box<Connect>` that makes a broker.
#[macro_export]
macro_rules! bus_contract {
    ($connect:path) => {
        $crate::bus_contract! { $connect:
            topics_route_by_pattern, fanout_reaches_every_queue, direct_routes_by_equal_key,
            the_default_exchange_routes_by_queue, both_spellings_of_an_agent_arrive,
            a_message_arrives_once_however_many_bindings_match, declaring_again_changes_nothing,
            another_exchange_kind_is_a_mismatch, another_queue_kind_is_a_mismatch,
            other_dead_letters_are_a_mismatch, a_binding_needs_both_ends,
            an_unroutable_message_is_reported, an_unknown_exchange_is_unroutable,
            unroutable_messages_are_told_apart, a_reply_address_that_leads_nowhere_holds_nothing_up,
            a_confirmed_message_stays,
            a_message_that_is_too_large_is_refused, bodies_arrive_whole,
            properties_arrive_as_sent, a_missing_queue_is_named,
            prefetch_bounds_what_is_unsettled, an_acknowledged_message_is_gone,
            what_is_given_back_comes_again, what_is_dropped_comes_again,
            a_dead_letter_carries_its_reason, the_longest_headers_stay_beside_a_dead_letter,
            a_dead_letter_needs_a_place,
            a_stopped_consumer_returns_what_it_did_not_hand_out,
            a_dropped_consumer_returns_everything, consumers_share_a_queue,
            urgent_messages_come_first, tasks_come_from_the_intake_by_priority, what_comes_back_too_often_is_dead_lettered,
            a_closed_bus_returns_everything, a_look_at_a_queue_says_how_busy_it_is,
            a_look_at_no_queue_says_so,
            what_is_put_off_comes_back_later, what_waits_long_holds_up_nothing,
            a_delay_has_to_be_declared, a_dead_letter_tells_what_befell_it,
            a_dead_letter_is_replayed, dead_letters_stay_however_often_they_are_looked_at,
            whoever_ends_is_counted, a_full_queue_refuses_and_drops_nothing,
        }
    };
    ($connect:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            $crate::contract::$case(&*$connect().await).await;
        }
    )*};
}

/// Far more than anything here takes, for a machine that is shared.
const GENEROUS: Duration = Duration::from_secs(60);

fn exchange(name: &str, kind: ExchangeKind) -> Topology {
    Topology {
        exchanges: vec![Exchange {
            name: name.to_owned(),
            kind,
        }],
        ..Topology::default()
    }
}

fn queue(name: &str, kind: QueueKind) -> Topology {
    Topology {
        queues: vec![Queue {
            name: name.to_owned(),
            kind,
            dead_letters: false,
        }],
        ..Topology::default()
    }
}

fn bound(mut topology: Topology, queue: &str, key: &str) -> Topology {
    let exchange = topology.exchanges.last().unwrap().name.clone();
    let known = topology.queues.iter().any(|known| known.name == queue);
    if !known {
        topology
            .queues
            .extend(self::queue(queue, QueueKind::Classic).queues);
    }
    topology.bindings.push(Binding {
        exchange,
        queue: queue.to_owned(),
        key: key.to_owned(),
    });
    topology
}

/// A queue `q` of `kind` whose dead letters go to the queue `dead`.
fn with_dead_letters(kind: QueueKind) -> Topology {
    let mut topology = exchange(mesh_protocol::names::EXCHANGE_DEAD, ExchangeKind::Direct);
    topology.queues.push(Queue {
        name: "q".to_owned(),
        kind,
        dead_letters: true,
    });
    bound(topology, "dead", "q")
}

fn message(exchange: &str, key: &str, body: &str) -> Message {
    Message {
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        body: body.to_owned().into(),
        mandatory: true,
        ..Message::default()
    }
}

async fn put(bus: &dyn Bus, queue: &str, body: &str) {
    bus.publish(message("", queue, body)).await.unwrap();
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    tokio::time::timeout(GENEROUS, deliveries.next())
        .await
        .expect("a delivery comes")
        .expect("the consumer goes on")
}

fn body(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.message.body).unwrap()
}

/// Takes and acknowledges the `count` next messages of `queue`; their bodies, sorted.
async fn drain(bus: &dyn Bus, queue: &str, count: usize) -> Vec<String> {
    let mut deliveries = bus.consume(queue, 10).await.unwrap();
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut deliveries).await;
        bodies.push(body(&delivery).to_owned());
        delivery.ack().await.unwrap();
    }
    bodies.sort();
    bodies
}

/// Whether nothing is left in `queue`: a marker that is put behind comes first.
async fn is_empty(bus: &dyn Bus, queue: &str) -> bool {
    put(bus, queue, "marker").await;
    drain(bus, queue, 1).await == ["marker"]
}
