//! What a task costs when many others have finished before it.

use super::{Bench, say};
use crate::load::{Call, Line, closed_loop, until_right};
use crate::median;
use crate::mesh::{Laid, Sketch};
use crate::process::Process;
use crate::row::{Goal, Row, figure};
use crate::servers::{RabbitMq, Redis};
use anyhow::{Context, Result, ensure};
use mesh_protocol::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the row says.
pub const ABOUT: &str = "Processor time of the orchestrator per task of two steps, with 1,000,000 finished tasks in its store (the peer: with 1,000), at 32 connections that each send the \
    next task when their last one is completed. RabbitMQ, Redis, two sidecars, agents that answer at once. The tasks in the store are copies of one that was carried out, under ids and \
    with times of their own over twelve hours, written in the store's own layout (hash, index, life) by a script; some are asked for, and a part of the list, before anything is measured. \
    One store for each number, measured in turns. Redis' own cost stands in the table.";
/// What the row says.
pub const ABOUT_RATE: &str = "The same in completed tasks per second.";
/// What the row says.
pub const ABOUT_RSS: &str =
    "The same in resident memory of the orchestrator at the end of a round.";

const LEVELS: [u32; 3] = [1_000, 100_000, 1_000_000];
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(60);
/// Tasks that one call of the script writes: it holds the store for some milliseconds.
const PART: u32 = 500;
/// What a task takes in Redis, twice over: the machine does other things too.
const STORED_MIB: f64 = 6.0 / 1024.0;
/// Over how long the tasks in the store were submitted; half of what they are kept for.
const SPAN_MS: u64 = 12 * 3600 * 1000;
/// Tasks that are asked for by their ids.
const SAMPLE: u32 = 50;
/// Most that one answer lists.
const LISTED: usize = 200;

/// Writes copies of a finished task: KEYS the index of all. ARGV: life in seconds, how many fields and values, these;
/// then id, beginning and end of each task.
const FILL: &str = "
local life, fields, hash = ARGV[1], tonumber(ARGV[2]), {}
for place = 3, 2 + fields do
    hash[#hash + 1] = ARGV[place]
end
for place = 3 + fields, #ARGV, 3 do
    local id, task = ARGV[place], 'task:' .. ARGV[place]
    redis.call('HSET', task, unpack(hash))
    redis.call('HSET', task, 'created_at', ARGV[place + 1], 'finished_at', ARGV[place + 2])
    redis.call('EXPIRE', task, life)
    redis.call('ZADD', KEYS[1], 0, id)
end
return redis.call('ZCARD', KEYS[1])
";

struct Level {
    tasks: u32,
    redis: Redis,
    laid: Laid,
    call: Call,
    /// Bytes that each task in the store takes there.
    stored_bytes: f64,
    rounds: Vec<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    per_s: f64,
    cpu_ms: f64,
    redis_ms: f64,
    resident_mib: f64,
}

/// Measures the rows.
pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let broker = RabbitMq::start(bench.scratch.path()).await?;
    let mut levels = Vec::new();
    for tasks in LEVELS {
        if f64::from(tasks) * STORED_MIB > crate::machine::available_mib()? {
            say(&format!(
                "  {tasks} tasks do not fit into the memory that is left"
            ));
            continue;
        }
        levels.push(Level::new(bench, &broker, tasks).await?);
    }
    for round in 0..bench.rounds {
        let mut turn: Vec<&mut Level> = levels.iter_mut().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for level in turn {
            level.round(bench, &broker).await?;
        }
    }
    rows(&levels)
}

impl Level {
    async fn new(bench: &Bench, broker: &RabbitMq, tasks: u32) -> Result<Self> {
        let name = format!("growth-{tasks}");
        let directory = bench.scratch.path().join(format!("redis-{tasks}"));
        std::fs::create_dir_all(&directory)?;
        let redis = Redis::start(&directory).await?;
        let sketch = Sketch {
            agents: vec![("hardware-optimizer", 0), ("resource-arbitrator", 0)],
            rabbitmq: Some(broker.url()),
            redis: Some(redis.url()),
            ..Sketch::default()
        };
        let laid = sketch.lay(bench, &name).await?;
        let body = json!({"task_type": "system_optimization", "payload": {"target": "latency"}});
        let call = Call::post(
            laid.orchestrator,
            "/orchestrate",
            &body,
            r#""status":"completed""#,
        );
        let mut level = Self {
            tasks,
            redis,
            call: call.with_header("prefer", "wait=30")?,
            laid,
            stored_bytes: f64::NAN,
            rounds: Vec::new(),
        };
        let begun = std::time::Instant::now();
        let (orchestrator, workers) = level.start(bench, broker).await?;
        level.fill().await?;
        level.check().await?;
        drop((orchestrator, workers));
        say(&format!(
            "  {tasks} finished tasks are in the store after {} s, of {} bytes each",
            figure(begun.elapsed().as_secs_f64()),
            figure(level.stored_bytes)
        ));
        Ok(level)
    }

