//! `mesh validate`.

use crate::args::Validate;
use crate::load::{compile, count};
use crate::screen::{Paint, Screen};
use std::process::ExitCode;

pub fn run(args: &Validate) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::stdout();
    let file = args.file.display();
    let (report, good) = match compile(&args.file)? {
        Ok(compiled) => (compiled.warnings, Some(compiled.mesh)),
        Err(report) => (report, None),
    };
    screen.text(&report.to_string())?;
    let warnings = count(report.warnings(), "warning");
    match good {
        Some(mesh) => {
            let ok = screen.paint(Paint::Good, "ok");
            let agents = count(mesh.agents.len(), "agent");
            screen.line(format!(
                "{ok}: {file}: mesh {}, {agents}, {warnings}",
                mesh.name
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let errors = screen.paint(Paint::Bad, count(report.errors(), "error"));
            screen.line(format!("{file}: {errors}, {warnings}"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}
