//! Golden cases: a mesh.yaml beside what must come of it.
//!
//! `tests/cases/NAME/mesh.yaml` with `kong.yml`, `orchestrator.json`, `sidecar-AGENT.json`, `kong.env`
//! and `warnings.txt` for a mesh that is good, or `errors.txt` for one that is not. What any other target of
//! `mesh render` makes of it lies in `tests/cases/NAME/TARGET/`, for the cases that have that directory. `UPDATE=1`
//! writes what comes of it now; read the difference before committing it.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::mesh::Overrides;
use mesh_config::render;
use mesh_config::secret::Secrets;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Targets whose files lie beside every mesh.yaml.
const FLAT: [&str; 3] = ["kong", "sidecar", "orchestrator"];

/// What comes of a case's mesh.yaml, by path within the case; an empty text stands for no file.
fn outputs(dir: &Path, text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    match mesh_config::compile("mesh.yaml", text) {
        Err(report) => {
            out.insert("errors.txt".to_owned(), report.to_string());
        }
        Ok(compiled) => {
            let (mesh, none) = (&compiled.mesh, Secrets::none());
            let warnings = compiled.warnings.to_string();
            if !warnings.is_empty() {
                out.insert("warnings.txt".to_owned(), warnings);
            }
            let kong = render::kong(mesh, &none).unwrap();
            let yaml = kong.to_yaml().unwrap();
            let read = mesh_declarative::Config::from_yaml(&yaml).unwrap();
            assert_eq!(read, kong, "what was written is read back");
            broker_and_registry(mesh, &mut out);
            for target in render::TARGETS {
                let within = dir.join(target.name).is_dir();
                if !within && !FLAT.contains(&target.name) {
                    continue;
                }
                for file in (target.render)(mesh, &none).unwrap() {
                    let name = match within {
                        true => format!("{}/{}", target.name, file.name),
                        false => file.name,
                    };
                    out.insert(name, file.text);
                }
            }
        }
    }
    out
}

/// What broker and registry hold, of a mesh that has them.
fn broker_and_registry(mesh: &mesh_config::Mesh, out: &mut BTreeMap<String, String>) {
    let mut json = |name: String, value: serde_json::Value| {
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        out.insert(name, text);
    };
    if mesh.messaging.rabbitmq.is_some() {
        let definitions = render::rabbitmq(mesh, &Secrets::none()).unwrap();
        json(
            "rabbitmq.json".to_owned(),
            serde_json::to_value(definitions).unwrap(),
        );
    }
    if mesh.trust.registry.consul.is_some() {
        let agent = serde_json::to_value(render::consul(mesh).unwrap()).unwrap();
        json("consul.json".to_owned(), agent);
        let intentions = render::consul::intentions(mesh).unwrap();
        let intentions = serde_json::to_value(intentions).unwrap();
        json("consul-intentions.json".to_owned(), intentions);
    }
}

/// Every file of a directory by its path within it, which `prefix` begins.
fn files(dir: &Path, prefix: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        match path.is_dir() {
            true => all.extend(files(&path, &format!("{prefix}{name}/"))),
            false => all.push(format!("{prefix}{name}")),
        }
    }
    all
}

#[test]
fn every_case_gives_what_lies_beside_it() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let (mut good, mut bad) = (0, 0);
    for case in fs::read_dir(&cases).unwrap() {
        let dir = case.unwrap().path();
        let text = fs::read_to_string(dir.join("mesh.yaml")).unwrap();
        let outputs = outputs(&dir, &text);
        // The word stands for every secret.
        for (name, text) in &outputs {
            assert!(!text.contains("hunter2"), "{}: {name}", dir.display());
        }
        if outputs.contains_key("errors.txt") {
            bad += 1;
        } else {
            good += 1;
        }
        for name in files(&dir, "") {
            if name != "mesh.yaml" && !outputs.contains_key(&name) {
                if update {
                    fs::remove_file(dir.join(&name)).unwrap();
                } else {
                    wrong.push(format!(
                        "{} no longer comes about",
                        dir.join(&name).display()
                    ));
                }
            }
        }
        for (name, text) in outputs {
            let path = dir.join(&name);
            if update {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &text).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                wrong.push(format!("{} should be:\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(good >= 4 && bad >= 25, "{good} good and {bad} bad cases");
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let said = mesh_config::compile_bytes("mesh.yaml", b"version: 1\n# \xc3\xa9\xff\nmesh: m\n");
    let said = said.unwrap_err().to_string();
    assert!(said.contains("error[not_utf8]"), "{said}");
    assert!(said.contains("mesh.yaml:2:4"), "{said}");
}

#[test]
fn the_environment_brings_no_password_into_a_file() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ok-smallest/mesh.yaml"),
    );
    let mesh = mesh_config::compile("mesh.yaml", &text.unwrap())
        .unwrap()
        .mesh;
    for more in [
        "u:hunter2@127.0.0.1",
        "hunter2@127.0.0.1",
        "127.0.0.1/?k=hunter2",
        "127.0.0.1/#hunter2",
    ] {
        let url = format!("http://{more}");
        let overrides =
            Overrides::from_environment(&|name| (name == "OLLAMA_URL").then(|| url.clone()));
        let error = mesh.clone().apply(&overrides).unwrap_err().to_string();
        assert!(
            error.contains("OLLAMA_URL") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn an_endpoint_that_is_accepted_is_accepted_by_the_sidecar() {
    for url in [
        "http://127.0.0.1:9000",
        "http://[::1]:9000/base/",
        "http://localhost",
        "http://10.0.0.7:8080/a%20b",
        "http://agent.example:9000",
        "http://u:p@127.0.0.1:9000",
        "http://127.0.0.1:9000/?a",
        "http://127.0.0.1:9000/#a",
        "https://127.0.0.1:9000",
        "http://0x7f.1:9000",
    ] {
        let text = format!(
            "{{version: 1, mesh: m, gateway: {{auth: {{development: true}}}}, agents: [{{id: a, endpoint: \"{url}\"}}]}}"
        );
        let Ok(compiled) = mesh_config::compile("mesh.yaml", &text) else {
            continue;
        };
        let agent = &compiled.mesh.agents[0];
        let sidecar = render::sidecar(&compiled.mesh, agent, &Secrets::none()).unwrap();
        let rendered = serde_json::to_string(&sidecar).unwrap();
        serde_json::from_str::<mesh_sidecar::config::Config>(&rendered)
            .unwrap_or_else(|e| panic!("{url}: {e}"));
    }
}

#[test]
fn no_text_makes_it_panic_or_hang() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for case in fs::read_dir(&cases).unwrap() {
        let text = fs::read_to_string(case.unwrap().path().join("mesh.yaml")).unwrap();
        // Every prefix that ends at a character: files are cut anywhere while being written.
        for (at, _) in text.char_indices().step_by(29) {
            if let Err(report) = mesh_config::compile("mesh.yaml", &text[..at]) {
                let _ = report.to_string();
            }
        }
    }
}
