//! What every hub does, whatever it is made of.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the cases run in tests only"
)]

use super::{
    Bounds, Cursor, Hold, Hub, HubError, Letter, MAX_REGISTERED, PAGE, Posted, REMEMBERED,
    Receivers, Registration, Wake, active, now, perfect,
};
use bytes::Bytes;
use futures_util::StreamExt;
use mesh_protocol::AgentId;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs every case on hubs that `make` returns, each empty at first.
///
/// # Panics
/// When the hub breaks the contract.
pub async fn all<M, F>(make: M)
where
    M: Fn(Bounds) -> F,
    F: Future<Output = Arc<dyn Hub>>,
{
    let usual = Bounds::default();
    registrations_take_the_place_of_earlier_ones(&*make(usual).await).await;
    so_many_agents_and_no_more(&*make(usual).await).await;
    letters_come_in_their_order_until_they_are_acknowledged(&*make(usual).await).await;
    the_others_get_what_is_for_all(&*make(usual).await).await;
    a_cursor_is_a_place_to_go_on_from(&*make(usual).await).await;
    the_newest_connection_is_the_one(&*make(usual).await).await;
    a_letter_that_is_sent_again_is_stored_once(&*make(usual).await).await;
    many_letters_come_in_pages(&*make(usual).await).await;
    listeners_hear(&*make(usual).await).await;
    senders_at_the_same_time_keep_their_order(make(usual).await).await;
    let few = Bounds {
        letters: 3,
        bytes: 100,
        ..usual
    };
    a_full_mailbox_takes_nothing_and_nobody_gets_a_part(&*make(few).await).await;
    let short = Bounds {
        presence_ms: 200,
        life_ms: 60_000,
        ..usual
    };
    the_silent_are_not_present(&*make(short).await).await;
    let shorter = Bounds {
        presence_ms: 100,
        life_ms: 300,
        ..usual
    };
    a_mailbox_is_forgotten_in_the_end(&*make(shorter).await).await;
}

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

fn letter(id: &str, to: Option<&str>) -> Letter {
    Letter {
        id: id.to_owned(),
        to: to.map_or(Receivers::Others, |to| Receivers::One(agent(to))),
        body: Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
    }
}

async fn joined(hub: &dyn Hub, name: &str) -> Hold {
    let hold = Hold::new(agent(name));
    hub.take(&hold, None).await.unwrap();
    hold
}

async fn ids(hub: &dyn Hub, hold: &Hold) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = 0;
    loop {
        let page = hub.read(hold, after).await.unwrap();
        let Some((last, _)) = page.last() else {
            return ids;
        };
        after = *last;
        ids.extend(page.iter().map(|(_, body)| {
            let value: serde_json::Value = serde_json::from_slice(body).unwrap();
            value["id"].as_str().unwrap().to_owned()
        }));
    }
}

fn stored(receivers: u64, deepest: u64) -> Posted {
    Posted::Stored { receivers, deepest }
}

fn registration(capability: &str) -> Registration {
    Registration {
        capabilities: vec![capability.to_owned()],
        status: active(),
        registered_at: now(),
        workload: 3,
        performance_score: perfect(),
    }
}

async fn registrations_take_the_place_of_earlier_ones(hub: &dyn Hub) {
    assert!(hub.registered().await.unwrap().is_empty());
    for (name, capability) in [("a", "x"), ("b", "y"), ("a", "z")] {
        let said = registration(capability);
        assert!(hub.register(&agent(name), &said).await.unwrap());
        assert_eq!(hub.registered().await.unwrap()[&agent(name)], said);
    }
    assert_eq!(hub.registered().await.unwrap().len(), 2);
    for (name, is) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(hub.is_registered(&agent(name)).await.unwrap(), is, "{name}");
    }
}

async fn so_many_agents_and_no_more(hub: &dyn Hub) {
    let said = registration("x");
    for number in 0..MAX_REGISTERED {
        let agent = agent(&format!("a{number}"));
        assert!(hub.register(&agent, &said).await.unwrap());
    }
    assert!(!hub.register(&agent("one-more"), &said).await.unwrap());
    assert!(hub.register(&agent("a7"), &said).await.unwrap());
    assert_eq!(hub.registered().await.unwrap().len(), MAX_REGISTERED);
}

