//! Secrets in Vault, by a double of the documented API of its KV engine, version 2 (Vault 1.21, `GET
//! /v1/MOUNT/data/PATH`): values, what is not there, what was deleted, errors as Vault writes them.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::mesh::Mesh;
use mesh_config::render;
use mesh_config::secret::{Secrets, Source};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

const TOKEN: &str = "hvs.the-token";

struct Vault {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Vault {
    /// Serves until the test's process ends.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &seen);
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let token = format!("x-vault-token: {TOKEN}");
    let known = headers.iter().any(|h| h.to_ascii_lowercase() == token);
    let (status, body) = if known {
        answer(&path)
    } else {
        (403, PERMISSION.to_owned())
    };
    asked.lock().unwrap().push(path);
    let mut stream = stream;
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

const PERMISSION: &str = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;

fn answer(path: &str) -> (u16, String) {
    let metadata = r#"{"created_time":"2026-11-28T10:00:00Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":3}"#;
    let secret = |data: &str| {
        let body = format!(
            r#"{{"request_id":"9f8c","lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{data},"metadata":{metadata}}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}}"#
        );
        (200, body)
    };
    match path {
        "/v1/secret/data/redis" => {
            secret(r#"{"url":"redis://:hunter2@127.0.0.1:6379","port":6379,"tls":{"on":true}}"#)
        }
        "/v1/team/kv/data/mesh/consul" => secret(r#"{"token":" hunter3 "}"#),
        "/v1/secret/data/gone" => {
            let body = r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-11-28T10:00:00Z","version":1}}}"#;
            (404, body.to_owned())
        }
        "/v1/secret/data/hidden" => (403, PERMISSION.to_owned()),
        "/v1/secret/data/sealed" => (503, r#"{"errors":["Vault is sealed"]}"#.to_owned()),
        "/v1/secret/data/page" => (200, "<html>a proxy's page</html>".to_owned()),
        _ => (404, r#"{"errors":[]}"#.to_owned()),
    }
}

fn mesh(more: &str) -> Mesh {
    let text = format!(
        "version: 1\nmesh: m\ngateway: {{auth: {{development: true}}}}\norchestrator: {{planner: {{general_agent: a}}}}\n\
         agents: [{{id: a, run: {{builtin: general-agent}}}}]\n{more}"
    );
    mesh_config::compile("mesh.yaml", &text)
        .unwrap_or_else(|report| panic!("{report}"))
        .mesh
}

/// The secrets of `mesh`, but for the assertion key, which a development mesh makes itself.
fn resolve(
    mesh: &Mesh,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Secrets, Vec<String>> {
    let wanted = mesh.sources();
    let wanted = wanted
        .into_iter()
        .filter(|(path, _)| path != "gateway.assertion.key");
    let secrets = Secrets::resolve(wanted, Path::new("."), environment);
    secrets.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn store(path: &str, field: &str, vault: &Vault) -> Mesh {
    mesh(&format!(
        "store: {{backend: redis, url: {{vault: {{path: {path}, field: {field}}}}}}}\n\
         secrets: {{vault: {{url: \"{}\", token: {{env: TOKEN_OF_VAULT}}}}}}\n",
        vault.url
    ))
}

fn token(name: &str) -> Option<String> {
    (name == "TOKEN_OF_VAULT").then(|| format!("{TOKEN}\n"))
}

#[test]
fn a_field_has_its_value_and_the_rendered_file_the_reference() {
    let vault = Vault::start();
    let mesh = store("secret/data/redis", "url", &vault);
    let source = mesh.store.redis.as_ref().unwrap();
    let shown = "{vault: {path: secret/data/redis, field: url}}";
    assert_eq!(source.reference(), shown);
    assert!(!format!("{mesh:?}").contains("hunter"));
    assert!(
        vault.asked().is_empty(),
        "nothing is asked for before it is wanted"
    );
    let secrets = resolve(&mesh, &token).unwrap();
    assert_eq!(
        secrets.value(source),
        Some("redis://:hunter2@127.0.0.1:6379")
    );
    let none = render::orchestrator(&mesh, &Secrets::none()).unwrap();
    let none = serde_json::to_string(&none).unwrap();
    assert!(
        none.contains("see-vault.invalid") && !none.contains("hunter"),
        "{none}"
    );
}

#[test]
fn address_and_token_may_be_the_environments() {
    let vault = Vault::start();
    let mesh = mesh(
        "registry: {backend: consul, url: \"http://127.0.0.1:8500\", token: {vault: {path: team/kv/data/mesh/consul, field: token}}}\n\
         store: {backend: redis, url: {vault: {path: secret/data/redis, field: url}}}\n",
    );
    let url = vault.url.clone();
    let environment = |name: &str| match name {
        "VAULT_ADDR" => Some(url.clone()),
        "VAULT_TOKEN" => Some(TOKEN.to_owned()),
        _ => None,
    };
    let secrets = resolve(&mesh, &environment).unwrap();
    let consul = mesh.trust.registry.consul.as_ref().unwrap();
    assert_eq!(
        secrets.value(consul.token.as_ref().unwrap()),
        Some("hunter3")
    );
    let mut asked = vault.asked();
    asked.sort();
    assert_eq!(
        asked,
        ["/v1/secret/data/redis", "/v1/team/kv/data/mesh/consul"]
    );
    let lacking = resolve(&mesh, &|_| None).unwrap_err().join("\n");
    assert!(lacking.contains("VAULT_ADDR"), "{lacking}");
    let lacking = resolve(&mesh, &|name| {
        (name == "VAULT_ADDR").then(|| vault.url.clone())
    });
    let lacking = lacking.unwrap_err().join("\n");
    assert!(lacking.contains("VAULT_TOKEN"), "{lacking}");
}

#[test]
fn what_vault_does_not_give_is_said_with_its_reason() {
    let vault = Vault::start();
    for (path, field, reason) in [
        ("secret/data/redis", "password", "no field password"),
        ("secret/data/redis", "tls", "is no text"),
        (
            "secret/data/nowhere",
            "url",
            "no secret at secret/data/nowhere",
        ),
        ("secret/data/gone", "url", "no secret at secret/data/gone"),
        (
            "secret/data/hidden",
            "url",
            "the token needs `read` on secret/data/hidden",
        ),
        ("secret/data/sealed", "url", "Vault is sealed"),
        ("secret/data/page", "url", "not its API's"),
    ] {
        let mesh = store(path, field, &vault);
        let said = resolve(&mesh, &token).unwrap_err().join("\n");
        assert!(
            said.contains(reason) && said.contains("store.url"),
            "{path}: {said}"
        );
        assert!(!said.contains("hunter") && !said.contains(TOKEN), "{said}");
    }
    let away = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = Vault {
        url: format!("http://{away}"),
        asked: Arc::default(),
    };
    let said = resolve(&store("secret/data/redis", "url", &nobody), &token);
    let said = said.unwrap_err().join("\n");
    assert!(said.contains("vault is away"), "{said}");
    let wrong = |name: &str| (name == "TOKEN_OF_VAULT").then(|| "other".to_owned());
    let said = resolve(&store("secret/data/redis", "url", &vault), &wrong);
    assert!(said.unwrap_err().join("\n").contains("permission denied"));
}

/// As in the command, whose functions run within a runtime.
#[test]
fn it_can_be_asked_within_a_runtime() {
    let vault = Vault::start();
    let mesh = store("secret/data/redis", "port", &vault);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let secrets = runtime.block_on(async { resolve(&mesh, &token) }).unwrap();
    let source: &Source = mesh.store.redis.as_ref().unwrap();
    assert_eq!(secrets.value(source), Some("6379"));
}

#[test]
fn a_plugin_takes_a_secret_of_the_file_s_own_vault() {
    let vault = Vault::start();
    let text = format!(
        "version: 1\nmesh: m\nsecrets: {{vault: {{url: \"{}\", token: {{env: TOKEN_OF_VAULT}}}}}}\n\
         services:\n  - name: s\n    url: http://s:80\n    routes: [{{name: r, paths: [/s]}}]\n    plugins:\n      \
         - {{name: http-log, config: {{http_endpoint: {{vault: {{path: secret/data/redis, field: url}}}}}}}}\n",
        vault.url
    );
    let mesh = mesh_config::compile("mesh.yaml", &text).unwrap().mesh;
    let written = |secrets: &Secrets| {
        let kong = render::kong(&mesh, secrets);
        let service = kong.unwrap().services.pop().unwrap();
        service.plugins[0].config["http_endpoint"].clone()
    };
    assert_eq!(
        written(&Secrets::none()),
        "{vault: {path: secret/data/redis, field: url}}"
    );
    let only = mesh.sources().into_iter();
    let only = only.filter(|(path, _)| path.starts_with("services."));
    let secrets = Secrets::resolve(only, Path::new("."), &token).unwrap();
    assert_eq!(written(&secrets), "redis://:hunter2@127.0.0.1:6379");
}
