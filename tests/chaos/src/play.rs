//! One play from the first task to the last, and what came of it.

use crate::backlog::{self, Backlog};
use crate::fault::Fault;
use crate::schedule::{Act, Schedule};
use crate::stage::{self, Stage, TASK_TYPE};
use crate::{agent, twice};
use mesh_bus::BusConfig;
use mesh_tests::binary::binary;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time budget of each task, in seconds: more than any fault lasts, several in a row included.
const TIMEOUT_S: u32 = 240;
/// What comes after the load has so long, once the load has taken all its time.
const AFTERWARDS: Duration = Duration::from_secs(120);
/// How long a killed replica stays away.
const AWAY: Duration = Duration::from_secs(3);

/// What is played.
#[derive(Debug, Clone)]
pub struct Play {
    /// How many tasks.
    pub tasks: u32,
    /// How many of them a second.
    pub rate: f64,
    /// Whether two orchestrators share the runs, one of which is killed every so often.
    pub kill_every: Option<Duration>,
    /// How many tasks wait for an agent that is away.
    pub backlog: usize,
    /// The chance by which faults are paired begins with this.
    pub seed: u64,
    /// The load is broken off after this time; what has not ended then counts as lost.
    pub longest: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// As `mesh load -o json` says it: attempted, completed, failed, refused, lost, duplicated, unexplained, ...
    #[serde(flatten)]
    pub load: Value,
    /// Effects that the agents had.
    pub effects: usize,
    /// Effects that they had more than once.
    pub duplicated_effects: usize,
    /// Effects that are missing from tasks that were said to be completed.
    pub missing_effects: usize,
    /// How often each fault happened.
    pub faults: BTreeMap<Fault, u32>,
    /// How often two happened at the same time.
    pub pairs: u32,
    /// Answers that were given a second time, by us.
    pub answers_given_twice: u64,
    /// Answers for tasks that nobody knows, given by us.
    pub answers_of_nobody: u64,
    /// The tasks that waited for an agent.
    pub backlog: Backlog,
    /// Where chance began.
    pub seed: u64,
    /// The whole play.
    pub took_s: u64,
}

impl Report {
    /// Whether nothing was lost, nothing done twice, and every failure says why.
    pub fn holds(&self) -> bool {
        let none = |name: &str| self.load[name] == 0;
        none("lost")
            && none("duplicated")
            && none("unexplained")
            && self.load["completed"].as_u64() > self.load["failed"].as_u64()
            && self.duplicated_effects == 0
            && self.missing_effects == 0
            && self.backlog.carried_out == self.backlog.queued
            && self.backlog.doubled == 0
    }
}

/// Plays it.
///
/// # Panics
/// When the stage cannot be set, or `mesh load` says nothing.
pub async fn play(play: &Play) -> Report {
    let begun = Instant::now();
    let stage = Arc::new(Stage::set(if play.kill_every.is_some() { 2 } else { 1 }).await);
    let url = stage.broker_url.clone().try_into().expect("a broker's URL");
    let config = BusConfig::Rabbitmq { url };
    let bus = mesh_bus::connect(&config).await;
    let bus = bus.expect("reach the broker");
    let (stop, said) = (CancellationToken::new(), Arc::new(twice::Said::default()));
    let saying = tokio::spawn(twice::say(
        Arc::clone(&bus),
        Arc::clone(&said),
        stop.clone(),
    ));
    if play.backlog > 0 {
        tell(&format!("{} tasks for an agent that is away", play.backlog));
        backlog::queue(&stage, &*bus, play.backlog).await;
    }
    let load = load(&stage, play);
    let (faults, over) = (Arc::new(Counts::default()), CancellationToken::new());
    let failing = tokio::spawn(fail(
        Arc::clone(&stage),
        play.clone(),
        Arc::clone(&faults),
        over.clone(),
    ));
    let killing = tokio::spawn(kill(
        Arc::clone(&stage),
        play.kill_every,
        Arc::clone(&faults),
        over.clone(),
    ));
    let load = ended(load, begun + play.longest).await;
    over.cancel();
    tell(&format!("the load says {load}"));
    for lane in [failing, killing] {
        lane.await.expect("a lane of faults");
    }
    stop.cancel();
    saying.await.expect("what is said twice");
    if play.backlog > 0 {
        tell("the agent that was away comes back");
        backlog::come_back(&stage).await;
    }
    let until = begun + play.longest + AFTERWARDS;
    let backlog = backlog::carried_out(&stage, play.backlog, until).await;
    let effects = stage::effects(&stage).expect("read what agents did");
    if load["lost"] != 0 || load["duplicated"] != 0 {
        eprintln!("{}", stage.logs().await);
    }
    bus.close().await;
    let stage = Arc::into_inner(stage).expect("everybody has left the stage");
    stage.strike().await;
    let counts = faults.read();
    Report {
        missing_effects: missing(&load, &effects),
        duplicated_effects: agent::doubled(&effects),
        effects: effects.len(),
        load,
        faults: counts.0,
        pairs: counts.1,
        answers_given_twice: said.twice.load(Ordering::Relaxed),
        answers_of_nobody: said.of_nothing.load(Ordering::Relaxed),
        backlog: backlog.expect("read what the agent did"),
        seed: play.seed,
        took_s: begun.elapsed().as_secs(),
    }
}