async fn letters_come_in_their_order_until_they_are_acknowledged(hub: &dyn Hub) {
    let (a, b) = (joined(hub, "a").await, joined(hub, "b").await);
    for number in 1..=3 {
        let posted = hub.post(&a, &letter(&number.to_string(), Some("b"))).await;
        assert_eq!(posted.unwrap(), stored(1, number));
    }
    assert_eq!(ids(hub, &b).await, ["1", "2", "3"]);
    assert_eq!(ids(hub, &b).await, ["1", "2", "3"]);
    let second = hub.read(&b, 0).await.unwrap()[1].0;
    assert_eq!(hub.acknowledge(&b, second).await.unwrap(), 1);
    assert_eq!(hub.acknowledge(&b, second).await.unwrap(), 1);
    assert_eq!(ids(hub, &b).await, ["3"]);
    assert!(ids(hub, &a).await.is_empty());
    // Beyond the end is all there is, and nothing of what comes.
    assert_eq!(hub.acknowledge(&b, u64::from(u32::MAX)).await.unwrap(), 0);
    hub.post(&a, &letter("4", Some("b"))).await.unwrap();
    assert_eq!(ids(hub, &b).await, ["4"]);
}

async fn the_others_get_what_is_for_all(hub: &dyn Hub) {
    let a = joined(hub, "a").await;
    assert_eq!(
        hub.post(&a, &letter("0", None)).await.unwrap(),
        stored(0, 0)
    );
    let nowhere = hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    assert_eq!(nowhere, Posted::NoMailbox);
    let (b, c) = (joined(hub, "b").await, joined(hub, "c").await);
    // The mailbox outlives the connection.
    hub.leave(&c).await.unwrap();
    assert_eq!(
        hub.post(&a, &letter("1", None)).await.unwrap(),
        stored(2, 1)
    );
    let c = joined(hub, "c").await;
    assert_eq!(ids(hub, &b).await, ["1"]);
    assert_eq!(ids(hub, &c).await, ["1"]);
    assert!(ids(hub, &a).await.is_empty());
}

async fn a_cursor_is_a_place_to_go_on_from(hub: &dyn Hub) {
    let (a, b) = (joined(hub, "a").await, Hold::new(agent("b")));
    let taken = hub.take(&b, None).await.unwrap();
    assert!(!taken.resumed);
    assert_eq!((taken.waiting, taken.cursor.letter), (0, 0));
    for id in ["1", "2", "3"] {
        hub.post(&a, &letter(id, Some("b"))).await.unwrap();
    }
    let at = |place: usize| {
        let mailbox = taken.cursor.mailbox.clone();
        async move {
            let letter = hub.read(&b, 0).await.unwrap()[place].0;
            Cursor { mailbox, letter }
        }
    };
    let first = at(0).await;
    let again = Hold::new(agent("b"));
    let taken = hub.take(&again, Some(&first)).await.unwrap();
    assert!(taken.resumed);
    assert_eq!((taken.waiting, &taken.cursor), (2, &first));
    assert_eq!(ids(hub, &again).await, ["2", "3"]);
    // From the same place again: nothing has left the mailbox since.
    let again = Hold::new(agent("b"));
    let taken = hub.take(&again, Some(&first)).await.unwrap();
    assert_eq!((taken.resumed, taken.waiting), (true, 2));
    // Of another mailbox, or of a letter that never was: nothing is taken out for it.
    for odd in [
        Cursor {
            mailbox: "0123456789abcdef".to_owned(),
            letter: 2,
        },
        Cursor {
            letter: 99,
            ..first.clone()
        },
    ] {
        let hold = Hold::new(agent("b"));
        let taken = hub.take(&hold, Some(&odd)).await.unwrap();
        assert!(!taken.resumed);
        assert_eq!((taken.waiting, &taken.cursor), (2, &first));
    }
}

