//! `mesh completions`: what a shell needs to complete the command line.

use crate::args::{Args, Output};
use crate::screen::{self, Screen};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;
use std::process::ExitCode;

/// Print what completes this command in a shell
///
/// bash: `source <(mesh completions bash)`; zsh: into a file `_mesh` of $fpath; fish: into
/// ~/.config/fish/completions/mesh.fish. Exit codes: 0 printed, 64 no such shell.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub fn run(args: &Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "mesh", &mut script);
    let script = String::from_utf8(script).context("a script is text")?;
    let mut screen = Screen::stdout();
    match args.output {
        Output::Text => screen.text(&script)?,
        Output::Json => {
            let shell = args.shell.to_string();
            screen.line(screen::json(&json!({"shell": shell, "script": script}))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
