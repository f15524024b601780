//! A Compose file: each of its services becomes one of the mesh's, with what it says as its `container`.
//!
//! What mesh.yaml has a word for is read; what only Compose has goes on as Compose has it. What reaches
//! beyond the file (extends, include, secrets of its own) and what the mesh makes itself (networks, volumes)
//! is named.

use super::ImportError;
use super::compose_mounts as mounts;
use super::compose_values as values;
use super::cursor::Cursor;
use super::found::{Entity, Found};
use super::written::{Build, Condition, Container, File, Healthcheck, Service};
use crate::deploy::Part;
use crate::schema::tree::Value;
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet};

/// What the mesh cannot hand on even as it stands.
const BEYOND: [&str; 5] = [
    "extends",
    "secrets",
    "configs",
    "develop",
    "credential_spec",
];

pub(super) fn read(root: &Cursor<'_>, found: &mut Found<'_>) -> Result<File, ImportError> {
    let Some(mut top) = Entity::of(root, found) else {
        let problem = "a Compose file holds a mapping";
        return Err(ImportError::Form(problem.to_owned()));
    };
    // It says which Compose the file was written for, and Compose itself looks at it no more.
    top.take("version");
    let name = top.take_text("name", found).unwrap_or_default();
    let mut file = File {
        version: 1,
        mesh: if is_mesh_name(&name) {
            name
        } else {
            String::new()
        },
        ..File::default()
    };
    let mut mounted: BTreeSet<String> = BTreeSet::new();
    if let Some(services) = top.take("services") {
        let Some(services) = Entity::of(&services, found) else {
            return Err(ImportError::Form("services is no mapping".to_owned()));
        };
        for (name, at) in services.rest() {
            let Some(container) = container(&name, &at, found) else {
                continue;
            };
            mounted.extend(mounts::volumes_of(&container.volumes));
            hint(&name, &at, &container, found);
            file.services.push(Service {
                name,
                container: Some(container),
                ..Service::default()
            });
        }
    }
    // The file's own containers and no more, published as Compose does.
    file.deploy.insert("publish", "0.0.0.0".into());
    for (name, part) in Part::ALL {
        if part.is_needed() && !part.is_image() {
            file.deploy.insert(name, false.into());
        }
    }
    found.note("deploy: the mesh's own parts are switched off; take a line out to have one");
    if file.services.is_empty() {
        let problem = "there is no service that could be carried over";
        return Err(ImportError::Unusable(problem.to_owned()));
    }
    made_by_the_mesh(&mut top, "volumes", &mounted, found);
    let networks = file.services.iter().filter_map(|s| s.container.as_ref());
    let networks = networks.flat_map(|c| c.networks.iter().cloned()).collect();
    made_by_the_mesh(&mut top, "networks", &networks, found);
    let extensions: Vec<String> = top
        .at
        .entries()
        .filter(|(key, _)| key.text.starts_with("x-"))
        .map(|(key, _)| key.text.clone())
        .collect();
    for name in extensions {
        top.take(&name);
        found.note(format!("{name} means nothing to Compose; what other parts took of it by an anchor is written out"));
    }
    top.finish(found, &|name| {
        Some(match name {
            "secrets" => {
                "name the files at their services, under container.environment as {file: PATH}"
            }
            "configs" => "mount the files at their services, under container.volumes",
            "include" => "import the other files too",
            _ => return None,
        })
    });
    found.note(
        "paths are relative to mesh.yaml: write it where the Compose file lies, or change them",
    );
    Ok(file)
}

/// A mesh's name is an audience of tokens, and short.
fn is_mesh_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(legal)
}

/// Volumes and networks: those without settings follow from who uses them.
fn made_by_the_mesh(
    top: &mut Entity<'_>,
    what: &str,
    used: &BTreeSet<String>,
    found: &mut Found<'_>,
) {
    let Some(all) = top.take(what) else { return };
    for (key, at) in all.entries() {
        let bare = match &at.node.value {
            Value::Null => true,
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        };
        if !bare {
            found.lose(
                &at,
                format!("the mesh makes its {what} itself, without settings"),
            );
        } else if !used.contains(&key.text) {
            found.lose(&at, "no service uses it");
        }
    }
}

fn container(name: &str, at: &Cursor<'_>, found: &mut Found<'_>) -> Option<Container> {
    let mut entity = Entity::of(at, found)?;
    let container = Container {
        image: values::text(&mut entity, "image", found),
        build: entity.take("build").and_then(|at| build(&at, found)),
        ports: mounts::ports(entity.take_list("ports", found), found),
        environment: values::environment(name, entity.take("environment"), found),
        volumes: mounts::volumes(entity.take_list("volumes", found), found),
        entrypoint: values::open_words(entity.take("entrypoint"), found),
        command: values::open_words(entity.take("command"), found),
        networks: networks(entity.take("networks"), found),
        depends_on: depends_on(entity.take("depends_on"), found),
        healthcheck: entity
            .take("healthcheck")
            .and_then(|at| healthcheck(&at, found)),
        user: values::text(&mut entity, "user", found),
        restart: values::text(&mut entity, "restart", found),
        compose: Map::new(),
    };
    if container.image.is_none() && container.build.is_none() {
        found.lose(
            at,
            "it has neither an image nor a build that could be carried over",
        );
        return None;
    }
    Some(Container {
        compose: own_words(entity, found),
        ..container
    })
}

