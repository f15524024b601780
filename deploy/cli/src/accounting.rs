//! `mesh load`: many tasks at a rate, each followed to its end, and what became of them counted.
//!
//! ```text
//!  every 1/rate s ─▶ submit under a key of its own ──▶ ended within the wait ─▶ counted
//!                       ▲ no answer, or "not now":        │ else
//!                       └─ again, under the same key      └▶ asked for until it has ended ─▶ counted
//! ```
//!
//! A submission whose answer is lost on the way is sent again under the same `Idempotency-Key`, so that its task is
//! known by its id whatever breaks: only then can it be said that none was lost.

use crate::USAGE;
use crate::args::{Load, Output};
use crate::progress::Progress;
use crate::screen::{self, Paint, Screen};
use crate::submit::{UNREACHABLE, access, payload};
use crate::task::{Accepted, Gateway, Refused, Request, text};
use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// How long the gateway is asked to hold a submission: below the time limits of proxies before it.
const WAIT_S: u32 = 20;
/// How long after its own time limit a task may take to be seen as ended: for a mesh that is being restarted.
const GRACE: Duration = Duration::from_secs(60);
/// How often a task that was accepted may be unknown before it is lost: parts that come back know it a moment later.
const UNKNOWN: u32 = 5;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);
/// Most reasons that are told apart; those beyond share one.
const MAX_REASONS: usize = 64;

/// What became of one task.
struct Outcome {
    /// Every id that was given for its key.
    ids: Vec<String>,
    end: End,
}

enum End {
    Completed(Duration),
    /// With the code of the reason.
    Failed(Option<String>),
    /// Never accepted, and why.
    Refused(String),
    /// Accepted, or perhaps accepted, and without an end.
    Lost(String),
}

/// What became of all.
#[derive(Default)]
struct Tally {
    attempted: u64,
    completed: u64,
    failed: u64,
    refused: u64,
    lost: u64,
    duplicated: u64,
    unexplained: u64,
    reasons: BTreeMap<String, u64>,
    millis: Vec<f64>,
    ids: HashSet<String>,
}

