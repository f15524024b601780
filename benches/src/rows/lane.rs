//! The step lane: one sidecar against a bare loop, Celery and the plan's own shape.

use super::{Bench, say};
use crate::lane::{Drained, Lane, Load, Side};
use crate::median;
use crate::python::{Http, Pool};
use crate::row::{Goal, Row, figure};
use anyhow::{Context, Result};

/// What the row says.
pub const ABOUT: &str = "A queue of steps is drained by one sidecar, with so many in flight (its `concurrency`), to an agent on loopback that answers 100 bytes at once; the \
    results are counted in the orchestrator's queue. The peer is a loop of lapin and hyper alone (`benches/src/parts/bare.rs`): same broker, quorum queues, prefetch, \
    confirms, persistent and mandatory results under the task and the idempotency key, acknowledged after the confirm. The broker and the agent share the two cores.";
/// What the row says.
pub const ABOUT_SAME: &str = "The same with so many in flight, and messages of this size.";
/// What the row says.
pub const ABOUT_CELERY: &str = "The same sidecar with 100 in flight against a Celery worker (`benches/peers/celery_peer.py`) with the same work: RabbitMQ (a quorum queue), a POST to the \
    same agent for each task over kept connections (requests), the result stored in Redis, then acknowledged (`acks_late`). Two processes (prefork); the table has sixteen threads, and a leaner \
    client (urllib3), beside it. Drain only: the queue is filled before, and clients and starts do not count. Celery has no routed result, no dead letters, and asks for no confirm of a result.";
/// What the row says.
pub const ABOUT_PLAN: &str = "The same against the plan's own shape (`benches/peers/plan_lane.py`): pika's BlockingConnection, one message after the other, a POST to the agent with the plan's \
    client (httpx, but over a kept connection), the result published without a confirm, then acknowledged. The table has it with confirms, and with a leaner client (urllib3), beside it.";

/// Rounds of the peers in Python, at most: their ratios are far from any noise.
const PYTHON_ROUNDS: usize = 3;

const fn load(bytes: usize, in_flight: u16, steps: u32) -> Load {
    Load {
        bytes,
        steps,
        in_flight,
    }
}

const SMALL: Load = load(1024, 100, 20_000);
const LARGE: Load = load(65_536, 100, 4_000);
/// Against the bare loop; as many steps as take one or two seconds.
const LANES: [(&str, Load); 6] = [
    ("step-lane-1k-1", load(1024, 1, 3_000)),
    ("step-lane-1k-10", load(1024, 10, 12_000)),
    ("step-lane-1k-100", SMALL),
    ("step-lane-64k-1", load(65_536, 1, 1_500)),
    ("step-lane-64k-10", load(65_536, 10, 3_000)),
    ("step-lane-64k-100", LARGE),
];
/// Against peers in Python: the first of each is the row's, the second stands in the table, the third is the first
/// with a leaner client; all drain fewer.
const PEERS: [(&str, [Side; 3], Load, u32, f64); 4] = [
    ("step-lane-celery", CELERY, SMALL, 1_500, 20.0),
    ("step-lane-celery-64k", CELERY, LARGE, 750, 20.0),
    ("step-lane-pika", PLAN, SMALL, 2_000, 12.0),
    ("step-lane-pika-64k", PLAN, LARGE, 1_000, 12.0),
];
const CELERY: [Side; 3] = [
    Side::Celery(Pool::Prefork, Http::Requests),
    Side::Celery(Pool::Threads, Http::Requests),
    Side::Celery(Pool::Prefork, Http::Urllib3),
];
const PLAN: [Side; 3] = [
    Side::Plan {
        confirms: false,
        http: Http::Httpx,
    },
    Side::Plan {
        confirms: true,
        http: Http::Httpx,
    },
    Side::Plan {
        confirms: false,
        http: Http::Urllib3,
    },
];

struct Measured {
    side: Side,
    load: Load,
    most_rounds: usize,
    rounds: Vec<Drained>,
}

