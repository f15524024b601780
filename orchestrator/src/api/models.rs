//! `/models`: what is known of them. `/ollama/…`: the shared model server for the mesh's agents, in Ollama's own
//! words, so that an agent needs no more than a URL.
//!
//! Who asks is a service of the mesh, by the certificate that the sidecar beside the orchestrator has seen and
//! names in [`caller::HEADER_PEER`], or a program on this machine. For clients there is nothing at these paths: what a gateway
//! passed on shows it.

mod pass;

use super::Api;
use super::caller::{self, HEADER_PEER};
use super::failure::Failure;
use super::submit::json;
use crate::ollama::client::MAX_ANSWER;
use crate::ollama::{Consumer, Models};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, Uri};
use mesh_protocol::assertion;
use serde_json::{Value, json as value};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where the shared model server is.
pub const PATH: &str = "/ollama";
/// The one service that calls for others.
const GATEWAY: &str = "gateway";
/// Time for questions that cost the model nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shared model server; no route without one.
pub fn router(api: &Arc<Api>) -> Router<Arc<Api>> {
    let Some(models) = api.models.clone() else {
        return Router::new();
    };
    Router::new()
        .nest(
            PATH,
            Router::new()
                .route("/", get(async || "Ollama is running"))
                .route("/api/chat", post(pass::chat))
                .route("/api/generate", post(pass::generate))
                .route("/api/embed", post(pass::embed))
                .route("/api/tags", get(tags))
                .route("/api/version", get(version))
                .fallback(async || {
                    let detail =
                        "of Ollama's API there is chat, generate, embed, tags and version here";
                    Failure::not_found(detail).for_ollama()
                })
                .method_not_allowed_fallback(async || Failure::method().for_ollama()),
        )
        .layer(middleware::from_fn_with_state(Arc::clone(api), admit))
        .layer(axum::Extension(models))
}

/// What is known of the models.
pub async fn show(State(api): State<Arc<Api>>) -> Result<Response, Failure> {
    let Some(models) = &api.models else {
        return Err(Failure::not_found("this mesh has no model"));
    };
    Ok(json(StatusCode::OK, &models.view()))
}

async fn admit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|info| info.0);
    let (headers, uri) = (request.headers(), request.uri());
    match consumer(api.peers_by_certificate, peer, headers, uri) {
        Some(consumer) => {
            request.extensions_mut().insert(consumer);
            next.run(request).await
        }
        None => Failure::not_found("there is nothing at this path").into_response(),
    }
}

/// Who asks; `None` for clients, and for whoever is nobody.
fn consumer(
    by_certificate: bool,
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Option<Consumer> {
    let peer = peer.filter(|_| !headers.contains_key(assertion::HEADER))?;
    if headers.contains_key(HEADER_PEER) {
        let service = caller::service(peer, headers, uri).filter(|_| by_certificate)?;
        return (service.as_str() != GATEWAY).then(|| Consumer::Service(service.to_string()));
    }
    caller::is_local(peer, headers, uri).then_some(Consumer::Local)
}

/// The models that are shared, as the server lists them.
async fn tags(axum::Extension(models): axum::Extension<Arc<Models>>) -> Response {
    let asked = models
        .client()
        .whole("/api/tags", None, MAX_ANSWER, PATIENCE);
    let list = match asked.await {
        Ok(list) => list,
        Err(fault) => return pass::faulted(&fault).for_ollama(),
    };
    let Ok(mut list) = serde_json::from_slice::<Value>(&list) else {
        return pass::faulted(&crate::ollama::client::Fault::NotJson).for_ollama();
    };
    if let Some(listed) = list.get_mut("models").and_then(Value::as_array_mut) {
        listed.retain(|model| {
            let name = |key| model.get(key).and_then(Value::as_str);
            let name = name("model").or_else(|| name("name"));
            name.is_some_and(|name| models.shared(name).is_some())
        });
    }
    json(StatusCode::OK, &list)
}

/// The server's version; clients ask for it to see what it can do.
async fn version(axum::Extension(models): axum::Extension<Arc<Models>>) -> Response {
    let asked = models.client().whole("/api/version", None, 4096, PATIENCE);
    match asked
        .await
        .map(|answer| serde_json::from_slice::<Value>(&answer))
    {
        Ok(Ok(answer)) => json(StatusCode::OK, &value!({"version": answer["version"]})),
        Ok(Err(_)) => pass::faulted(&crate::ollama::client::Fault::NotJson).for_ollama(),
        Err(fault) => pass::faulted(&fault).for_ollama(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(by_certificate: bool, peer: &str, headers: &[(&str, &str)]) -> Option<Consumer> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let uri = "/ollama/api/chat".parse().unwrap();
        consumer(by_certificate, peer.parse().ok(), &map, &uri)
    }

    #[test]
    fn services_and_this_machine_are_consumers_and_nobody_else() {
        let (near, host) = ("127.0.0.1:5", ("host", "127.0.0.1:8589"));
        let agent = (HEADER_PEER, "general-agent");
        let service = Some(Consumer::Service("general-agent".to_owned()));
        assert_eq!(asks(true, near, &[host]), Some(Consumer::Local));
        assert_eq!(asks(true, near, &[host, agent]), service);
        // The sidecar says where the agent is.
        let from = ("x-forwarded-for", "10.0.0.1");
        assert_eq!(asks(true, near, &[host, agent, from]), service);
        for wrong in [
            &[host, (HEADER_PEER, "gateway")][..],
            &[host, (HEADER_PEER, "")],
            &[host, agent, agent],
            &[host, agent, ("x-mesh-assertion", "a.b.c")],
            &[host, ("x-mesh-assertion", "a.b.c")],
            &[host, agent, ("origin", "http://evil.example")],
            &[host, agent, ("via", "1.1 kong")],
            &[host, from],
            &[host, ("x-kong-request-id", "1")],
            &[("host", "evil.example"), agent],
            &[agent],
        ] {
            assert_eq!(asks(true, near, wrong), None, "{wrong:?}");
        }
        assert_eq!(asks(true, "10.0.0.1:5", &[host, agent]), None);
        assert_eq!(asks(false, near, &[host, agent]), None);
    }
}
