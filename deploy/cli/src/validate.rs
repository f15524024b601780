//! `mesh validate`.

use crate::args::{Output, Validate};
use crate::load::{compile, count};
use crate::screen::{self, Paint, Screen};
use mesh_config::{Finding, Mesh, Report, Severity};
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(args: &Validate) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::stdout();
    let (report, good) = match compile(&args.file)? {
        Ok(compiled) => (compiled.warnings, Some(compiled.mesh)),
        Err(report) => (report, None),
    };
    match args.output {
        Output::Json => screen.line(screen::json(&value(&report, good.as_ref()))?)?,
        Output::Text => show(&mut screen, args, &report, good.as_ref())?,
    }
    Ok(if good.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(
    screen: &mut Screen,
    args: &Validate,
    report: &Report,
    good: Option<&Mesh>,
) -> std::io::Result<()> {
    let file = args.file.display();
    screen.text(&report.to_string())?;
    let warnings = count(report.warnings(), "warning");
    match good {
        Some(mesh) => {
            let ok = screen.paint(Paint::Good, "ok");
            let agents = count(mesh.agents.len(), "agent");
            screen.line(format!(
                "{ok}: {file}: mesh {}, {agents}, {warnings}",
                mesh.name
            ))
        }
        None => {
            let errors = screen.paint(Paint::Bad, count(report.errors(), "error"));
            screen.line(format!("{file}: {errors}, {warnings}"))
        }
    }
}

fn value(report: &Report, good: Option<&Mesh>) -> Value {
    let findings: Vec<Value> = report.findings.iter().map(|f| finding(report, f)).collect();
    json!({
        "ok": good.is_some(),
        "file": report.file,
        "mesh": good.map(|mesh| &mesh.name),
        "agents": good.map(|mesh| mesh.agents.len()),
        "errors": report.errors(),
        "warnings": report.warnings(),
        "findings": findings,
    })
}

/// Line and column are `null` where a finding has no place.
fn finding(report: &Report, finding: &Finding) -> Value {
    let place = finding.place;
    let somewhere = place.line > 0;
    json!({
        "severity": match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": finding.code,
        "file": report.name(place),
        "line": somewhere.then_some(place.line),
        "column": somewhere.then_some(place.column),
        "path": finding.path,
        "message": finding.message,
        "hint": finding.hint,
    })
}
