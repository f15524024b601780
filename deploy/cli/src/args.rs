//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// A mesh for AI agents: gateway, orchestrator, sidecars, agents, described by one file.
#[derive(Debug, Parser)]
#[command(name = "mesh", version)]
pub struct Args {
    /// Which of the file's `environments` is laid over it
    #[arg(long = "env", value_name = "NAME", env = "MESH_ENV", global = true)]
    pub environment: Option<String>,
    /// Let `include` lead out of the directory of mesh.yaml
    #[arg(long, global = true)]
    pub include_outside: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check mesh.yaml and say everything that is wrong with it
    ///
    /// Exit codes: 0 nothing is wrong (there may be warnings), 1 something is, or the file cannot be read.
    Validate(Validate),
    /// Write what a part reads, or what all parts read
    ///
    /// Files are replaced whole or not at all, and left alone when nothing changed. Those that an earlier call wrote and
    /// this one does not, such as of agents that are gone, are removed. Exit codes: 0 all written,
    /// 1 not: mesh.yaml has errors, a secret has no value, or a file cannot be written.
    Render(crate::render::Render),
    /// Say what a code of a report means, with an example and the mend
    ///
    /// Exit codes: 0 said, 1 there is no such code.
    Explain(crate::explain::Explain),
    /// Print what mesh.yaml may hold: JSON Schema for editors, or a reference to read
    ///
    /// Exit codes: 0 printed, 1 it cannot be written.
    Schema(crate::schema::Schema),
    /// Bring an older mesh.yaml up to the version that this program reads
    ///
    /// Exit codes: 0 nothing has to change, or it was written; 1 the file cannot be migrated; 2 something has to change,
    /// and was only shown.
    Migrate(crate::migrate::Migrate),
    /// Run the whole mesh in this process until Ctrl-C
    ///
    /// What it writes is kept in .mesh/logs too, for `mesh logs`. With -o json a line of JSON each for `started`,
    /// `ready` and `drained`. Exit codes: 0 drained, 1 it did not start, or lost a part, 130 ended at once (Ctrl-C twice).
    Up(Up),
    /// Run a mesh, send two tasks across it, show what happens
    ///
    /// Exit codes: 0 both tasks completed, 1 not.
    Demo(Demo),
    /// Print a token of the development issuer
    ///
    /// Exit codes: 0 printed, 1 the mesh has other issuers, or its gateway would refuse such a token.
    Token(Token),
    /// Submit a task through the gateway and follow it to its end
    ///
    /// Exit codes: 0 completed, 1 failed or cancelled, 2 not accepted, 3 gateway not reached or lost on
    /// the way, 64 nothing was sent: the command line, the payload, the mesh or its key is of no use.
    Submit(Submit),
    /// Submit many tasks at a rate, follow each to its end, and count what became of them
    ///
    /// Each is submitted under a key of its own, and again under that key when its answer is lost. Exit codes: 0 none
    /// was lost or doubled, 1 some were, 3 nobody listens and nothing was sent, 64 usage.
    Load(Load),
    /// Check everything that the mesh rests on, and say what to do about what is wrong
    ///
    /// Exit codes: 0 nothing is wrong (there may be warnings), 1 something is.
    Check(Check),
    /// Show every part of the mesh and whether it works
    ///
    /// Exit codes: 0 every part is up, 1 one is down, or no mesh is known.
    Status(Status),
    /// Look at dead letters, replay them or drop them
    ///
    /// Exit codes: 0 done, 1 not: there is no such dead letter, the broker is not reached, or one stays.
    Dlq(Dlq),
    Top(crate::top::Top),
    Trace(crate::trace::Trace),
    Logs(crate::logs::Logs),
    Completions(crate::complete::Completions),
    Man(crate::man::ManPages),
    /// Make a mesh.yaml of kong.yml, RabbitMQ's definitions.json or docker-compose.yml
    ///
    /// Secrets become references to variables, which are listed. Exit codes: 0 all of it is carried over, 2 what is not
    /// is named (the rest is written), 1 nothing is written, 64 the command line is of no use.
    Import(crate::import::Args),
    /// Show what is different between mesh.yaml and what Kong, RabbitMQ and Consul hold
    ///
    /// Exit codes: 0 nothing is, 2 something is, 1 it is not known: mesh.yaml, a secret or a part is of no use.
    Diff(crate::live::Diff),
    /// Make Kong, RabbitMQ and Consul hold what mesh.yaml says, after showing what that changes
    ///
    /// Exit codes: 0 they do, 2 they do not and nothing was done (--dry-run, or nobody said yes), 1 it stopped, and
    /// says where.
    Apply(crate::live::Apply),
}

