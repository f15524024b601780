//! `mesh render`: files that can be read by anyone, and with `--secrets` those that run.

use crate::args::Output;
use crate::load::{Loaded, environment, load};
use crate::screen::{self, Paint, Screen};
use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser};
use mesh_config::deploy::Place;
use mesh_config::render::{self, Rendered, TARGETS, Target, Written};
use mesh_config::secret::Secrets;
use mesh_local::identity;
use serde_json::json;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::ExitCode;

/// Every target, each into a directory of its own name.
const ALL: &str = "all";
/// The user of our images.
const NOBODY: u32 = 65_532;

#[derive(Debug, clap::Args)]
pub struct Render {
    /// Whose files
    #[arg(value_parser = targets())]
    pub target: String,
    /// The mesh
    #[arg(default_value = "mesh.yaml")]
    pub file: PathBuf,
    /// Directory to write to
    #[arg(long)]
    pub out: PathBuf,
    /// Also write NAME.secret.EXT with the secrets' values, for the owner alone
    #[arg(long)]
    pub secrets: bool,
    /// Where the filters' modules are on the machine or in the container of that Kong
    #[arg(long, default_value = render::FILTERS_PATH)]
    pub filters_path: String,
    /// Compose: where this repository lies, as seen from --out; our images are built from it
    #[arg(long, default_value = ".")]
    pub root: String,
    /// Form of what is printed
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

fn targets() -> PossibleValuesParser {
    let one = |target: &Target| PossibleValue::new(target.name).help(target.writes);
    let all = PossibleValue::new(ALL).help("every one, each in a directory of its name");
    TARGETS
        .iter()
        .map(one)
        .chain([all])
        .collect::<Vec<_>>()
        .into()
}

pub fn run(args: &Render) -> anyhow::Result<ExitCode> {
    let mut loaded = load(&args.file)?;
    loaded
        .mesh
        .gateway
        .filters_path
        .clone_from(&args.filters_path);
    loaded.mesh.deploy.root.clone_from(&args.root);
    let chosen = TARGETS
        .iter()
        .filter(|target| args.target == ALL || args.target == target.name);
    // All of them before the first is written: what cannot be rendered leaves everything as it was.
    let rendered = chosen.map(|target| {
        let files = files(target, &loaded, args.secrets);
        let files = files.with_context(|| format!("cannot render {}", target.name))?;
        Ok((target, files))
    });
    let rendered: Vec<(&Target, Vec<Rendered>)> = rendered.collect::<anyhow::Result<_>>()?;
    let (mut written, mut removed) = (Vec::new(), Vec::new());
    for (target, files) in rendered {
        let out = if args.target == ALL {
            args.out.join(target.name)
        } else {
            args.out.clone()
        };
        let name = &loaded.mesh.name;
        let done = render::replace_all(&out, name, target.name, &files, args.secrets)
            .context("cannot write")?;
        if target.place == Some(Place::Compose) {
            give(&done.written, owner())?;
        }
        written.extend(done.written.into_iter().map(|file| (target.name, file)));
        removed.extend(done.removed);
    }
    let mut screen = Screen::stdout();
    if args.output == Output::Json {
        let files = written.iter().map(|(target, file)| {
            json!({"target": target, "path": file.path, "changed": file.changed, "secret": file.secret})
        });
        let report = json!({"files": files.collect::<Vec<_>>(), "removed": removed});
        screen.line(screen::json(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (_, file) in written {
        let what = if file.changed {
            screen.paint(Paint::Good, "written  ")
        } else {
            screen.paint(Paint::Dim, "unchanged")
        };
        screen.line(format!("{what} {}", file.path.display()))?;
    }
    for path in removed {
        let what = screen.paint(Paint::Odd, "removed  ");
        screen.line(format!("{what} {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What anyone may read, and with `secrets` the files that hold their values.
fn files(target: &Target, loaded: &Loaded, secrets: bool) -> anyhow::Result<Vec<Rendered>> {
    let mesh = &loaded.mesh;
    let mut files = (target.render)(mesh, &Secrets::none())?;
    if !secrets {
        return Ok(files);
    }
    let secrets = match target.place {
        Some(place) => identity::secrets_in_containers(mesh, place, &loaded.base, &environment)?,
        None => identity::secrets(mesh, &loaded.base, &environment)?,
    };
    let known = (target.render)(mesh, &secrets)?;
    files.extend(known.into_iter().filter(|file| file.secret));
    if target.place == Some(Place::Compose) {
        let (user, group) = owner();
        let text = format!("MESH_UID={user}\nMESH_GID={group}\n");
        files.push(Rendered::open(".env", text));
    }
    Ok(files)
}

/// Who runs this owns the secret files, and the containers that read them run as the same user: as root by nobody.
/// What root renders is whoever's asked sudo, or else of the user that our images have.
fn owner() -> (u32, u32) {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    if !user.is_root() {
        return (user.as_raw(), group.as_raw());
    }
    let asked = |name| environment(name)?.parse().ok().filter(|id| *id != 0);
    match (asked("SUDO_UID"), asked("SUDO_GID")) {
        (Some(user), Some(group)) => (user, group),
        _ => (NOBODY, NOBODY),
    }
}

/// Gives the files that Compose mounts as secrets to those who read them.
fn give(files: &[Written], (user, group): (u32, u32)) -> anyhow::Result<()> {
    if !rustix::process::getuid().is_root() {
        return Ok(());
    }
    for file in files.iter().filter(|file| file.secret) {
        chown(&file.path, Some(user), Some(group))
            .with_context(|| format!("cannot give {} to {user}", file.path.display()))?;
    }
    Ok(())
}
