//! A picture as lines no wider than the screen: what does not fit goes, the least wanted column first.

use super::picture::{Agent, Picture};
use crate::screen::{Paint, plain};

/// Space between two columns.
const GAP: usize = 2;
/// Narrowest name of an agent, in characters.
const NARROW: usize = 12;

/// A line and how it is painted as a whole.
pub struct Line {
    pub text: String,
    pub paint: Option<Paint>,
}

impl Line {
    fn new(text: String, paint: Option<Paint>) -> Self {
        Self { text, paint }
    }
}

/// One column of the agents' table.
struct Column {
    head: &'static str,
    /// The lower, the longer it stays on a screen that gets narrower.
    rank: u8,
    shown: fn(&Agent) -> String,
}

const COLUMNS: [Column; 11] = [
    Column {
        head: "state",
        rank: 0,
        shown: |a| plain(&a.state),
    },
    Column {
        head: "flight",
        rank: 1,
        shown: |a| whole(a.in_flight),
    },
    Column {
        head: "queue",
        rank: 1,
        shown: |a| whole(a.queued),
    },
    Column {
        head: "oldest",
        rank: 4,
        shown: |a| time(a.oldest_ms.filter(|ms| *ms > 0.0)),
    },
    Column {
        head: "steps/s",
        rank: 2,
        shown: |a| rate(a.steps_per_s),
    },
    Column {
        head: "p50",
        rank: 5,
        shown: |a| time(a.p50_ms),
    },
    Column {
        head: "p99",
        rank: 3,
        shown: |a| time(a.p99_ms),
    },
    Column {
        head: "done",
        rank: 7,
        shown: |a| whole(a.completed),
    },
    Column {
        head: "errors",
        rank: 2,
        shown: |a| whole(a.errors),
    },
    Column {
        head: "retries",
        rank: 6,
        shown: |a| whole(a.retries),
    },
    Column {
        head: "breaker",
        rank: 6,
        shown: |a| a.breaker.unwrap_or("-").to_owned(),
    },
];

/// The lines of a picture; none is wider than `width` characters.
pub fn lines(picture: &Picture, width: usize) -> Vec<Line> {
    let mut lines = front(picture);
    lines.extend(agents(&picture.agents, width));
    for line in &mut lines {
        if line.text.chars().count() > width {
            line.text = line.text.chars().take(width.saturating_sub(1)).collect();
            line.text.push('…');
        }
    }
    lines
}

/// Mesh, gateway and orchestrator.
fn front(picture: &Picture) -> Vec<Line> {
    let (gateway, orchestrator) = (&picture.gateway, &picture.orchestrator);
    let painted =
        |state: &str| (!matches!(state, "up" | "unknown" | "asked")).then_some(Paint::Bad);
    let about_gateway = if gateway.state == "unknown" {
        "unknown: say --gateway-metrics URL, or run mesh up".to_owned()
    } else {
        format!(
            "{}  {} requests/s, {} refused/s  p50 {}, p99 {}  {} requests, {} refused, {} connections",
            plain(&gateway.state),
            rate(gateway.requests_per_s),
            rate(gateway.refusals_per_s),
            time(gateway.p50_ms),
            time(gateway.p99_ms),
            whole(gateway.requests),
            whole(gateway.refusals),
            whole(gateway.connections),
        )
    };
    let plans = orchestrator.plans.iter();
    let plans: Vec<String> = plans
        .map(|(source, count)| format!("{} {}", whole(Some(*count)), plain(source)))
        .collect();
    let about_orchestrator = format!(
        "{}  {} runs, {} tasks/s  plans: {}, p50 {}, p99 {}  {} completed, {} failed, {} cancelled",
        plain(&orchestrator.state),
        whole(orchestrator.runs),
        rate(orchestrator.tasks_per_s),
        if plans.is_empty() {
            "none".to_owned()
        } else {
            plans.join(", ")
        },
        time(orchestrator.plan_p50_ms),
        time(orchestrator.plan_p99_ms),
        whole(orchestrator.completed),
        whole(orchestrator.failed),
        whole(orchestrator.cancelled),
    );
    vec![
        Line::new(format!("mesh {}", picture.mesh), Some(Paint::Bold)),
        Line::new(
            format!("gateway       {about_gateway}"),
            painted(&gateway.state),
        ),
        Line::new(
            format!("orchestrator  {about_orchestrator}"),
            painted(&orchestrator.state),
        ),
        Line::new(String::new(), None),
    ]
}