pub async fn run(args: Load) -> anyhow::Result<ExitCode> {
    let prepared = async {
        let request = Request {
            task_type: args.task_type.clone(),
            payload: payload(&args.payload)?,
            priority: mesh_protocol::task::DEFAULT_PRIORITY,
            timeout: args.timeout,
        };
        let (url, token) = access(&args.access)?;
        anyhow::Ok((request, Gateway::new(&url, &token)?))
    };
    let (request, gateway) = match prepared.await {
        Ok(ready) => ready,
        Err(error) => {
            Screen::stderr().error(&error);
            return Ok(USAGE.into());
        }
    };
    if let Err(error) = gateway.found().await {
        Screen::stderr().error(&error);
        return Ok(UNREACHABLE.into());
    }
    let begun = Instant::now();
    let tally = drive(&args, Arc::new(gateway), Arc::new(request)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut out = Screen::stdout();
    match args.output {
        Output::Json => out.line(screen::json(&tally.report(seconds))?)?,
        Output::Text => out.line(tally.shown(&out, seconds))?,
    }
    // Where nothing was taken, nothing was shown.
    let none = tally.refused == tally.attempted && tally.attempted > 0;
    Ok(if tally.lost == 0 && tally.duplicated == 0 && !none {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn drive(args: &Load, gateway: Arc<Gateway>, request: Arc<Request>) -> anyhow::Result<Tally> {
    let mut progress = Screen::stderr().outlasting_its_reader();
    let quiet = args.output == Output::Json;
    let bar = Progress::bar(args.tasks, quiet);
    let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate));
    // Behind its time it catches up: the rate is that of the whole run.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut told = tokio::time::interval(PROGRESS);
    told.tick().await;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let places = Arc::new(Semaphore::new(args.in_flight));
    let mut under_way = JoinSet::new();
    let mut tally = Tally::default();
    let mut wanted = args.tasks;
    let run = uuid::Uuid::now_v7();
    loop {
        let sending = tally.attempted < wanted;
        if !sending && under_way.is_empty() {
            return Ok(tally);
        }
        tokio::select! {
            biased;
            stop = &mut interrupt => {
                stop.context("cannot listen for Ctrl-C")?;
                if wanted == tally.attempted {
                    // Asked twice: what is under way is not waited for.
                    under_way.abort_all();
                }
                wanted = tally.attempted;
                interrupt.set(tokio::signal::ctrl_c());
            }
            Some(ended) = under_way.join_next() => {
                tally.count(ended.unwrap_or_else(|_| Outcome::given_up()));
                let failed = tally.failed + tally.refused + tally.lost;
                bar.set(tally.ended(), format!("ended, {failed} not completed"));
            }
            _ = told.tick(), if !quiet && bar.is_hidden() => {
                let (sent, open) = (tally.attempted, under_way.len());
                progress.line(format!("{sent} of {wanted} sent, {open} under way"))?;
            }
            place = next(&mut due, &places), if sending => {
                let place = place?;
                let (gateway, request) = (Arc::clone(&gateway), Arc::clone(&request));
                let key = format!("{run}-{}", tally.attempted);
                tally.attempted += 1;
                under_way.spawn(async move {
                    let outcome = one(&gateway, &request, &key).await;
                    drop(place);
                    outcome
                });
            }
        }
    }
}

/// Waits until another task is due and may be under way. A moment that is not used is not lost: the ticks catch up.
async fn next(
    due: &mut tokio::time::Interval,
    places: &Arc<Semaphore>,
) -> anyhow::Result<tokio::sync::OwnedSemaphorePermit> {
    let place = Arc::clone(places).acquire_owned().await?;
    due.tick().await;
    Ok(place)
}

/// One task from its submission to its end.
async fn one(gateway: &Gateway, request: &Request, key: &str) -> Outcome {
    let begun = Instant::now();
    let until = begun + Duration::from_secs(request.timeout.into()) + GRACE;
    let mut ids = Vec::new();
    let (accepted, again) = match accepted(gateway, request, key, until).await {
        Ok(accepted) => accepted,
        Err(end) => return Outcome { ids, end },
    };
    ids.push(accepted.task_id.clone());
    let end = match ended(&accepted.answer, begun) {
        Some(end) => end,
        None => end_of(gateway, &accepted.task_id, begun, until).await,
    };
    // An answer was lost on the way: whether its task was another shows when the key is brought once more.
    if again && let Ok(known) = gateway.submit_held(request, key, 0).await {
        ids.extend((known.task_id != accepted.task_id).then_some(known.task_id));
    }
    Outcome { ids, end }
}

/// Submits until the task is accepted, or is known not to be; with it, whether an earlier acceptance may have been lost.
async fn accepted(
    gateway: &Gateway,
    request: &Request,
    key: &str,
    until: Instant,
) -> Result<(Accepted, bool), End> {
    let mut pauses = pauses();
    // Whether an answer was lost that may have been an acceptance.
    let mut uncertain = false;
    loop {
        let why = match gateway.submit_held(request, key, WAIT_S).await {
            Ok(accepted) => return Ok((accepted, uncertain)),
            Err(Refused::Problem(problem)) => {
                let code = problem.status.to_string();
                match problem.status {
                    // From behind the gateway: it may have been taken all the same.
                    502 | 504 => uncertain = true,
                    408 | 409 | 425 | 429 | 503 => {}
                    _ => return Err(End::Refused(code)),
                }
                code
            }
            Err(Refused::Unreachable(_)) => {
                uncertain = true;
                "no answer".to_owned()
            }
        };
        if Instant::now() > until {
            return Err(if uncertain {
                End::Lost(why)
            } else {
                End::Refused(why)
            });
        }
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    }
}

/// Asks for a task until it has ended.
async fn end_of(gateway: &Gateway, id: &str, begun: Instant, until: Instant) -> End {
    let mut pauses = pauses();
    let mut unknown = 0;
    loop {
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        let why = match gateway.task(id).await {
            Ok(task) => match ended(&task, begun) {
                Some(end) => return end,
                None => "no end".to_owned(),
            },
            Err(Refused::Problem(problem)) => {
                unknown = if problem.status == 404 {
                    unknown + 1
                } else {
                    0
                };
                if unknown == UNKNOWN {
                    return End::Lost("unknown".to_owned());
                }
                problem.status.to_string()
            }
            Err(Refused::Unreachable(_)) => "no answer".to_owned(),
        };
        if Instant::now() > until {
            return End::Lost(why);
        }
    }
}

fn ended(task: &Value, begun: Instant) -> Option<End> {
    match text(task, "status") {
        "completed" => Some(End::Completed(begun.elapsed())),
        "failed" | "cancelled" => {
            let code = task.get("error").map(|error| text(error, "code"));
            let code = code.filter(|code| !code.is_empty());
            Some(End::Failed(code.map(str::to_owned)))
        }
        _ => None,
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build()
}

impl Outcome {
    fn given_up() -> Self {
        Self {
            ids: Vec::new(),
            end: End::Lost("given up".to_owned()),
        }
    }
}

impl Tally {
    fn ended(&self) -> u64 {
        self.completed + self.failed + self.refused + self.lost
    }

    fn count(&mut self, outcome: Outcome) {
        // A key has one task, and a task one key.
        for (place, id) in outcome.ids.into_iter().enumerate() {
            if !self.ids.insert(id) || place > 0 {
                self.duplicated += 1;
            }
        }
        let reason = match outcome.end {
            End::Completed(time) => {
                self.completed += 1;
                self.millis.push(time.as_secs_f64() * 1000.0);
                return;
            }
            End::Failed(Some(code)) => {
                self.failed += 1;
                code
            }
            End::Failed(None) => {
                self.failed += 1;
                self.unexplained += 1;
                "failed without a reason".to_owned()
            }
            End::Refused(why) => {
                self.refused += 1;
                format!("refused: {why}")
            }
            End::Lost(why) => {
                self.lost += 1;
                format!("lost: {why}")
            }
        };
        let reason = if self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&reason) {
            reason
        } else {
            "others".to_owned()
        };
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// The time, in milliseconds, that `share` of the completed tasks took at most; `None` when none completed.
    fn quantile(&self, share: f64) -> Option<f64> {
        let mut millis = self.millis.clone();
        millis.sort_unstable_by(f64::total_cmp);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )] // a place among at most a million
        let place = (millis.len() as f64 * share).ceil() as usize;
        let millis = millis.get(place.saturating_sub(1))?;
        Some((millis * 100.0).round() / 100.0)
    }

    fn report(&self, seconds: f64) -> Value {
        json!({
            "attempted": self.attempted,
            "completed": self.completed,
            "failed": self.failed,
            "refused": self.refused,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unexplained": self.unexplained,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "unit": "ms",
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "reasons": self.reasons,
        })
    }

    fn shown(&self, screen: &Screen, seconds: f64) -> String {
        let painted = |count: u64, paint| {
            let paint = if count == 0 { Paint::Dim } else { paint };
            screen.paint(paint, format!("{count:>9}"))
        };
        let mut lines = vec![
            format!("attempted  {:>9}  in {seconds:.1} s", self.attempted),
            format!("completed  {}", painted(self.completed, Paint::Good)),
            format!("failed     {}", painted(self.failed, Paint::Odd)),
            format!("refused    {}", painted(self.refused, Paint::Odd)),
            format!("lost       {}", painted(self.lost, Paint::Bad)),
            format!("duplicated {}", painted(self.duplicated, Paint::Bad)),
        ];
        if let (Some(p50), Some(p99)) = (self.quantile(0.5), self.quantile(0.99)) {
            lines.push(format!("p50 {p50} ms, p99 {p99} ms"));
        }
        for (reason, count) in &self.reasons {
            lines.push(format!("  {count:>9}  {}", screen::plain(reason)));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
