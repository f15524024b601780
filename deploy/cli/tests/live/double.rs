//! A double of Kong 3.9's admin API without a database: no Kong can be installed here.
//!
//! It answers what `mesh diff` and `mesh apply` ask, in the form of Kong's own answers: `GET /`, the lists with their
//! pages (`size`, `offset`), `GET /schemas/…`, `POST /config` (201 with all entities; 400 with `flattened_errors`).
//! As Kong does, it gives each entity an id and times, fills in the defaults of its schema, turns names into
//! ids of what they refer to, spreads a service's `url`, and sorts lists by id. Its schemas are excerpts of Kong's, as
//! Kong 3.9 answers them, of the fields that are used here. It runs no request, and checks no more of a configuration
//! than that its references exist and that a plugin is known.

mod schemas;

use schemas::{plugin_schema, schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A Kong.
#[derive(Clone)]
pub struct Double {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    database: String,
    entities: BTreeMap<&'static str, Vec<Value>>,
    posted: usize,
}

const KINDS: [&str; 9] = [
    "certificates",
    "upstreams",
    "targets",
    "services",
    "routes",
    "consumers",
    "plugins",
    "filter_chains",
    "jwts",
];

impl Double {
    pub async fn start(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        double.state.lock().unwrap().database = database.to_owned();
        let serving = double.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        double
    }

    /// How often a configuration was taken.
    pub fn posted(&self) -> usize {
        self.state.lock().unwrap().posted
    }

    /// What somebody else's configuration makes of the entities of a kind.
    pub fn by_hand(&self, kind: &str, change: impl Fn(&mut Vec<Value>)) {
        change(self.state.lock().unwrap().entities.get_mut(kind).unwrap());
    }

    /// HTTP/1.1 with bodies of a known length, as the client sends them.
    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if head.is_empty() {
                    head.clone_from(&line);
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let mut words = head.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let (status, answer) = self.answer(method, target, &body);
            let answer = answer.to_string();
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if stream.get_mut().write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, target: &str, body: &[u8]) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let mut state = self.state.lock().unwrap();
        match (method, path.as_slice()) {
            ("GET", []) => {
                let info = json!({"version": "3.9.1", "tagline": "Welcome to kong", "configuration": {"database": state.database}});
                (200, info)
            }
            ("POST", ["config"]) if state.database != "off" => (
                405,
                json!({"message": "this endpoint is only available when Kong is configured to not use a database"}),
            ),
            ("POST", ["config"]) => state.load(body),
            ("GET", ["schemas", "plugins", name]) => known(plugin_schema(name)),
            ("GET", ["schemas", kind]) => known(schema(kind)),
            ("GET", ["upstreams", id, "targets"]) => {
                state.page("targets", query, |target| target["upstream"]["id"] == *id)
            }
            ("GET", [kind]) => {
                let kind = kind.replace('-', "_");
                match KINDS.iter().find(|known| **known == kind) {
                    Some(kind) => state.page(kind, query, |_| true),
                    None => (404, json!({"message": "Not found"})),
                }
            }
            _ => (
                405,
                json!({"message": "cannot create, update or delete entities when not using a database"}),
            ),
        }
    }
}

fn known(schema: Option<Value>) -> (u16, Value) {
    schema.map_or(
        (404, json!({"message": "No entity of this name"})),
        |schema| (200, schema),
    )
}