/// The table of the agents.
fn agents(agents: &[Agent], width: usize) -> Vec<Line> {
    let cells: Vec<Vec<String>> = COLUMNS
        .iter()
        .map(|column| agents.iter().map(column.shown).collect())
        .collect();
    let widths: Vec<usize> = COLUMNS
        .iter()
        .zip(&cells)
        .map(|(column, cells)| {
            let widest = cells.iter().map(|cell| cell.chars().count()).max();
            widest.unwrap_or(0).max(column.head.len())
        })
        .collect();
    let names = agents.iter().map(|agent| agent.name.chars().count());
    let mut name = names.max().unwrap_or(0).max("agent".len());
    // A column goes before a name is cut below what is still told apart.
    let taken = |kept: &[usize]| -> usize {
        kept.iter()
            .filter_map(|at| widths.get(*at))
            .map(|width| width + GAP)
            .sum()
    };
    let mut kept: Vec<usize> = (0..COLUMNS.len()).collect();
    while name.min(NARROW) + taken(&kept) > width && kept.len() > 1 {
        let least = kept
            .iter()
            .enumerate()
            .max_by_key(|(_, at)| COLUMNS.get(**at).map(|column| column.rank));
        let Some((place, _)) = least else { break };
        kept.remove(place);
    }
    name = name.min(width.saturating_sub(taken(&kept)).max(NARROW));
    let row = |first: &str, cell: &dyn Fn(usize) -> String| {
        let mut line = fitted(first, name);
        for at in &kept {
            let width = widths.get(*at).copied().unwrap_or(0);
            let gap = " ".repeat(GAP);
            // States are words, the others figures.
            line += &if *at == 0 {
                format!("{gap}{:<width$}", cell(*at))
            } else {
                format!("{gap}{:>width$}", cell(*at))
            };
        }
        line.trim_end().to_owned()
    };
    let head = |at: usize| COLUMNS.get(at).map_or("", |c| c.head).to_owned();
    let mut lines = vec![Line::new(row("agent", &head), Some(Paint::Dim))];
    for (n, agent) in agents.iter().enumerate() {
        let cell = |at: usize| {
            cells
                .get(at)
                .and_then(|c| c.get(n))
                .cloned()
                .unwrap_or_default()
        };
        let well = matches!(agent.state.as_str(), "up" | "asked");
        let paint = match agent.breaker {
            _ if !well => Some(Paint::Bad),
            Some("open") => Some(Paint::Odd),
            _ => None,
        };
        lines.push(Line::new(row(&plain(&agent.name), &cell), paint));
    }
    lines
}

fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))
}

fn rate(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}"))
}

/// Milliseconds for people.
fn time(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0}ms"),
        Some(ms) if ms < 60_000.0 => format!("{:.1}s", ms / 1_000.0),
        Some(ms) => format!("{:.0}min", ms / 60_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::picture::{Gateway, Orchestrator};

    fn picture() -> Picture {
        let agent = |name: &str, state: &str, breaker| Agent {
            name: name.to_owned(),
            state: state.to_owned(),
            in_flight: Some(3.0),
            queued: Some(120.0),
            oldest_ms: Some(65_000.0),
            steps_per_s: Some(12.34),
            p50_ms: Some(4.5),
            p99_ms: Some(1_500.0),
            errors: Some(2.0),
            breaker,
            ..Agent::default()
        };
        Picture {
            mesh: "m".to_owned(),
            gateway: Gateway {
                state: "up".to_owned(),
                ..Gateway::default()
            },
            orchestrator: Orchestrator {
                state: "down".to_owned(),
                ..Orchestrator::default()
            },
            agents: vec![
                agent("coder", "up", Some("closed")),
                agent("a-very-long-name-of-an-agent", "no answer", Some("open")),
            ],
        }
    }

    #[test]
    fn a_wide_screen_has_every_column_and_a_narrow_one_the_wanted() {
        let wide = lines(&picture(), 200);
        let head = &wide[4].text;
        for column in &COLUMNS {
            assert!(head.contains(column.head), "{head}");
        }
        let coder = &wide[5].text;
        for what in [
            "coder", "up", "120", "1min", "12.3", "4.5ms", "1.5s", "closed",
        ] {
            assert!(coder.contains(what), "{coder}");
        }
        assert_eq!(wide[2].paint, Some(Paint::Bad));
        assert_eq!((wide[5].paint, wide[6].paint), (None, Some(Paint::Bad)));
        for width in [1, 10, 20, 40, 60, 80, 120] {
            let narrow = lines(&picture(), width);
            assert_eq!(narrow.len(), wide.len());
            for line in &narrow {
                assert!(line.text.chars().count() <= width, "{width}: {}", line.text);
            }
        }
        let narrow = lines(&picture(), 50);
        assert!(narrow[4].text.contains("state") && narrow[4].text.contains("flight"));
        assert!(!narrow[4].text.contains("retries"), "{}", narrow[4].text);
        assert!(
            narrow[6].text.starts_with("a-very-long"),
            "{}",
            narrow[6].text
        );
    }
}
