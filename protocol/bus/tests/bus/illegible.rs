//! Messages that a broker passes on and the client library cannot read.

use crate::oversize::{filled, with_dead_letters};
use crate::rabbitmq::foreign;
use crate::recovery::{connect, next};
use lapin::options::BasicPublishOptions;
use mesh_bus::QueueKind;
use mesh_tests::rabbitmq::shared;
use mesh_tests::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A connection that says byte for byte what it is told.
struct Raw(TcpStream);

impl Raw {
    async fn connect(url: &str) -> Self {
        let port = shared().await.port();
        let mut raw = Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        raw.0.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        raw.hear().await;
        let login = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
        raw.send(METHOD, 0, login).await;
        raw.hear().await;
        let tune_ok = [0, 10, 0, 31, 0, 10, 0, 2, 0, 0, 0, 0];
        raw.send(METHOD, 0, &tune_ok).await;
        let (_, vhost) = url.rsplit_once('/').unwrap();
        let open = [&[0, 10, 0, 40], &*short(vhost.as_bytes()), &[0, 0]].concat();
        raw.send(METHOD, 0, &open).await;
        raw.hear().await;
        raw.send(METHOD, 1, &[0, 20, 0, 10, 0]).await;
        raw.hear().await;
        raw
    }

    async fn hear(&mut self) {
        let mut answer = [0; 4096];
        let answer = self.0.read(&mut answer);
        assert_ne!(within("an answer", answer).await.unwrap(), 0);
    }

    async fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let frame = [
            &[kind],
            &channel.to_be_bytes()[..],
            &length,
            payload,
            &[0xce],
        ]
        .concat();
        self.0.write_all(&frame).await.unwrap();
    }

    async fn publish(&mut self, exchange: &[u8], key: &[u8], properties: &[u8]) {
        let publish = [&[0, 60, 0, 40, 0, 0], &*short(exchange), &short(key), &[0]].concat();
        self.send(METHOD, 1, &publish).await;
        let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3], properties].concat();
        self.send(HEADER, 1, &header).await;
        self.send(BODY, 1, b"zzz").await;
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// What it is about, exchange, routing key, properties.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], Vec<u8>);

/// Properties with these headers alone.
fn headers(table: &[u8]) -> Vec<u8> {
    [&[0x20, 0], &*long(table)].concat()
}

/// A header of no known type is not among them: a broker looks for `CC` when it routes, and refuses it.
#[tokio::test]
async fn what_cannot_be_read_is_delivered_all_the_same() {
    let mut deep = Vec::new();
    for _ in 0..18_000 {
        deep = [&b"\x01hF"[..], &long(&deep)].concat();
    }
    let forwarded = [&b"\x02CCA"[..], &long(&[&b"S"[..], &long(b"q")].concat())].concat();
    let cases: [Case; 4] = [
        ("tables without end", b"", b"q", headers(&deep)),
        ("a name that is no text", b"", b"q", headers(b"\x01\xffV")),
        (
            "an id that is no text",
            b"",
            b"q",
            b"\x04\0\x02\xff\xfe".to_vec(),
        ),
        (
            "a key that is no text",
            b"amq.direct",
            b"\xff",
            headers(&forwarded),
        ),
    ];
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    let mut topology = with_dead_letters(QueueKind::Classic);
    topology.exchanges.push(mesh_bus::Exchange {
        name: "amq.direct".to_owned(),
        kind: mesh_bus::ExchangeKind::Direct,
    });
    topology.bindings.push(mesh_bus::Binding {
        exchange: "amq.direct".to_owned(),
        queue: "q".to_owned(),
        key: "q".to_owned(),
    });
    bus.declare(&topology).await.unwrap();
    let mut state = bus.connected();
    state.mark_unchanged();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let mut dead = bus.consume("dead", 1).await.unwrap();
    let mut raw = Raw::connect(&url).await;
    for (case, exchange, key, properties) in cases {
        raw.publish(exchange, key, &properties).await;
        let delivery = within(case, deliveries.next()).await.unwrap();
        assert_eq!(delivery.message.body, "zzz", "{case}");
        delivery.dead_letter("message is no JSON").await.unwrap();
        let buried = next(&mut dead).await;
        assert_eq!(buried.message.body, "zzz", "{case}");
        let reason = buried.message.properties.reason.as_deref();
        assert_eq!(reason, Some("message is no JSON"), "{case}");
        buried.ack().await.unwrap();
        assert!(!state.has_changed().unwrap(), "{case} broke the connection");
    }
}

/// A quorum queue counts deliveries in a header of its own.
#[tokio::test]
async fn full_headers_with_the_brokers_own_come_again() {
    let url = shared().await.vhost().await;
    let bus = connect(&url).await;
    let topology = with_dead_letters(QueueKind::Quorum);
    bus.declare(&topology).await.unwrap();
    let (_connection, channel) = foreign(&url).await;
    channel
        .basic_publish(
            "".into(),
            "q".into(),
            BasicPublishOptions::default(),
            b"zzz",
            filled(131_020).with_correlation_id("task".into()),
        )
        .await
        .unwrap();
    let mut state = bus.connected();
    state.mark_unchanged();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    next(&mut deliveries).await.give_back().await.unwrap();
    let again = next(&mut deliveries).await;
    assert!(again.redelivered);
    let id = again.message.properties.correlation_id.as_deref();
    assert_eq!(id, Some("task"));
    again.ack().await.unwrap();
    assert!(!state.has_changed().unwrap(), "the connection was lost");
}
