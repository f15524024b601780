//! `mesh check`: what the mesh rests on, group by group, with a code and a mend for what is wrong.
//!
//! ```text
//!  mesh.yaml ─▶ secrets ─▶ broker, store, registry, planner, telemetry ─▶ parts, certificates
//!    config                 (--pre ends here)
//! ```
//!
//! Groups do not wait for one another, and none of them changes anything.

mod alerts;
mod ask;
mod broker;
mod finding;
mod intentions;
mod management;
mod outside;
mod parts;
mod registry;
mod store;
mod telemetry;

pub use ask::client;

use crate::args::{Check, Output};
use crate::load::{Loaded, base, compile, count, environment};
use crate::progress::Progress;
use crate::screen::{self, Screen};
use finding::{Finding, Group, State};
use mesh_config::mesh::{ASSERTION_KEY, Auth, Overrides};
use mesh_config::secret::{Secrets, Source};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two rounds of `--wait`.
const ROUND: Duration = Duration::from_millis(500);

pub async fn run(args: &Check) -> anyhow::Result<ExitCode> {
    let until = args.wait.map(|wait| Instant::now() + wait);
    let quiet = until.is_none() || args.output == Output::Json;
    let waiting = Progress::spinner("looking", quiet);
    let groups = loop {
        let groups = groups(args).await?;
        let again = until.is_some_and(|until| Instant::now() < until);
        if !again || !groups.iter().any(Group::fails) {
            break groups;
        }
        let wrong = groups.iter().map(|group| group.count(State::Fail)).sum();
        waiting.say(format!("{}, looking again", count(wrong, "failure")));
        tokio::time::sleep(ROUND).await;
    };
    drop(waiting);
    let groups: Vec<Group> = groups.into_iter().map(Group::with_mends).collect();
    let mut screen = Screen::stdout();
    let of = |state| groups.iter().map(|group| group.count(state)).sum::<usize>();
    let (wrong, odd) = (of(State::Fail), of(State::Warn));
    match args.output {
        Output::Json => {
            let report =
                json!({"ok": wrong == 0, "failures": wrong, "warnings": odd, "groups": groups});
            screen.line(screen::json(&report)?)?;
        }
        Output::Text => {
            for group in &groups {
                screen.line(group.shown(&screen))?;
            }
            let (wrong, odd) = (count(wrong, "failure"), count(odd, "warning"));
            screen.line(format!("{wrong}, {odd}"))?;
        }
    }
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn groups(args: &Check) -> anyhow::Result<Vec<Group>> {
    let mut config = Group::new("config");
    let Some(loaded) = read(args, &mut config)? else {
        return Ok(vec![config]);
    };
    // A development mesh makes its own keys when it starts.
    let key = Source::File(PathBuf::from(ASSERTION_KEY));
    let made = args.pre
        && loaded.mesh.gateway.auth == Auth::Development
        && !loaded.base.join(ASSERTION_KEY).exists();
    let sources = loaded.mesh.sources().into_iter();
    let sources = sources.filter(|(_, source)| !(made && **source == key));
    let secrets = Secrets::resolve(sources, &loaded.base, &environment);
    let secrets = match secrets {
        Ok(secrets) => secrets,
        Err(errors) => {
            for error in errors {
                config.push(
                    Finding::fail("secret_missing", error.to_string())
                        .mend("set the variable, or write the file, that mesh.yaml names"),
                );
            }
            return Ok(vec![config]);
        }
    };
    config.push(Finding::pass("every secret has a value"));
    let (mesh, pre) = (&loaded.mesh, args.pre);
    let (broker, store, registry, planner, telemetry) = tokio::join!(
        broker::check(&loaded, &secrets, pre),
        store::check(mesh, &secrets),
        registry::check(&loaded, &secrets, pre),
        outside::planner(mesh),
        telemetry::check(&loaded, pre),
    );
    let mut groups = vec![config, broker, store, registry, planner, telemetry];
    if !pre {
        groups.extend(parts::check(&loaded).await?);
    }
    Ok(groups)
}

/// The mesh as the file and the environment describe it, if they do.
fn read(args: &Check, config: &mut Group) -> anyhow::Result<Option<Loaded>> {
    let file = args.file.display();
    let mut compiled = match compile(&args.file)? {
        Ok(compiled) => compiled,
        Err(report) => {
            let errors = count(report.errors(), "error");
            config.push(
                Finding::fail("config_invalid", format!("{file} has {errors}")).mend(format!(
                    "mesh validate {file} says where, and what would pass"
                )),
            );
            return Ok(None);
        }
    };
    config.push(Finding::pass(format!("{file} is valid")));
    let warnings = compiled.warnings.warnings();
    if warnings > 0 {
        config.push(
            Finding::warn(
                "config_unwise",
                format!("{file} has {}", count(warnings, "warning")),
            )
            .mend(format!("mesh validate {file} says which")),
        );
    }
    if let Err(error) = compiled
        .mesh
        .apply(&Overrides::from_environment(&environment))
    {
        config.push(
            Finding::fail("environment_invalid", error.to_string()).mend(
                "unset the variable, or set it to what it says; the environment wins over the file",
            ),
        );
        return Ok(None);
    }
    Ok(Some(Loaded {
        mesh: compiled.mesh,
        base: base(&args.file),
    }))
}