    async fn start(&self, bench: &Bench, broker: &RabbitMq) -> Result<(Process, Vec<Process>)> {
        broker.forget(&self.laid.queues()?).await?;
        let orchestrator = self.laid.orchestrator(bench).await?;
        let workers = self.laid.workers(bench)?;
        until_right(&self.call, LIMIT).await?;
        Ok((orchestrator, workers))
    }

    /// Id and times of one of the tasks in the store, all of them before `now`.
    fn task(&self, number: u32, now: Timestamp) -> (String, Timestamp, Timestamp) {
        let gap = SPAN_MS / u64::from(self.tasks);
        let begun = now.millis() - gap * u64::from(self.tasks - number);
        // As a UUID of version 7: the time in milliseconds, then what tells tasks of one millisecond apart.
        let id = format!("task_{begun:012x}7{:03x}8{number:015x}", number & 0xfff);
        let end = Timestamp::from_millis(begun + 5);
        (id, Timestamp::from_millis(begun), end)
    }

    /// Puts the tasks into the store, as copies of the one that was carried out.
    async fn fill(&mut self) -> Result<()> {
        let mut redis = self.redis.connect().await?;
        let before = used(&mut redis).await?;
        let done: Vec<String> = redis::cmd("ZRANGE")
            .arg("tasks:all")
            .arg(0)
            .arg(0)
            .query_async(&mut redis)
            .await?;
        let done = format!("task:{}", done.first().context("no task was carried out")?);
        let fields: BTreeMap<String, Vec<u8>> = redis::cmd("HGETALL")
            .arg(&done)
            .query_async(&mut redis)
            .await?;
        let life: u64 = redis::cmd("TTL").arg(&done).query_async(&mut redis).await?;
        let script = redis::Script::new(FILL);
        let now = Timestamp::now();
        for begin in (0..self.tasks).step_by(usize::try_from(PART)?) {
            let mut call = script.key("tasks:all");
            call.arg(life).arg(fields.len() * 2);
            for (name, value) in &fields {
                call.arg(name).arg(value);
            }
            for number in begin..self.tasks.min(begin + PART) {
                let (id, begun, ended) = self.task(number, now);
                call.arg(id).arg(begun.to_string()).arg(ended.to_string());
            }
            call.invoke_async::<u64>(&mut redis).await?;
        }
        let all: u32 = redis::cmd("ZCARD")
            .arg("tasks:all")
            .query_async(&mut redis)
            .await?;
        ensure!(all >= self.tasks, "{all} tasks are in the store");
        self.stored_bytes = (used(&mut redis).await? - before) / f64::from(self.tasks);
        Ok(())
    }

    /// The orchestrator knows them: by their ids, and as a part of the list.
    async fn check(&self) -> Result<()> {
        let mut redis = self.redis.connect().await?;
        let mut line = Line::open(self.laid.orchestrator).await?;
        // From the oldest on; what was really carried out is newer.
        let all = i64::from(self.tasks);
        for place in (0..SAMPLE).map(|part| i64::from(part) * all / i64::from(SAMPLE)) {
            let id = ids(&mut redis, place, place).await?;
            let id = id.first().context("a task is not in the index")?;
            let call = Call::get(self.laid.orchestrator, &format!("/task/{id}"));
            let shown: Value = serde_json::from_slice(&line.call(&call).await?)?;
            ensure!(
                shown.get("status") == Some(&json!("completed")),
                "a task in the store is shown as {shown}"
            );
        }
        let middle = all / 2;
        let wanted = ids(&mut redis, middle - i64::try_from(LISTED)?, middle).await?;
        let (cursor, wanted) = wanted.split_last().context("no tasks in the index")?;
        let path = format!("/tasks?limit={LISTED}&cursor={cursor}");
        let listed = line.call(&Call::get(self.laid.orchestrator, &path)).await?;
        let listed: Value = serde_json::from_slice(&listed)?;
        let listed = listed.get("tasks").and_then(Value::as_array);
        let listed: Vec<&str> = listed
            .context("no list")?
            .iter()
            .filter_map(|task| task.get("task_id")?.as_str())
            .collect();
        let newest_first: Vec<&str> = wanted.iter().rev().map(String::as_str).collect();
        ensure!(
            listed == newest_first,
            "the list is not what is in the store"
        );
        Ok(())
    }

