//! A model that answers one plan at once, over Ollama's API (`POST /api/chat`, as of version 0.12).

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A model that answers one plan, over Ollama's API.
#[derive(Debug, Clone, clap::Args)]
pub struct Model {
    /// Where to listen, on loopback
    #[arg(long)]
    pub port: u16,
    /// Agents that take turns in the plan
    #[arg(long, value_delimiter = ',')]
    pub agents: Vec<String>,
    /// Steps on the longest way through the plan
    #[arg(long)]
    pub depth: usize,
    /// Steps that can run at the same time
    #[arg(long)]
    pub width: usize,
    /// Whether one more step needs all of the last ones
    #[arg(long)]
    pub join: bool,
}

impl Model {
    /// Serves until the process is ended.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(self) -> Result<()> {
        let content = self.plan()?.to_string();
        let answer = Bytes::from(
            json!({
                "model": "double",
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": content},
                "done": true,
                "done_reason": "stop",
                "total_duration": 1_000_000,
                "load_duration": 1000,
                "prompt_eval_count": 100,
                "prompt_eval_duration": 500_000,
                "eval_count": 1000,
                "eval_duration": 500_000,
            })
            .to_string(),
        );
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            let service = service_fn(move |request| respond(request, answer.clone()));
            // Ends with its connection.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    /// Layers of `width` steps; each step needs two of the layer before, so that layers cannot drift
    /// apart far, and every way through the plan is `depth` steps long.
    fn plan(&self) -> Result<Value> {
        let mut steps = Vec::new();
        let agent = |number: usize| {
            let turn = number % self.agents.len().max(1);
            self.agents.get(turn).context("the plan needs an agent")
        };
        for layer in 0..self.depth {
            for place in 0..self.width {
                let mut needs = Vec::new();
                if let Some(before) = layer.checked_sub(1) {
                    needs.push(id(before, place));
                    if self.width > 1 {
                        needs.push(id(before, (place + 1) % self.width));
                    }
                }
                steps.push(json!({
                    "id": id(layer, place),
                    "agent": agent(steps.len())?,
                    "action": "work",
                    "dependencies": needs,
                }));
            }
        }
        if self.join {
            let last = self.depth.saturating_sub(1);
            let needs = (0..self.width).map(|place| id(last, place));
            steps.push(json!({
                "id": "join",
                "agent": agent(steps.len())?,
                "action": "work",
                "dependencies": needs.collect::<Vec<_>>(),
            }));
        }
        Ok(json!({
            "agents_required": self.agents,
            "execution_plan": steps,
            "resources": {"cpu": "50", "memory": "1024", "gpu": false},
            "estimated_time": 1,
            "confidence": 0.9,
            "risks": [],
        }))
    }
}

fn id(layer: usize, place: usize) -> String {
    format!("s{layer}-{place}")
}

async fn respond(request: Request<Incoming>, answer: Bytes) -> Result<Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(Full::new(answer))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_as_long_and_wide_as_asked() {
        let model = Model {
            port: 0,
            agents: vec!["a".into(), "b".into()],
            depth: 10,
            width: 10,
            join: false,
        };
        let plan = model.plan().unwrap();
        let steps = plan["execution_plan"].as_array().unwrap();
        assert_eq!(steps.len(), 100);
        assert_eq!(steps[0]["dependencies"], json!([]));
        assert_eq!(steps[99]["id"], "s9-9");
        assert_eq!(steps[99]["dependencies"], json!(["s8-9", "s8-0"]));
    }

    #[test]
    fn steps_in_a_row_and_one_that_joins() {
        let mut model = Model {
            port: 0,
            agents: vec!["a".into()],
            depth: 3,
            width: 1,
            join: false,
        };
        let needs = |plan: serde_json::Value, step: usize| {
            plan["execution_plan"][step]["dependencies"].clone()
        };
        assert_eq!(needs(model.plan().unwrap(), 2), json!(["s1-0"]));
        (model.depth, model.width, model.join) = (1, 2, true);
        assert_eq!(needs(model.plan().unwrap(), 1), json!([]));
        assert_eq!(needs(model.plan().unwrap(), 2), json!(["s0-0", "s0-1"]));
    }
}