/// What Compose alone has.
fn own_words(entity: Entity<'_>, found: &mut Found<'_>) -> Map<String, serde_json::Value> {
    let mut words = Map::new();
    for (name, at) in entity.rest() {
        if BEYOND.contains(&name.as_str()) {
            found.lose(
                &at,
                "it reaches beyond the service: write out what it stands for",
            );
            continue;
        }
        if name.starts_with("x-") {
            found.note(format!("{} means nothing to Compose", at.path));
            continue;
        }
        let Some(mut value) = found.json(&at) else {
            continue;
        };
        let mut secret = false;
        let under = crate::secret_names::is_secret_name(&name);
        crate::secret_names::each_in_the_clear(&mut value, "", under, &mut |_, _| secret = true);
        if secret {
            found.lose(
                &at,
                "it holds a secret: put it into `environment`, as {env: NAME}",
            );
            continue;
        }
        words.insert(name, value);
    }
    words
}

fn build(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<Build> {
    if matches!(at.node.value, Value::Text(_)) {
        return Some(Build {
            context: values::plain(at, found)?,
            ..Build::default()
        });
    }
    let mut entity = Entity::of(at, found)?;
    let build = Build {
        context: values::text(&mut entity, "context", found).unwrap_or_else(|| ".".to_owned()),
        dockerfile: values::text(&mut entity, "dockerfile", found),
        target: values::text(&mut entity, "target", found),
        args: values::arguments(entity.take("args"), found),
    };
    entity.finish(found, &|_| None);
    Some(build)
}

fn networks(at: Option<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let Some(at) = at else { return Vec::new() };
    if matches!(at.node.value, Value::List(_)) {
        return at
            .items()
            .filter_map(|at| values::plain(&at, found))
            .collect();
    }
    let mut all = Vec::new();
    for (key, at) in at.entries() {
        if !at.is_null() {
            found.lose(
                &at,
                "aliases and addresses within a network are not carried over",
            );
        }
        all.push(key.text.clone());
    }
    all
}

fn depends_on(at: Option<Cursor<'_>>, found: &mut Found<'_>) -> BTreeMap<String, Condition> {
    let Some(at) = at else {
        return BTreeMap::new();
    };
    let started = "service_started";
    let mut all = BTreeMap::new();
    for at in at.items() {
        if let Some(name) = values::plain(&at, found) {
            let condition = started.to_owned();
            all.insert(name, Condition { condition });
        }
    }
    for (key, at) in at.entries() {
        let mut condition = started.to_owned();
        if !at.is_null()
            && let Some(mut entity) = Entity::of(&at, found)
        {
            if let Some(text) = entity.take_text("condition", found) {
                condition = text;
            }
            // As it is anyhow.
            for (field, usual) in [("restart", "false"), ("required", "true")] {
                if let Some(at) = entity.take(field)
                    && found.scalar(&at).as_deref() != Some(usual)
                {
                    found.lose(&at, "it has no place in mesh.yaml");
                }
            }
            entity.finish(found, &|_| None);
        }
        all.insert(key.text.clone(), Condition { condition });
    }
    all
}

fn healthcheck(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<Healthcheck> {
    let mut entity = Entity::of(at, found)?;
    let disabled = entity.take("disable");
    let disabled = disabled.and_then(|at| found.scalar(&at));
    let test = entity.take("test");
    let mut time = |name: &str, found: &mut Found<'_>| {
        let at = entity.take(name)?;
        values::duration(&at, found)
    };
    let (interval, timeout) = (time("interval", found), time("timeout", found));
    let start_period = time("start_period", found);
    let retries = entity.take("retries").and_then(|at| {
        let number = values::plain(&at, found)?.parse().ok();
        if number.is_none() {
            found.lose(&at, "it is no number");
        }
        number
    });
    entity.finish(found, &|_| None);
    let test = match (&test, disabled.as_deref()) {
        (_, Some("true")) => vec!["NONE".to_owned()],
        (Some(test), _) if matches!(test.node.value, Value::List(_)) => test
            .items()
            .filter_map(|at| values::plain(&at, found))
            .collect(),
        (Some(test), _) => vec!["CMD-SHELL".to_owned(), values::plain(test, found)?],
        (None, _) => {
            found.lose(
                at,
                "without a test it changes the image's own, which mesh.yaml cannot",
            );
            return None;
        }
    };
    if crate::secret_names::command_holds_secret(test.iter().map(String::as_str)) {
        found.lose(at, values::TOLD);
        return None;
    }
    Some(Healthcheck {
        test,
        interval,
        timeout,
        retries,
        start_period,
    })
}

/// Says of a service that it may be an agent: then the mesh can hand it steps.
fn hint(name: &str, at: &Cursor<'_>, container: &Container, found: &mut Found<'_>) {
    let words = ["agent", "coordinator", "orchestrator"];
    let context = container.build.as_ref().map_or("", |build| &build.context);
    let named = words.iter().any(|word| name.contains(word)) || context.contains("agents/");
    let asked = container.healthcheck.iter().flat_map(|check| &check.test);
    let processes = asked.into_iter().any(|word| word.contains("/process"))
        || container
            .environment
            .keys()
            .any(|key| key.starts_with("AGENT_"));
    if named || processes {
        found.note(format!(
            "{}: it looks like an agent. If it answers POST /process, list it under `agents` with its endpoint, and the mesh hands it steps",
            at.path
        ));
    }
}
