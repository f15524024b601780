//! `mesh migrate`.

use crate::args::Output;
use crate::load::{base, count, read_text};
use crate::screen::{self, Paint, Screen, plain};
use anyhow::{Context, bail};
use mesh_config::render::{Rendered, write_all};
use serde_json::json;
use similar::TextDiff;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Something has to change, and was only shown.
const SHOWN: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// The file; those that it includes are migrated one by one
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Write what is shown otherwise
    #[arg(long)]
    pub write: bool,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub fn run(args: &Migrate) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let old = read_text(&args.file, mesh_config::MAX_BYTES)
        .with_context(|| format!("cannot read {name}"))?;
    let new = match mesh_config::migrate(&name, &old) {
        Ok(new) => new,
        Err(report) => {
            Screen::stderr().text(&report.to_string())?;
            bail!("{name} has {}", count(report.errors(), "error"));
        }
    };
    let mut screen = Screen::stdout();
    let changed = new.text != old;
    if args.write && changed {
        write(args, &new.text).with_context(|| format!("cannot write {name}"))?;
    }
    let diff = TextDiff::from_lines(&old, &new.text);
    let diff = diff.unified_diff().header(&name, &name).to_string();
    let code = if changed && !args.write {
        SHOWN.into()
    } else {
        ExitCode::SUCCESS
    };
    if args.output == Output::Json {
        let said = json!({
            "file": name,
            "from": new.from,
            "to": mesh_config::VERSION,
            "changes": new.changes,
            "written": args.write && changed,
            "diff": diff,
        });
        screen.line(screen::json(&said)?)?;
        return Ok(code);
    }
    if !changed {
        screen.line(format!(
            "{name} is version {} already",
            mesh_config::VERSION
        ))?;
        return Ok(code);
    }
    for line in diff.lines() {
        let line = plain(line);
        let line = match line.chars().next() {
            Some('+') => screen.paint(Paint::Good, line),
            Some('-') => screen.paint(Paint::Bad, line),
            _ => line,
        };
        screen.line(line)?;
    }
    for change in &new.changes {
        screen.line(plain(change))?;
    }
    screen.line(if args.write {
        format!("{name} is written")
    } else {
        "nothing is written; --write does".to_owned()
    })?;
    Ok(code)
}

/// Whole or not at all, with the rights that it had; where it is a link, what it leads to.
fn write(args: &Migrate, text: &str) -> anyhow::Result<()> {
    let file = args.file.canonicalize()?;
    let rights = fs::metadata(&file)?.permissions();
    let name = file.file_name().and_then(|name| name.to_str());
    let rendered = Rendered {
        name: name.context("its name is no text")?.to_owned(),
        text: text.to_owned(),
        // Until it has the rights of the old file, it is its owner's: what that holds may be a secret.
        secret: true,
    };
    write_all(&base(&file), &[rendered])?;
    fs::set_permissions(&file, rights)?;
    Ok(())
}
