//! Many deliveries settled at once, by many threads, in any order.

use crate::recovery::{connect, message, next, queue};
use futures_util::future::join_all;
use mesh_tests::rabbitmq::shared;
use mesh_tests::within;
use std::collections::HashMap;
use std::time::Duration;

const MESSAGES: usize = 6000;
const PREFETCH: u16 = 128;

/// An acknowledgement that the broker does not understand closes the channel, and everything on it
/// comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_is_settled_once() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    bus.declare(&queue("q")).await.unwrap();
    for part in 0..MESSAGES / 500 {
        let publishes = (0..500).map(|n| bus.publish(message("q", &(part * 500 + n).to_string())));
        for published in join_all(publishes).await {
            published.unwrap();
        }
    }
    let mut deliveries = bus.consume("q", PREFETCH).await.unwrap();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut settling = tokio::task::JoinSet::new();
    while seen.len() < MESSAGES {
        let delivery = next(&mut deliveries).await;
        let body = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        let number: usize = body.parse().unwrap();
        let count = seen.entry(body).or_default();
        *count += 1;
        // One in fifty goes back once, one in seven is slow, the others race.
        let (back, slow) = (
            *count == 1 && number.is_multiple_of(50),
            number.is_multiple_of(7),
        );
        settling.spawn(async move {
            if slow {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            if back {
                delivery.give_back().await.unwrap();
            } else {
                delivery.ack().await.unwrap();
            }
        });
    }
    let given_back = MESSAGES / 50;
    let again: usize = seen.values().map(|count| count - 1).sum();
    for _ in again..given_back {
        let delivery = next(&mut deliveries).await;
        assert!(delivery.redelivered);
        delivery.ack().await.unwrap();
    }
    while let Some(settled) = within("all to be settled", settling.join_next()).await {
        settled.unwrap();
    }
    // What comes now would be what the broker took back with a channel.
    bus.publish(message("q", "last")).await.unwrap();
    assert_eq!(next(&mut deliveries).await.message.body, "last");
    assert!(again <= given_back, "{again} came again");
}
