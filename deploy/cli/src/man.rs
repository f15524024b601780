//! `mesh man`: the pages of the manual, from the same words as `--help`.

use crate::args::{Args, Output};
use crate::screen::{self, Screen};
use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use mesh_config::render::{Rendered, write_all};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print the manual page of this command, or write one for each command
///
/// `mesh man | man -l -`, or with --out ~/.local/share/man/man1 `man mesh-check`. Exit codes: 0 done, 1 not written.
#[derive(Debug, clap::Args)]
pub struct ManPages {
    /// Directory to write mesh.1, mesh-check.1 and so on to
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub fn run(args: &ManPages) -> anyhow::Result<ExitCode> {
    let mut command = Args::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, "mesh", &mut pages)?;
    let mut screen = Screen::stdout();
    let Some(out) = &args.out else {
        match args.output {
            Output::Text => {
                let first = pages.first().map(|page| page.text.as_str());
                screen.text(first.unwrap_or_default())?;
            }
            Output::Json => {
                let pages = pages
                    .iter()
                    .map(|page| json!({"name": page.name, "text": page.text}));
                let pages: Vec<_> = pages.collect();
                screen.line(screen::json(&json!({"pages": pages}))?)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let written = write_all(out, &pages).context("cannot write")?;
    match args.output {
        Output::Text => {
            for page in written {
                screen.line(page.path.display())?;
            }
        }
        Output::Json => {
            let pages = written.iter().map(
                |page| json!({"path": page.path.display().to_string(), "changed": page.changed}),
            );
            let pages: Vec<_> = pages.collect();
            screen.line(screen::json(&json!({"pages": pages}))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of a command, and those of its own commands after it.
fn collect(command: &Command, name: &str, pages: &mut Vec<Rendered>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    Man::new(command.clone()).title(name).render(&mut text)?;
    pages.push(Rendered {
        name: format!("{name}.1"),
        text: String::from_utf8(text).context("a page is text")?,
        secret: false,
    });
    for inner in command.get_subcommands() {
        if inner.get_name() != "help" && !inner.is_hide_set() {
            collect(inner, &format!("{name}-{}", inner.get_name()), pages)?;
        }
    }
    Ok(())
}
