//! The tree on a screen.

use super::run::{Run, Step};
use crate::screen::{Paint, Screen, plain};
use std::collections::BTreeMap;

/// Characters of a step's place in time.
const BAR: u64 = 24;
/// Levels that are indented; what lies deeper stands under the last one, so that a long chain stays on the screen.
const LEVELS: usize = 12;
/// Widest name of a step with its branches, in characters.
const WIDEST: usize = 48;

/// A run as lines of text.
pub fn tree(screen: &Screen, run: &Run) -> String {
    let mut lines = vec![title(screen, run)];
    for risk in &run.risks {
        lines.push(format!("  {}", screen.paint(Paint::Dim, plain(risk))));
    }
    let rows = rows(run);
    let wide = |row: &Row<'_>| row.branch.chars().count() + row.step.id.chars().count();
    let width = rows.iter().map(wide).max().unwrap_or(0).min(WIDEST);
    let agents = run.steps.iter().map(|step| step.agent.chars().count());
    let agent = agents.max().unwrap_or(0).min(WIDEST);
    for row in &rows {
        let label = format!("{}{}", row.branch, plain(&row.step.id));
        let painted = status(screen, &row.step.status);
        // Counted without its colour.
        let gap = " ".repeat(10_usize.saturating_sub(row.step.status.chars().count()));
        lines.push(
            format!(
                "{label:<width$}  {:<agent$}  {painted}{gap} {}  {}",
                plain(&row.step.agent),
                bar(row.step, run.end()),
                times(row.step)
            )
            .trim_end()
            .to_owned(),
        );
        for note in notes(run, row.step) {
            lines.push(format!("{}    {}", row.below, plain(&note)));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn title(screen: &Screen, run: &Run) -> String {
    let took = match run.took {
        Some(took) => format!(" in {}", span(took)),
        None => format!(" since {}", run.created),
    };
    let why = run.error.as_ref().map(|why| format!(": {}", plain(why)));
    format!(
        "{} {}, planned by {}: {}{took}{}",
        screen.paint(Paint::Bold, format!("task {}", plain(&run.id))),
        plain(&run.task_type),
        plain(&run.source),
        status(screen, &run.status),
        why.unwrap_or_default()
    )
}

struct Row<'a> {
    branch: String,
    /// What stands before lines under it.
    below: String,
    step: &'a Step,
}

/// Every step under the one that it waited for, in the order of the plan.
fn rows(run: &Run) -> Vec<Row<'_>> {
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (place, step) in run.steps.iter().enumerate() {
        children.entry(step.under).or_default().push(place);
    }
    let mut rows = Vec::new();
    // Places with the branches before them; the next one last. A plan has at most some thousand steps, and a stack of
    // our own does not overflow.
    let mut open: Vec<(usize, String, usize, bool)> = Vec::new();
    let push = |open: &mut Vec<_>, of: Option<usize>, before: &str, level: usize| {
        let found = children.get(&of).map(Vec::as_slice).unwrap_or_default();
        let last = found.len().saturating_sub(1);
        let found = found.iter().enumerate().rev();
        open.extend(found.map(|(n, place)| (*place, before.to_owned(), level, n == last)));
    };
    push(&mut open, None, "", 0);
    while let Some((place, before, level, last)) = open.pop() {
        let Some(step) = run.steps.get(place) else {
            continue;
        };
        let below = format!("{before}{}", if last { "   " } else { "│  " });
        rows.push(Row {
            branch: format!("{before}{}", if last { "└─ " } else { "├─ " }),
            below: below.clone(),
            step,
        });
        let deeper = if level < LEVELS { &below } else { &before };
        push(&mut open, Some(place), deeper, level + 1);
    }
    rows
}

fn status(screen: &Screen, status: &str) -> String {
    let paint = match status {
        "completed" => Paint::Good,
        "failed" => Paint::Bad,
        "skipped" | "cancelled" => Paint::Odd,
        _ => Paint::Dim,
    };
    screen.paint(paint, plain(status))
}

/// Where in the task's time the step waited (░) and was at its agent (█).
fn bar(step: &Step, end: u64) -> String {
    let Some(begun) = step.published.or(step.dispatched) else {
        return " ".repeat(usize::try_from(BAR).unwrap_or(0));
    };
    let at = |time: u64| time.min(end).saturating_mul(BAR) / end.max(1);
    let started = at(step.started.unwrap_or(end));
    let finished = at(step.finished.unwrap_or(end));
    let begun = at(begun).min(BAR - 1);
    // What happened is seen, however short it was.
    let finished = finished.max(begun + 1);
    let cell = |n: u64| match n {
        n if n < begun || n >= finished => '·',
        n if n < started && !(step.started.is_some() && n + 1 == finished) => '░',
        _ => '█',
    };
    (0..BAR).map(cell).collect()
}

fn times(step: &Step) -> String {
    let mut said = Vec::new();
    if let Some(sent) = step.dispatched {
        said.push(format!("+{}", span(sent)));
    }
    if let Some(queued) = step.queued() {
        said.push(format!("queue {}", span(queued)));
    }
    if let Some(at) = step.at_the_agent() {
        said.push(format!("agent {}", span(at)));
    }
    if let Some(calls) = step.attempts.filter(|calls| *calls > 1) {
        said.push(format!("{calls} calls"));
    }
    said.join(", ")
}

fn notes(run: &Run, step: &Step) -> Vec<String> {
    let under = step.under.and_then(|place| run.steps.get(place));
    let others = step.dependencies.iter();
    let others: Vec<&str> = others
        .map(String::as_str)
        .filter(|id| under.is_none_or(|under| under.id != *id))
        .collect();
    let mut notes = Vec::new();
    if !others.is_empty() {
        notes.push(format!("also after {}", others.join(", ")));
    }
    if !step.waiting_for.is_empty() {
        notes.push(format!("waits for {}", step.waiting_for.join(", ")));
    }
    notes.extend(step.error.clone());
    notes
}

/// `12 ms`, `1.234 s`, `2 min 3 s`.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{:03} s", ms / 1_000, ms % 1_000),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(ms: u64) -> String {
        mesh_protocol::Timestamp::from_millis(1_800_000_000_000 + ms).to_string()
    }

    fn step(sent: u64, started: u64, finished: u64) -> Value {
        json!({"status": "completed", "dispatched_at": at(sent), "published_at": at(sent), "started_at": at(started),
            "finished_at": at(finished), "attempts": 1})
    }

    fn diamond() -> Value {
        let plan = |id: &str, after: &[&str]| json!({"id": id, "agent": "coder", "action": "x", "dependencies": after});
        json!({
            "task_id": "task_1", "task_type": "t\u{1b}[2J", "status": "failed", "created_at": at(0), "finished_at": at(100),
            "deadline": at(1000), "error": {"code": "step_failed", "detail": "last"}, "trace_id": "ab",
            "plan": {"source": "rules", "risks": ["r"], "execution_plan": [
                plan("first", &[]), plan("left", &["first"]), plan("right", &["first"]), plan("last", &["left", "right"])]},
            "steps": {
                "first": step(0, 10, 20), "left": step(20, 25, 50), "right": step(20, 30, 80),
                "last": {"status": "failed", "dispatched_at": at(80), "started_at": at(81), "finished_at": at(100), "attempts": 3,
                    "error": {"code": "agent_status", "detail": "answered 500"}},
            },
        })
    }

    #[test]
    fn steps_hang_under_what_they_waited_for() {
        let run = Run::read(&diamond()).unwrap();
        let text = tree(&Screen::silent(), &run);
        let lines: Vec<&str> = text.lines().collect();
        let begin = |line: &str| {
            line.split("  coder")
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        assert_eq!(begin(lines[2]), "└─ first", "{text}");
        assert_eq!(begin(lines[3]), "   ├─ left", "{text}");
        assert_eq!(begin(lines[4]), "   └─ right", "{text}");
        assert_eq!(begin(lines[5]), "      └─ last", "{text}");
        assert!(
            lines[3].ends_with("+20 ms, queue 5 ms, agent 25 ms"),
            "{text}"
        );
        assert!(
            lines[5].ends_with("+80 ms, queue 1 ms, agent 19 ms, 3 calls"),
            "{text}"
        );
        assert!(lines[6].contains("also after left"), "{text}");
        assert!(lines[7].contains("agent_status: answered 500"), "{text}");
        assert!(
            lines[0].contains("failed in 100 ms: step_failed: last"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        let json = run.json(Some("http://x/ab"));
        assert_eq!(json["steps"][3]["under"], "right");
        assert_eq!(json["steps"][1]["queue_ms"], 5);
        assert_eq!(json["trace_url"], "http://x/ab");
    }

    #[test]
    fn a_bar_shows_waiting_and_work_however_short() {
        let run = Run::read(&diamond()).unwrap();
        let of = |n: usize| bar(&run.steps[n], run.end());
        assert_eq!(of(0), "░░██····················");
        assert_eq!(of(3), "···················█████");
        let mut short = diamond();
        short["steps"]["first"] = step(0, 0, 0);
        let run = Run::read(&short).unwrap();
        assert_eq!(bar(&run.steps[0], 100_000).matches('█').count(), 1);
        assert_eq!(bar(&run.steps[0], 0).matches('█').count(), 1);
    }

    #[test]
    fn a_long_chain_stays_on_the_screen_and_nonsense_is_no_run() {
        let id = |n: usize| format!("s{n}");
        let plan: Vec<Value> = (0..2_000_usize)
            .map(|n| {
                let after: Vec<String> = n.checked_sub(1).map(id).into_iter().collect();
                json!({"id": id(n), "agent": "a", "dependencies": after})
            })
            .collect();
        let task = json!({"created_at": at(0), "steps": {}, "plan": {"execution_plan": plan}});
        let run = Run::read(&task).unwrap();
        let text = tree(&Screen::silent(), &run);
        assert_eq!(text.lines().count(), 2_001);
        assert!(text.lines().all(|line| line.chars().count() < 120));
        for odd in [
            json!({}),
            json!([]),
            json!({"created_at": 7}),
            json!({"created_at": at(0), "plan": 1}),
        ] {
            assert!(Run::read(&odd).is_none());
        }
    }
}