/// How many effects fewer there are than completed tasks must have had.
fn missing(load: &Value, effects: &[agent::Effect]) -> usize {
    let completed = load["completed"].as_u64().unwrap_or_default();
    let wanted = usize::try_from(completed).unwrap_or(usize::MAX) * stage::AGENTS.len();
    let mut of_tasks: BTreeMap<&str, usize> = BTreeMap::new();
    for effect in effects {
        *of_tasks.entry(&effect.task).or_default() += 1;
    }
    // Only tasks with all their steps can be among the completed.
    let whole = of_tasks.values().filter(|n| **n >= stage::AGENTS.len());
    wanted.saturating_sub(whole.count() * stage::AGENTS.len())
}

/// How often what happened.
#[derive(Debug, Default)]
struct Counts(std::sync::Mutex<(BTreeMap<Fault, u32>, u32)>);

impl Counts {
    fn note(&self, faults: &[Fault]) {
        let mut counts = self.0.lock().expect("counts");
        for fault in faults {
            *counts.0.entry(*fault).or_default() += 1;
        }
        counts.1 += u32::from(faults.len() > 1);
    }

    fn read(&self) -> (BTreeMap<Fault, u32>, u32) {
        self.0.lock().expect("counts").clone()
    }
}

/// Starts `mesh load`.
fn load(stage: &Stage, play: &Play) -> Child {
    Command::new(binary("mesh"))
        .args(["load", "--tasks", &play.tasks.to_string()])
        .args(["--rate", &play.rate.to_string(), "--task-type", TASK_TYPE])
        .args(["--timeout", &TIMEOUT_S.to_string(), "-o", "json"])
        .args(["--in-flight", "2000"])
        .env("MESH_GATEWAY", &stage.gateway)
        .env("MESH_TOKEN", &stage.token)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start mesh load")
}

/// What the load says at its end, which is made to come at `until`.
async fn ended(load: Child, until: Instant) -> Value {
    let pid = load.id().expect("it runs").to_string();
    let mut output = std::pin::pin!(load.wait_with_output());
    let output = tokio::select! {
        output = &mut output => output,
        () = tokio::time::sleep_until(until) => {
            tell("time is up");
            // The first says that no more is sent, the second that nothing is waited for.
            for _ in 0..2 {
                let told = Command::new("kill").args(["-INT", &pid]).status().await;
                assert!(told.expect("run kill").success(), "mesh load is gone");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            output.await
        }
    };
    let output = output.expect("wait for mesh load");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("mesh load says: {output:?}"))
}

/// Fault after fault, until it is over. None is left behind.
async fn fail(stage: Arc<Stage>, play: Play, counts: Arc<Counts>, over: CancellationToken) {
    let mut faults = Fault::ALL.to_vec();
    if play.kill_every.is_some() {
        // The other lane sees to that.
        faults.retain(|fault| *fault != Fault::OrchestratorKilled);
    }
    for act in Schedule::new(faults, play.seed) {
        if wait(act.quiet, &over).await {
            return;
        }
        tell(&said(&act));
        for fault in &act.faults {
            fault.inject(&stage).await;
        }
        let broken_off = wait(act.lasts, &over).await;
        for fault in act.faults.iter().rev() {
            fault.lift(&stage).await;
        }
        counts.note(&act.faults);
        if broken_off {
            return;
        }
    }
}

fn said(act: &Act) -> String {
    let names: Vec<String> = act.faults.iter().map(|f| format!("{f:?}")).collect();
    format!("{} for {:?}", names.join(" and "), act.lasts)
}

/// Kills one orchestrator after the other, until it is over.
async fn kill(
    stage: Arc<Stage>,
    every: Option<Duration>,
    counts: Arc<Counts>,
    over: CancellationToken,
) {
    let Some(every) = every else { return };
    let both = [Fault::OrchestratorKilled, Fault::SecondOrchestratorKilled];
    for fault in both.into_iter().cycle() {
        if wait(every.saturating_sub(AWAY), &over).await {
            return;
        }
        fault.inject(&stage).await;
        let broken_off = wait(AWAY, &over).await;
        fault.lift(&stage).await;
        counts.note(&[fault]);
        if broken_off {
            return;
        }
    }
}

/// Waits, and whether it was over before.
async fn wait(time: Duration, over: &CancellationToken) -> bool {
    tokio::time::timeout(time, over.cancelled()).await.is_ok()
}

fn tell(what: &str) {
    eprintln!("chaos: {what}");
}
