//! An agent's end of a WebSocket.

use crate::mesh::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    /// `path` as `/ws/a?last=`.
    pub async fn connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self(socket))
    }

    pub async fn open(address: SocketAddr, path: &str) -> Self {
        Self::connect(address, path, &[]).await.unwrap()
    }

    /// The status of an answer that is no WebSocket.
    pub async fn refused(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        match Self::connect(address, path, headers).await {
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
            Ok(_) => 101,
        }
    }

    pub async fn send(&mut self, value: &Value) {
        self.text(&value.to_string()).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next text, as JSON.
    pub async fn hear(&mut self) -> Value {
        let next = async {
            loop {
                match self.0.next().await.unwrap().unwrap() {
                    Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a text")
    }

    /// The next text of that type; others are passed over.
    pub async fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let heard = self.hear().await;
            if heard["type"] == kind {
                return heard;
            }
        }
    }

    /// The next message of another agent; what the orchestrator says is passed over.
    pub async fn letter(&mut self) -> Value {
        loop {
            let heard = self.hear().await;
            if heard.get("from").is_some() {
                return heard;
            }
        }
    }

    /// The close code, once there is one; texts are passed over.
    pub async fn closed(&mut self) -> u16 {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return 0,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a close")
    }

    /// Resets the connection, as a machine that lost its power would after it came back.
    pub fn cut(self) {
        let stream = self.0.into_inner();
        #[allow(deprecated, reason = "zero blocks nothing")]
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    }
}