/// Measures those of the rows that are wanted, all in turns.
pub async fn measure(bench: &Bench, wanted: &impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    let lane = Lane::lay(bench).await?;
    let mut sides = sides(bench.rounds, wanted);
    for round in 0..bench.rounds {
        let mut turn: Vec<&mut Measured> = sides.iter_mut().collect();
        // Who begins changes, so that nobody always finds the broker warmer.
        if round % 2 == 1 {
            turn.reverse();
        }
        for measured in turn.into_iter().filter(|m| round < m.most_rounds) {
            let drained = lane.drain(measured.side, measured.load).await?;
            say(&format!(
                "  {}, {}: {} steps/s",
                name(measured.side),
                form(measured.side, measured.load),
                figure(drained.steps_per_s)
            ));
            measured.rounds.push(drained);
        }
    }
    let mut rows = Vec::new();
    for (name, load) in LANES.into_iter().filter(|lane| wanted(lane.0)) {
        let ours = find(&sides, Side::Sidecar, load)?;
        let bare = find(&sides, Side::Bare, load)?;
        let row = Row::beside(name, "steps/s", "bare lapin+hyper loop", &both(ours, bare));
        rows.push(noted(row, ours, bare).with_goal(Goal::RatioAtLeast(0.95)));
    }
    for (name, [first, _, lean], load, steps, goal) in
        PEERS.into_iter().filter(|peer| wanted(peer.0))
    {
        let ours = find(&sides, Side::Sidecar, load)?;
        let peer = find(&sides, first, Load { steps, ..load })?;
        let lean = find(&sides, lean, Load { steps, ..load })?;
        let leaner: Vec<f64> = both(ours, lean).iter().map(|(o, l)| o / l).collect();
        let row = Row::beside(name, "steps/s", &self::name(first), &both(ours, peer));
        let row = noted(row, ours, peer).with_goal(Goal::RatioAtLeast(goal));
        rows.push(row.with_note(format!(
            "against {}: ratio {}",
            self::name(lean.side),
            figure(median(&leaner))
        )));
    }
    // All that was measured in this run, at its first row.
    let mut rows = rows.into_iter();
    let first = rows.next().map(|row| {
        row.with_table(table(&sides))
            .with_note(crate::machine::busy())
    });
    Ok(first.into_iter().chain(rows).collect())
}

/// What the wanted rows need, each once.
fn sides(rounds: usize, wanted: &impl Fn(&str) -> bool) -> Vec<Measured> {
    let mut sides: Vec<Measured> = Vec::new();
    let mut need = |side: Side, load: Load, most_rounds: usize| {
        if !sides.iter().any(|m| m.side == side && m.load == load) {
            sides.push(Measured {
                side,
                load,
                most_rounds,
                rounds: Vec::new(),
            });
        }
    };
    for (_, load) in LANES.iter().filter(|lane| wanted(lane.0)) {
        need(Side::Sidecar, *load, rounds);
        need(Side::Bare, *load, rounds);
    }
    for (_, peers, load, steps, _) in PEERS.iter().filter(|peer| wanted(peer.0)) {
        need(Side::Sidecar, *load, rounds);
        for peer in peers {
            let load = Load {
                steps: *steps,
                ..*load
            };
            need(*peer, load, rounds.min(PYTHON_ROUNDS));
        }
    }
    sides
}

fn find(sides: &[Measured], side: Side, load: Load) -> Result<&Measured> {
    let mut sides = sides.iter();
    sides
        .find(|m| m.side == side && m.load == load)
        .context("a side was not measured")
}

/// Of the rounds in which both were measured.
fn both(ours: &Measured, peer: &Measured) -> Vec<(f64, f64)> {
    let rounds = ours.rounds.iter().zip(&peer.rounds);
    rounds
        .map(|(ours, peer)| (ours.steps_per_s, peer.steps_per_s))
        .collect()
}

fn noted(row: Row, ours: &Measured, peer: &Measured) -> Row {
    row.with_note(format!(
        "processor ms per 1000 steps: ours {}, peer {}; the broker's beside them {}, {}",
        ours.middle(|d| d.cpu_ms_per_1000),
        peer.middle(|d| d.cpu_ms_per_1000),
        ours.middle(|d| d.broker_ms_per_1000),
        peer.middle(|d| d.broker_ms_per_1000),
    ))
    .with_note(format!(
        "of a core, the agent took {} beside ours, {} beside the peer; MiB of our sidecar at the end of a drain: {}",
        ours.middle(|d| d.agent_share),
        peer.middle(|d| d.agent_share),
        ours.middle(|d| d.resident_mib),
    ))
}

impl Measured {
    fn middle(&self, of: impl Fn(&Drained) -> f64) -> String {
        figure(median(&self.rounds.iter().map(of).collect::<Vec<_>>()))
    }
}

fn name(side: Side) -> String {
    match side {
        Side::Sidecar => "sidecar".to_owned(),
        Side::Bare => "bare loop".to_owned(),
        Side::Plan { confirms, http } => {
            let confirms = if confirms { "confirms" } else { "no confirms" };
            format!("pika, {confirms}, {}", http.name())
        }
        Side::Celery(Pool::Prefork, http) => format!("Celery, prefork 2, {}", http.name()),
        Side::Celery(Pool::Threads, http) => format!("Celery, threads 16, {}", http.name()),
    }
}

fn form(side: Side, load: Load) -> String {
    let size = load.bytes / 1024;
    match side {
        Side::Sidecar | Side::Bare => format!("{size} KB, {} in flight", load.in_flight),
        Side::Plan { .. } | Side::Celery(..) => format!("{size} KB"),
    }
}

fn table(sides: &[Measured]) -> Vec<Vec<String>> {
    let heads = [
        "who",
        "messages",
        "steps/s",
        "processor ms per 1000",
        "the broker's",
        "of a core, the agent's",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(sides.iter().map(|m| {
        vec![
            name(m.side),
            form(m.side, m.load),
            m.middle(|d| d.steps_per_s),
            m.middle(|d| d.cpu_ms_per_1000),
            m.middle(|d| d.broker_ms_per_1000),
            m.middle(|d| d.agent_share),
        ]
    }));
    table
}
