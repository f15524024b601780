//! `GET /ws/{agent}`: an agent's WebSocket.

use super::agents::away;
use super::failure::Failure;
use super::{Api, Caller};
use crate::coordination::hub::Hold;
use crate::coordination::socket::{Acknowledge, run};
use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use mesh_protocol::AgentId;
use mesh_protocol::problem::FieldError;
use std::sync::Arc;

/// What the library reads at most, above what a message may have: so that a little too much is heard whole and
/// refused by name.
const ROOM: usize = 64 * 1024;

/// Bytes that the library takes from a connection at a time. All frames in them are read before anybody else has a turn,
/// and frames can be as small as six bytes.
const READ: usize = 4 * 1024;

/// Connects an agent. With `?last=CURSOR` (or an empty `last`, the first time) it acknowledges by itself and goes on
/// behind that message; without, pongs acknowledge.
pub async fn connect(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(agent): Path<String>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let agent: AgentId = agent
        .parse()
        .map_err(|_| Failure::not_found("there is no such agent"))?;
    if !caller.may_be(&agent) {
        return Err(Failure::not_this_agent(agent.as_str()));
    }
    let acknowledge = acknowledge(uri.query().unwrap_or_default())?;
    let upgrade = upgrade.map_err(|error| Failure::no_websocket(error.body_text()))?;
    if !api.sockets.knows(&agent).await.map_err(|e| away(&e))? {
        return Err(Failure::not_found(format!(
            "there is no agent {agent}: it registers first, by POST /register"
        )));
    }
    let place = api.sockets.place(&agent);
    let place = place.map_err(|why| Failure::unavailable(why.to_string()))?;
    if api.stopping.is_cancelled() {
        return Err(Failure::unavailable("this orchestrator stops"));
    }
    let sockets = Arc::clone(&api.sockets);
    let most = sockets.settings().max_message_bytes + ROOM;
    let upgrade = upgrade.max_message_size(most).max_frame_size(most);
    let upgrade = upgrade.read_buffer_size(READ);
    Ok(upgrade.on_upgrade(|socket| run(socket, sockets, Hold::new(agent), acknowledge, place)))
}

fn acknowledge(query: &str) -> Result<Acknowledge, Failure> {
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let Some((_, last)) = parameters.find(|(name, _)| name == "last") else {
        return Ok(Acknowledge::Pong);
    };
    if last.is_empty() {
        return Ok(Acknowledge::Agent(None));
    }
    last.parse()
        .map(|last| Acknowledge::Agent(Some(last)))
        .map_err(|()| {
            let detail = "last must be the cursor of the last message that came, or empty";
            Failure::fields(vec![FieldError::new("last", "invalid", detail)])
        })
}