    async fn round(&mut self, bench: &Bench, broker: &RabbitMq) -> Result<()> {
        let (orchestrator, _workers) = self.start(bench, broker).await?;
        let before = (orchestrator.cpu_s()?, self.redis.cpu_s()?);
        let reached = closed_loop(&self.call, CONNECTIONS, WARM_UP, DURATION).await?;
        let tasks = reached.per_s * (WARM_UP + DURATION).as_secs_f64();
        let seen = Seen {
            per_s: reached.per_s,
            cpu_ms: (orchestrator.cpu_s()? - before.0) * 1000.0 / tasks,
            redis_ms: (self.redis.cpu_s()? - before.1) * 1000.0 / tasks,
            resident_mib: orchestrator.resident_mib()?,
        };
        say(&format!(
            "  {} tasks in the store: {} tasks/s, {} ms of processor each, {} MiB",
            self.tasks,
            figure(seen.per_s),
            figure(seen.cpu_ms),
            figure(seen.resident_mib)
        ));
        self.rounds.push(seen);
        Ok(())
    }

    fn of(&self, what: fn(&Seen) -> f64) -> Vec<f64> {
        self.rounds.iter().map(what).collect()
    }
}

/// Ids of the index by their places in it.
async fn ids(
    redis: &mut redis::aio::MultiplexedConnection,
    from: i64,
    to: i64,
) -> Result<Vec<String>> {
    let mut command = redis::cmd("ZRANGE");
    command.arg("tasks:all").arg(from).arg(to);
    Ok(command.query_async(redis).await?)
}

/// Bytes that Redis has in use.
async fn used(redis: &mut redis::aio::MultiplexedConnection) -> Result<f64> {
    let info: String = redis::cmd("INFO").arg("memory").query_async(redis).await?;
    let line = info.lines().find_map(|l| l.strip_prefix("used_memory:"));
    Ok(line
        .context("Redis does not say what it uses")?
        .trim()
        .parse()?)
}

fn rows(levels: &[Level]) -> Result<Vec<Row>> {
    let (few, many) = levels.first().zip(levels.last()).context("no levels")?;
    let row = |name: &str, unit: &str, what: fn(&Seen) -> f64| {
        let rounds: Vec<_> = many.of(what).into_iter().zip(few.of(what)).collect();
        Row::beside(name, unit, "1,000 finished", &rounds)
    };
    let heads = [
        "finished tasks in the store",
        "tasks/s",
        "orchestrator's ms per task",
        "Redis' ms per task",
        "orchestrator MiB",
        "bytes in Redis per finished task",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(levels.iter().map(|level| {
        let middle = |what| figure(median(&level.of(what)));
        vec![
            level.tasks.to_string(),
            middle(|seen| seen.per_s),
            middle(|seen| seen.cpu_ms),
            middle(|seen| seen.redis_ms),
            middle(|seen| seen.resident_mib),
            figure(level.stored_bytes),
        ]
    }));
    Ok(vec![
        row("growth", "ms", |seen| seen.cpu_ms)
            .with_goal(Goal::RatioAtMost(1.1))
            .with_note(format!(
                "ours has {} finished tasks in its store",
                many.tasks
            ))
            .with_table(table)
            .with_note(crate::machine::busy()),
        // A task that takes at most 1.1 times as long.
        row("growth-rate", "tasks/s", |seen| seen.per_s).with_goal(Goal::RatioAtLeast(0.91)),
        row("growth-rss", "MiB", |seen| seen.resident_mib).with_goal(Goal::RatioAtMost(1.1)),
    ])
}
