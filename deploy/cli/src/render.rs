//! `mesh render`: files that can be read by anyone, and with `--secrets` those that run.

use crate::args::{Part, Render};
use crate::load::{Loaded, environment, load};
use crate::screen::{Paint, Screen};
use anyhow::Context;
use mesh_config::render::{self, Rendered};
use mesh_config::secret::Secrets;
use std::process::ExitCode;

pub fn run(args: &Render) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let mut files = files(args, &loaded, &Secrets::none(), false)?;
    if args.part == Part::Kong {
        files.push(Rendered {
            name: "kong.env".to_owned(),
            text: render::environment(&loaded.mesh, &args.filters_path),
            secret: false,
        });
    }
    if args.secrets {
        let secrets = mesh_local::identity::secrets(&loaded.mesh, &loaded.base, &environment)?;
        files.extend(self::files(args, &loaded, &secrets, true)?);
    }
    let written = render::write_all(&args.out, &files).context("cannot write")?;
    let mut screen = Screen::stdout();
    for file in written {
        let what = if file.changed {
            screen.paint(Paint::Good, "written  ")
        } else {
            screen.paint(Paint::Dim, "unchanged")
        };
        screen.line(format!("{what} {}", file.path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn files(
    args: &Render,
    loaded: &Loaded,
    secrets: &Secrets,
    secret: bool,
) -> anyhow::Result<Vec<Rendered>> {
    let mesh = &loaded.mesh;
    let infix = if secret { ".secret" } else { "" };
    let file = |name: &str, extension: &str, text: String| Rendered {
        name: format!("{name}{infix}.{extension}"),
        text,
        secret,
    };
    Ok(match args.part {
        Part::Kong => vec![file("kong", "yml", render::kong(mesh, secrets)?.to_yaml()?)],
        Part::Orchestrator => {
            let config = render::orchestrator(mesh, secrets)?;
            let text = serde_json::to_string_pretty(&config)? + "\n";
            vec![file("orchestrator", "json", text)]
        }
        Part::Sidecar => {
            let mut files = Vec::new();
            for config in render::sidecars(mesh, secrets)? {
                let text = serde_json::to_string_pretty(&config)? + "\n";
                files.push(file(&format!("sidecar-{}", config.service), "json", text));
            }
            files
        }
        Part::Rabbitmq => {
            let text = serde_json::to_string_pretty(&render::rabbitmq(mesh, secrets)?)? + "\n";
            vec![file("rabbitmq", "json", text)]
        }
        // Nothing of it is secret.
        Part::Consul if secret => Vec::new(),
        Part::Consul => {
            let text = serde_json::to_string_pretty(&render::consul(mesh)?)? + "\n";
            let mut files = vec![file("consul.d/mesh", "json", text)];
            for entry in render::consul::intentions(mesh)? {
                let text = serde_json::to_string_pretty(&entry)? + "\n";
                files.push(file(
                    &format!("consul.d-intentions/{}", entry.name),
                    "json",
                    text,
                ));
            }
            files
        }
    })
}
