//! The `mesh` command: parses, sets up the log, calls the command, says how it ended.

mod accounting;
mod args;
mod check;
mod complete;
mod dead_letters;
mod demo;
mod dlq;
mod explain;
mod import;
mod live;
mod load;
mod logs;
mod man;
mod migrate;
mod outline;
mod progress;
mod render;
mod schema;
mod screen;
mod signals;
mod status;
mod submit;
mod task;
mod token;
mod top;
mod trace;
mod up;
mod validate;

use args::{Args, Command};
use clap::Parser;
use logs::LogFile;
use screen::Screen;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

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
    let kept = log(&args.command);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args, &kept)));
    match outcome {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            Screen::stderr().error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args, kept: &LogFile) -> anyhow::Result<ExitCode> {
    load::choose(args.environment, args.include_outside);
    match args.command {
        Command::Validate(args) => validate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Up(args) => up::run(args, kept).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Token(args) => token::run(&args),
        Command::Submit(args) => submit::run(args).await,
        Command::Load(args) => accounting::run(args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Dlq(args) => dlq::run(&args).await,
        Command::Top(args) => top::run(&args).await,
        Command::Trace(args) => trace::run(&args).await,
        Command::Logs(args) => logs::run(&args).await,
        Command::Completions(args) => complete::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Diff(args) => live::diff(&args).await,
        Command::Apply(args) => live::apply(&args).await,
    }
}

/// The log goes to standard error, so that what a command prints can be piped; that of `mesh up` into a file as well,
/// once it is known where ([`LogFile::open`]).
fn log(command: &Command) -> LogFile {
    let up = matches!(command, Command::Up(_));
    // A question about a queue that is not there closes a channel, which lapin takes for an error; what is one, its
    // caller says.
    let level = if up {
        "info,access=warn"
    } else {
        "warn,lapin=off"
    };
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| level.into());
    let kept = LogFile::default();
    let shown = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(kept.stderr())
        // It would tell standard error that standard error cannot be written, and panic.
        .log_internal_errors(false);
    let lines = up.then(|| {
        let lines = fmt::layer().json().with_writer(kept.clone());
        lines.log_internal_errors(false).boxed()
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(shown)
        .with(lines)
        .init();
    kept
}

/// `mesh status | head`: whoever reads has read enough, which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
