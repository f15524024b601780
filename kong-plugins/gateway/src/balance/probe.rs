//! The gateway's own questions to the targets of a pool.
//!
//! One task per pool, on one worker, until the configuration that it belongs to is replaced. Healthy
//! targets and those that are out have intervals of their own.

use super::health::{Event, Probe};
use super::{Pool, Target};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Asks until it is aborted; returns at once when the pool has no such questions.
pub(crate) async fn watch(pool: Arc<Pool>) {
    let Some(probe) = pool.checks.active.clone() else {
        return;
    };
    let mut due: [(bool, Option<Duration>, Instant); 2] = [
        (true, probe.healthy, Instant::now()),
        (false, probe.unhealthy, Instant::now()),
    ];
    loop {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (healthy, interval, at) in &mut due {
            let Some(interval) = *interval else { continue };
            if *at <= now {
                round(&pool, &probe, *healthy).await;
                *at = Instant::now() + interval;
            }
            next = Some(next.map_or(*at, |n| n.min(*at)));
        }
        let Some(next) = next else { return };
        tokio::time::sleep_until(next).await;
    }
}

/// Asks all targets of one state, so many at a time as the pool allows.
async fn round(pool: &Arc<Pool>, probe: &Probe, healthy: bool) {
    let asked: Vec<usize> = (0..pool.targets.len())
        .filter(|index| {
            let target = pool.targets.get(*index);
            target.is_some_and(|t| t.is_healthy() == healthy)
        })
        .collect();
    for some in asked.chunks(probe.concurrency) {
        let mut questions = tokio::task::JoinSet::new();
        for index in some {
            let (pool, probe, index) = (Arc::clone(pool), probe.clone(), *index);
            questions.spawn_local(async move {
                if let Some(target) = pool.targets.get(index) {
                    let asked = tokio::time::timeout(probe.timeout, ask(target, &probe));
                    let event = asked.await.unwrap_or(Event::Timeout);
                    pool.probed(target, event);
                }
            });
        }
        while questions.join_next().await.is_some() {}
    }
}

async fn ask(target: &Target, probe: &Probe) -> Event {
    let Ok(stream) = TcpStream::connect(target.address).await else {
        return Event::Tcp;
    };
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = shaken else {
        return Event::Tcp;
    };
    let mut request = Request::get(&*probe.path).header(HOST, &target.host);
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Empty::<Bytes>::new()) else {
        return Event::Tcp;
    };
    let answer = async {
        match sender.send_request(request).await {
            Ok(response) => Event::Status(response.status().as_u16()),
            Err(_) => Event::Tcp,
        }
    };
    tokio::select! {
        event = answer => event,
        _ = connection => Event::Tcp,
    }
}
