//! `mesh schema`.

use crate::args::Output;
use crate::screen::{self, Screen};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Schema {
    /// json: JSON Schema, draft 2020-12; text: every key and what it means
    #[arg(short, long, default_value = "json")]
    pub output: Output,
}

pub fn run(args: &Schema) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::stdout();
    match args.output {
        Output::Json => screen.line(screen::json(&mesh_config::schema())?)?,
        Output::Text => screen.text(&mesh_config::reference())?,
    }
    Ok(ExitCode::SUCCESS)
}
