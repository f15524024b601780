//! `mesh status`: every part, whether it works, and what it says.

use crate::args::{Output, Status};
use crate::load::{addresses, count, load};
use crate::screen::{self, Paint, Screen, plain};
use comfy_table::{Cell, Table, presets};
use mesh_local::probe::{self, Answer};
use serde_json::json;
use std::process::ExitCode;
use tokio::task::JoinSet;

pub async fn run(args: &Status) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let addresses = addresses(&loaded)?;
    let client = probe::client()?;
    let parts = probe::parts(&addresses);
    let mut asked = JoinSet::new();
    for (place, part) in parts.into_iter().enumerate() {
        let client = client.clone();
        asked.spawn(async move { (place, probe::ask(&client, part).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    let answers: Vec<Answer> = answers.into_iter().map(|(_, answer)| answer).collect();

    let down = answers.iter().filter(|a| !a.up).count();
    let mut screen = Screen::stdout();
    match args.output {
        Output::Json => {
            let report = json!({"mesh": addresses.mesh, "up": down == 0, "parts": answers});
            screen.line(screen::json(&report)?)?;
        }
        Output::Text => {
            screen.line(table(&screen, &answers))?;
            let hidden = loaded
                .mesh
                .agents
                .len()
                .saturating_sub(addresses.agents.len());
            if hidden > 0 {
                let agents = count(hidden, "agent");
                screen.line(format!(
                    "{agents} with addresses chosen at start: known only where mesh up runs"
                ))?;
            }
        }
    }
    Ok(if down == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(screen: &Screen, answers: &[Answer]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["part", "name", "state", "where", "says"]);
    for answer in answers {
        let state = if answer.up { "up" } else { "down" };
        table.add_row([
            Cell::new(answer.part.kind),
            Cell::new(plain(&answer.part.name)),
            Cell::new(state),
            Cell::new(plain(&answer.part.url)),
            Cell::new(plain(&answer.detail)),
        ]);
    }
    // Painted afterwards: the table would count the colours as width.
    let lines = table.lines().map(|line| {
        let line = line.trim_end().to_owned();
        // The name of a part cannot hold the word with a space on either side.
        if line.contains(" down ") {
            screen.paint(Paint::Bad, line)
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
