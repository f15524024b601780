//! `mesh import`: an existing deployment as a mesh.yaml.

use crate::args::Output;
use crate::load::{count, read_text};
use crate::screen::{self, Paint, Screen, plain};
use anyhow::{Context, bail};
use mesh_config::import::{self, Format, Imported};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Something was not carried over; what could be is written.
const LOST: u8 = 2;

/// The arguments of `mesh import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// kong.yml, RabbitMQ's definitions.json or docker-compose.yml; - is standard input
    pub file: PathBuf,
    /// Whose file it is, where its content does not tell
    #[arg(long, value_parser = format)]
    pub from: Option<Format>,
    /// File to write; standard output when left out
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Name of the mesh, where the file has none
    #[arg(long, default_value = "imported", value_parser = name)]
    pub mesh: String,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let shown = args.file.display();
    if let Some(out) = &args.out
        && !args.force
        && out.symlink_metadata().is_ok()
    {
        bail!(
            "{} is there already: name another file, or add --force",
            out.display()
        );
    }
    let text = text(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let imported = import::import(&text, args.from, &args.mesh)
        .with_context(|| format!("cannot import {shown}"))?;
    if let Some(out) = &args.out {
        write(out, &imported.text, args.force)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    match args.output {
        Output::Json => Screen::stdout().line(screen::json(&told(args, &imported))?)?,
        Output::Text => {
            if args.out.is_none() {
                Screen::stdout().text(&imported.text)?;
            }
            report(args, &imported)?;
        }
    }
    Ok(if imported.lost.is_empty() {
        ExitCode::SUCCESS
    } else {
        LOST.into()
    })
}

fn text(file: &Path) -> anyhow::Result<String> {
    let file = if file == Path::new("-") {
        Path::new("/dev/stdin")
    } else {
        file
    };
    read_text(file, import::MAX_BYTES)
}

/// What was and was not carried over, for people; on standard error, since the file may go to standard output.
fn report(args: &Args, imported: &Imported) -> anyhow::Result<()> {
    let mut screen = Screen::stderr();
    for lost in &imported.lost {
        let kind = screen.paint(Paint::Odd, "not carried over");
        let (path, reason) = (plain(&lost.path), plain(&lost.reason));
        screen.line(format!("{kind}: {path}: {reason}"))?;
        if lost.line > 0 {
            let (line, column) = (lost.line, lost.column);
            screen.line(format!("  --> {}:{line}:{column}", args.file.display()))?;
        }
    }
    for secret in &imported.secrets {
        let kind = screen.paint(Paint::Bold, "secret");
        let path = plain(&secret.path);
        screen.line(format!("{kind}: set {} ({path})", secret.variable))?;
    }
    for note in &imported.notes {
        screen.line(format!(
            "{}: {}",
            screen.paint(Paint::Dim, "note"),
            plain(note)
        ))?;
    }
    if let Some(out) = &args.out {
        let written = screen.paint(Paint::Good, "written");
        let lost = count(imported.lost.len(), "thing");
        screen.line(format!(
            "{written} {}, {lost} not carried over",
            out.display()
        ))?;
    }
    Ok(())
}

fn told(args: &Args, imported: &Imported) -> serde_json::Value {
    let lost = imported.lost.iter().map(|lost| {
        json!({
            "path": lost.path,
            "line": lost.line,
            "column": lost.column,
            "reason": lost.reason,
        })
    });
    let secrets = imported.secrets.iter();
    let secrets = secrets.map(|s| json!({"variable": s.variable, "path": s.path}));
    json!({
        "from": imported.format.name(),
        "out": args.out,
        "mesh_yaml": args.out.is_none().then_some(&imported.text),
        "not_carried_over": lost.collect::<Vec<_>>(),
        "secrets": secrets.collect::<Vec<_>>(),
        "notes": imported.notes,
    })
}

/// Whole or not at all; without `force` never over a file that came about meanwhile.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let name = path.file_name().context("it names no file")?;
    let dir = crate::load::base(path);
    if force {
        let file = mesh_config::render::Rendered {
            name: name.to_string_lossy().into_owned(),
            text: text.to_owned(),
            secret: false,
        };
        mesh_config::render::write_all(&dir, &[file])?;
        return Ok(());
    }
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = dir.join(temporary);
    let mut open = fs::OpenOptions::new();
    let written = open
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        // A link is not made over a file, which a renaming would replace.
        .and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    Ok(written?)
}

fn format(text: &str) -> Result<Format, String> {
    let found = Format::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, format)| *format).ok_or_else(|| {
        let names = Format::ALL.map(|(name, _)| name);
        format!("write one of {}", names.join(", "))
    })
}

fn name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    Err("at most 63 lower-case letters, digits and hyphens".to_owned())
}