impl State {
    fn page(&self, kind: &str, query: &str, of: impl Fn(&Value) -> bool) -> (u16, Value) {
        let parameter = |name: &str| {
            let mut all = query.split('&').filter_map(|pair| pair.split_once('='));
            all.find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        // Whatever is asked for: a page here has two, so that there are several.
        assert!(parameter("size").is_some(), "a page has a size");
        let offset: usize =
            parameter("offset").map_or(0, |offset| offset.trim_start_matches('o').parse().unwrap());
        let all: Vec<&Value> = self
            .entities
            .get(kind)
            .into_iter()
            .flatten()
            .filter(|e| of(e))
            .collect();
        let page: Vec<&&Value> = all.iter().skip(offset).take(2).collect();
        let mut answer = json!({"data": page, "next": null});
        if offset + 2 < all.len() {
            answer["offset"] = format!("o{}", offset + 2).into();
            answer["next"] = format!("/{kind}?offset=o{}", offset + 2).into();
        }
        (200, answer)
    }

    fn load(&mut self, body: &[u8]) -> (u16, Value) {
        let body: Value = serde_json::from_slice(body).unwrap();
        let config = body["config"].as_str().expect("config as text");
        let config = match mesh_declarative::Config::from_yaml(config) {
            Ok(config) => serde_json::to_value(config).unwrap(),
            Err(error) => {
                return (
                    400,
                    json!({"code": 14, "name": "invalid declarative configuration", "message": format!("declarative config is invalid: {error}"), "fields": {}, "flattened_errors": []}),
                );
            }
        };
        let mut loading = Loading::default();
        loading.config(config);
        if !loading.errors.is_empty() {
            return (
                400,
                json!({"code": 14, "name": "invalid declarative configuration", "message": "declarative config is invalid: {}", "fields": {}, "flattened_errors": loading.errors}),
            );
        }
        self.entities = loading.entities;
        for entities in self.entities.values_mut() {
            entities.sort_by_key(|entity| entity["id"].as_str().unwrap().to_owned());
        }
        self.posted += 1;
        (201, json!(self.entities))
    }
}

/// A configuration on its way in.
#[derive(Default)]
struct Loading {
    entities: BTreeMap<&'static str, Vec<Value>>,
    errors: Vec<Value>,
}

impl Loading {
    fn config(&mut self, mut config: Value) {
        for kind in KINDS {
            self.entities.insert(kind, Vec::new());
        }
        for mut upstream in taken(&mut config, "upstreams") {
            let targets = taken(&mut upstream, "targets");
            let id = self.add("upstreams", upstream);
            for mut target in targets {
                if !target["target"].as_str().unwrap().contains(':') {
                    target["target"] =
                        format!("{}:8000", target["target"].as_str().unwrap()).into();
                }
                target["upstream"] = json!({"id": id});
                self.add("targets", target);
            }
        }
        for mut service in taken(&mut config, "services") {
            let (routes, plugins) = (
                taken(&mut service, "routes"),
                taken(&mut service, "plugins"),
            );
            if let Some(url) = service.as_object_mut().unwrap().remove("url") {
                let url: reqwest::Url = url.as_str().unwrap().parse().unwrap();
                service["protocol"] = url.scheme().into();
                service["host"] = url.host_str().into();
                service["port"] = url.port_or_known_default().into();
                service["path"] = if url.path() == "/" {
                    Value::Null
                } else {
                    url.path().into()
                };
            }
            let id = self.add("services", service);
            for mut route in routes {
                let plugins = taken(&mut route, "plugins");
                route["service"] = json!({"id": id});
                let id = self.add("routes", route);
                for mut plugin in plugins {
                    plugin["route"] = json!({"id": id});
                    self.add("plugins", plugin);
                }
            }
            for mut plugin in plugins {
                plugin["service"] = json!({"id": id});
                self.add("plugins", plugin);
            }
        }
        for kind in ["plugins", "filter_chains"] {
            for mut entity in taken(&mut config, kind) {
                for (field, of) in [("service", "services"), ("route", "routes")] {
                    if let Some(name) = entity[field].as_str() {
                        let found = self.entities[of].iter().find(|other| other["name"] == name);
                        entity[field] =
                            json!({"id": found.expect("a reference that exists")["id"]});
                    }
                }
                self.add(kind, entity);
            }
        }
    }

    fn add(&mut self, kind: &'static str, mut entity: Value) -> String {
        let schema = match kind {
            "plugins" => plugin_schema(entity["name"].as_str().unwrap()),
            kind => schema(kind),
        };
        let Some(schema) = schema else {
            let name = entity["name"].clone();
            let message = format!(
                "plugin '{}' not enabled; add it to the 'plugins' configuration property",
                name.as_str().unwrap()
            );
            self.errors.push(json!({"entity_type": "plugin", "entity_name": name, "entity_tags": [], "entity": entity, "errors": [{"type": "field", "field": "name", "message": message}]}));
            return String::new();
        };
        fill(&mut entity, &schema);
        // As Kong does: the same entity has the same id, and the order of ids is nobody's.
        let number = self.entities.values().map(Vec::len).sum::<usize>();
        let id = format!(
            "{:08x}-0000-5000-8000-{number:012}",
            (number * 7919) % 65_521
        );
        entity["id"] = id.clone().into();
        entity["created_at"] = 1_764_374_400.into();
        if kind != "targets" {
            entity["updated_at"] = 1_764_374_400.into();
        }
        self.entities.get_mut(kind).unwrap().push(entity);
        id
    }
}

fn taken(value: &mut Value, field: &str) -> Vec<Value> {
    match value.as_object_mut().unwrap().remove(field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Fills in what a schema says: defaults, null for what has none.
fn fill(value: &mut Value, schema: &Value) {
    let fields = value.as_object_mut().unwrap();
    for field in schema["fields"].as_array().unwrap() {
        let (name, field) = field.as_object().unwrap().iter().next().unwrap();
        let place = fields.entry(name.clone()).or_insert(Value::Null);
        if place.is_null() {
            *place = field.get("default").cloned().unwrap_or_default();
        }
        if field["type"] == "record" {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            fill(place, field);
        }
        if let (Value::Array(items), Some(elements)) = (place, field.get("elements"))
            && elements["type"] == "record"
        {
            items.iter_mut().for_each(|item| fill(item, elements));
        }
    }
}