#[derive(Debug, clap::Args)]
pub struct Validate {
    /// The file
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Up {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Directory of the filters' modules
    #[arg(long, env = "MESH_FILTERS")]
    pub filters: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Directory of the filters' modules
    #[arg(long, env = "MESH_FILTERS")]
    pub filters: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Token {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Who the token names
    #[arg(long, default_value = "developer")]
    pub sub: String,
    /// Its scopes, separated by spaces
    #[arg(long, default_value = "tasks:read tasks:write")]
    pub scope: String,
    /// How long it is valid, such as 15m
    #[arg(long, default_value = "1h", value_parser = ttl)]
    pub ttl: std::time::Duration,
    /// A further claim, NAME=VALUE; the value is JSON, or else text
    #[arg(long = "claim", value_parser = claim)]
    pub claims: Vec<(String, serde_json::Value)>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Submit {
    /// Type of the task, such as data_processing
    pub task_type: String,
    /// Input: a JSON object, or @FILE
    #[arg(long, default_value = "{}")]
    pub payload: String,
    /// 0 (lowest) to 10
    #[arg(long, default_value_t = mesh_protocol::task::DEFAULT_PRIORITY)]
    pub priority: u8,
    /// Time budget of the task in seconds
    #[arg(long, default_value_t = mesh_protocol::task::DEFAULT_TIMEOUT_S)]
    pub timeout: u32,
    #[command(flatten)]
    pub access: Access,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// Where to, and as whom.
#[derive(Debug, clap::Args)]
pub struct Access {
    /// URL of the gateway; that of the mesh when left out
    #[arg(long, env = "MESH_GATEWAY", hide_env_values = true)]
    pub gateway: Option<String>,
    /// A token; one of the development issuer when left out
    #[arg(long, env = "MESH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The mesh, for gateway and token
    #[arg(long, default_value = "mesh.yaml")]
    pub file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Load {
    /// How many tasks
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub tasks: u64,
    /// How many a second
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// How many may be under way; beyond that the next ones wait
    #[arg(long, default_value_t = 1_000, value_parser = in_flight)]
    pub in_flight: usize,
    /// Type of the tasks
    #[arg(long, default_value = "system_optimization")]
    pub task_type: String,
    /// Input of each: a JSON object, or @FILE
    #[arg(long, default_value = "{}")]
    pub payload: String,
    /// Time budget of each in seconds
    #[arg(long, default_value_t = mesh_protocol::task::DEFAULT_TIMEOUT_S)]
    pub timeout: u32,
    #[command(flatten)]
    pub access: Access,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Before the mesh runs: only what has to be there already
    #[arg(long)]
    pub pre: bool,
    /// Check again until nothing is wrong, for so long, such as 30s
    #[arg(long, value_parser = ttl)]
    pub wait: Option<std::time::Duration>,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Dlq {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List all, oldest first
    List(DlqWhere),
    /// Show those of a task whole: reason, history, message
    Show(DlqOne),
    /// Put them back into their queues, to be carried out anew
    Replay(DlqSome),
    /// Take them off for good
    Drop(DlqSome),
}

#[derive(Debug, clap::Args)]
pub struct DlqWhere {
    /// Those of one agent
    #[arg(long)]
    pub agent: Option<String>,
    /// The mesh
    #[arg(long, default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct DlqOne {
    /// Id of the task
    pub task: String,
    #[command(flatten)]
    pub at: DlqWhere,
}

#[derive(Debug, clap::Args)]
pub struct DlqSome {
    #[command(flatten)]
    pub which: DlqWhich,
    #[command(flatten)]
    pub at: DlqWhere,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct DlqWhich {
    /// Id of the task
    pub task: Option<String>,
    /// Every task's
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    rate.filter(|rate| (0.01..=10_000.0).contains(rate))
        .ok_or_else(|| "write a number from 0.01 to 10000".to_owned())
}

fn in_flight(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok();
    // Each has a connection of its own while it is held.
    number
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| "write a number from 1 to 10000".to_owned())
}

pub fn ttl(text: &str) -> Result<std::time::Duration, String> {
    mesh_config::duration(text)
        .filter(|d| d.as_secs() > 0)
        .ok_or_else(|| "write a whole number and s, m or h, such as 15m".to_owned())
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}