async fn the_newest_connection_is_the_one(hub: &dyn Hub) {
    let (old, b) = (joined(hub, "a").await, joined(hub, "b").await);
    let new = joined(hub, "a").await;
    let replaced = |answer: Result<(), HubError>| {
        assert!(matches!(answer, Err(HubError::Replaced)), "{answer:?}");
    };
    replaced(hub.renew(&old).await);
    replaced(hub.post(&old, &letter("1", Some("b"))).await.map(drop));
    replaced(hub.read(&old, 0).await.map(drop));
    replaced(hub.acknowledge(&old, 1).await.map(drop));
    // It leaves, and the other one stays.
    hub.leave(&old).await.unwrap();
    assert!(hub.present().await.unwrap().contains(&agent("a")));
    hub.renew(&new).await.unwrap();
    assert!(ids(hub, &b).await.is_empty());
    let nobody = Hold::new(agent("nobody"));
    assert!(matches!(hub.renew(&nobody).await, Err(HubError::Gone)));
    assert!(matches!(hub.read(&nobody, 0).await, Err(HubError::Gone)));
    hub.leave(&new).await.unwrap();
    hub.leave(&nobody).await.unwrap();
    assert_eq!(hub.present().await.unwrap(), [agent("b")].into());
}

async fn a_letter_that_is_sent_again_is_stored_once(hub: &dyn Hub) {
    let (a, b) = (joined(hub, "a").await, joined(hub, "b").await);
    hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    // Over another connection, too: the acknowledgement was lost with the first.
    let a = {
        hub.leave(&a).await.unwrap();
        joined(hub, "a").await
    };
    let again = hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    assert_eq!(again, Posted::Repeated);
    // Another sender's id is another's.
    assert_eq!(
        hub.post(&b, &letter("1", Some("b"))).await.unwrap(),
        stored(1, 2)
    );
    let latest = ids(hub, &b).await.len();
    assert_eq!(latest, 2);
    for number in 0..REMEMBERED {
        // To the others, of whom there is one that takes everything out at once.
        let posted = hub
            .post(&a, &letter(&format!("n{number}"), Some("b")))
            .await;
        assert!(matches!(posted.unwrap(), Posted::Stored { .. }));
        let last = hub.read(&b, 0).await.unwrap().last().unwrap().0;
        hub.acknowledge(&b, last).await.unwrap();
    }
    // The oldest make room.
    assert_eq!(
        hub.post(&a, &letter("1", Some("b"))).await.unwrap(),
        stored(1, 1)
    );
    let last = format!("n{}", REMEMBERED - 1);
    assert_eq!(
        hub.post(&a, &letter(&last, Some("b"))).await.unwrap(),
        Posted::Repeated
    );
}

async fn many_letters_come_in_pages(hub: &dyn Hub) {
    let (a, b) = (joined(hub, "a").await, joined(hub, "b").await);
    let wanted: Vec<String> = (0..PAGE * 2 + 7).map(|number| number.to_string()).collect();
    for id in &wanted {
        hub.post(&a, &letter(id, None)).await.unwrap();
    }
    assert_eq!(hub.read(&b, 0).await.unwrap().len(), PAGE);
    assert_eq!(ids(hub, &b).await, wanted);
}

async fn listeners_hear(hub: &dyn Hub) {
    let a = joined(hub, "a").await;
    let mut wakes = hub.listen().await.unwrap();
    let _b = joined(hub, "b").await;
    let mut until = async |wanted: Wake| {
        let heard = async { while wakes.next().await.unwrap() != wanted {} };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
    };
    until(Wake::Agent(agent("b"))).await;
    until(Wake::Presence).await;
    hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    until(Wake::Agent(agent("b"))).await;
    hub.leave(&a).await.unwrap();
    until(Wake::Presence).await;
}

