//! promtail.yml: containers' logs, as Docker keeps them, to Loki.

use crate::render::RenderError;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct Promtail {
    server: Server,
    positions: Positions,
    clients: Vec<Client>,
    scrape_configs: Vec<Scrape>,
}

#[derive(Serialize)]
struct Server {
    http_listen_port: u16,
    grpc_listen_port: u16,
}

#[derive(Serialize)]
struct Positions {
    filename: &'static str,
}

#[derive(Serialize)]
struct Client {
    url: String,
}

#[derive(Serialize)]
struct Scrape {
    job_name: &'static str,
    static_configs: Vec<Static>,
    /// Each a mapping of one key; what stands under it differs from stage to stage.
    pipeline_stages: Vec<Value>,
}

#[derive(Serialize)]
struct Static {
    targets: Vec<&'static str>,
    labels: Labels,
}

#[derive(Serialize)]
struct Labels {
    job: &'static str,
    __path__: &'static str,
}

/// Renders it for a Loki of this name.
///
/// # Errors
/// [`RenderError::Write`].
pub fn promtail(loki: &str) -> Result<String, RenderError> {
    let config = Promtail {
        // 0: nobody asks it by gRPC.
        server: Server {
            http_listen_port: 9080,
            grpc_listen_port: 0,
        },
        positions: Positions {
            filename: "/run/promtail/positions.yaml",
        },
        clients: vec![Client {
            url: format!("http://{loki}:3100/loki/api/v1/push"),
        }],
        scrape_configs: vec![Scrape {
            job_name: "containers",
            static_configs: vec![Static {
                targets: vec!["localhost"],
                labels: Labels {
                    job: "containers",
                    __path__: "/var/lib/docker/containers/*/*-json.log",
                },
            }],
            pipeline_stages: vec![json!({"docker": {}})],
        }],
    };
    crate::render::yaml("promtail.yml", &config)
}
