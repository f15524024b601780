//! The `mesh` command: parses, sets up the log, calls the command, says how it ended.

mod accounting;
mod args;
mod check;
mod dead_letters;
mod demo;
mod dlq;
mod import;
mod live;
mod load;
mod outline;
mod render;
mod screen;
mod signals;
mod status;
mod submit;
mod task;
mod token;
mod up;
mod validate;

use args::{Args, Command};
use clap::Parser;
use screen::Screen;
use std::io::IsTerminal;
use std::process::ExitCode;

/// What was asked for cannot be asked for (`EX_USAGE` of sysexits.h); apart from the codes by which
/// `mesh submit` tells how a task ended.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell when it cannot be written.
            let _ = error.print();
            // Help and version were asked for.
            let asked = !error.use_stderr();
            return if asked {
                ExitCode::SUCCESS
            } else {
                USAGE.into()
            };
        }
    };
    log(&args.command);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args)));
    match outcome {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            Screen::stderr().error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Validate(args) => validate::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Up(args) => up::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Token(args) => token::run(&args),
        Command::Submit(args) => submit::run(args).await,
        Command::Load(args) => accounting::run(args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Dlq(args) => dlq::run(&args).await,
        Command::Import(args) => import::run(&args),
        Command::Diff(args) => live::diff(&args).await,
        Command::Apply(args) => live::apply(&args).await,
    }
}

/// The log goes to standard error, so that what a command prints can be piped.
fn log(command: &Command) {
    let level = match command {
        Command::Up(_) => "info,access=warn",
        _ => "warn",
    };
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would tell standard error that standard error cannot be written, and panic.
        .log_internal_errors(false)
        .init();
}

/// `mesh status | head`: whoever reads has read enough, which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