async fn senders_at_the_same_time_keep_their_order(hub: Arc<dyn Hub>) {
    let receiver = joined(&*hub, "receiver").await;
    let senders = ["a", "b", "c", "d"].map(|name| {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let hold = joined(&*hub, name).await;
            for number in 0..50 {
                let id = format!("{name}{number}");
                hub.post(&hold, &letter(&id, Some("receiver")))
                    .await
                    .unwrap();
            }
        })
    });
    for sender in senders {
        sender.await.unwrap();
    }
    let all = ids(&*hub, &receiver).await;
    assert_eq!(all.len(), 200);
    for name in ["a", "b", "c", "d"] {
        let of: Vec<&String> = all.iter().filter(|id| id.starts_with(name)).collect();
        let wanted: Vec<String> = (0..50).map(|number| format!("{name}{number}")).collect();
        assert_eq!(of, wanted.iter().collect::<Vec<_>>());
    }
}

async fn a_full_mailbox_takes_nothing_and_nobody_gets_a_part(hub: &dyn Hub) {
    let (a, b, c) = (
        joined(hub, "a").await,
        joined(hub, "b").await,
        joined(hub, "c").await,
    );
    for id in ["1", "2", "3"] {
        hub.post(&a, &letter(id, Some("b"))).await.unwrap();
    }
    let full = Posted::Full(vec![agent("b")]);
    assert_eq!(hub.post(&a, &letter("4", Some("b"))).await.unwrap(), full);
    assert_eq!(hub.post(&a, &letter("4", None)).await.unwrap(), full);
    assert!(ids(hub, &c).await.is_empty());
    let first = hub.read(&b, 0).await.unwrap()[0].0;
    hub.acknowledge(&b, first).await.unwrap();
    // Refused before, so this is the first time.
    assert_eq!(
        hub.post(&a, &letter("4", None)).await.unwrap(),
        stored(2, 3)
    );
    assert_eq!(ids(hub, &b).await, ["2", "3", "4"]);
    assert_eq!(ids(hub, &c).await, ["4"]);
    // By bytes as well.
    let large = Letter {
        body: Bytes::from("x".repeat(100)),
        ..letter("5", Some("c"))
    };
    let full = Posted::Full(vec![agent("c")]);
    assert_eq!(hub.post(&a, &large).await.unwrap(), full);
    hub.acknowledge(&c, u64::from(u32::MAX)).await.unwrap();
    assert_eq!(hub.post(&a, &large).await.unwrap(), stored(1, 1));
}

async fn the_silent_are_not_present(hub: &dyn Hub) {
    let (a, b) = (joined(hub, "a").await, joined(hub, "b").await);
    assert_eq!(hub.present().await.unwrap().len(), 2);
    let until = tokio::time::Instant::now() + PATIENCE;
    while hub.present().await.unwrap().contains(&agent("b")) {
        hub.renew(&a).await.unwrap();
        assert!(tokio::time::Instant::now() < until, "b is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(hub.present().await.unwrap().contains(&agent("a")));
    // It was only slow: nobody took its place, and nothing is lost.
    hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    hub.renew(&b).await.unwrap();
    assert!(hub.present().await.unwrap().contains(&agent("b")));
    assert_eq!(ids(hub, &b).await, ["1"]);
}

async fn a_mailbox_is_forgotten_in_the_end(hub: &dyn Hub) {
    let b = Hold::new(agent("b"));
    let taken = hub.take(&b, None).await.unwrap();
    let a = joined(hub, "a").await;
    hub.post(&a, &letter("1", Some("b"))).await.unwrap();
    let until = tokio::time::Instant::now() + PATIENCE;
    while hub.read(&b, 0).await.is_ok() {
        hub.renew(&a).await.unwrap();
        assert!(tokio::time::Instant::now() < until, "it is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nowhere = hub.post(&a, &letter("2", Some("b"))).await.unwrap();
    assert_eq!(nowhere, Posted::NoMailbox);
    assert_eq!(
        hub.post(&a, &letter("3", None)).await.unwrap(),
        stored(0, 0)
    );
    // A place in the old one is none in the new one.
    let again = Hold::new(agent("b"));
    let found = hub.take(&again, Some(&taken.cursor)).await.unwrap();
    assert!(!found.resumed);
    assert_ne!(found.cursor.mailbox, taken.cursor.mailbox);
    assert!(ids(hub, &again).await.is_empty());
}
