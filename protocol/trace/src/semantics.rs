//! What spans say of requests and messages, in the words of OpenTelemetry's semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/>, version 1.37), the same in every part.

use crate::{Kind, Span};
use http::{Method, StatusCode};

/// The method of a request as spans are named after it; what is no common method is `HTTP`, since a stranger
/// makes up as many as he likes.
pub fn method_name(method: &Method) -> &'static str {
    known(method).unwrap_or("HTTP")
}

fn known(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    KNOWN.into_iter().find(|name| *name == method.as_str())
}

/// What is done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOperation {
    /// It is handed to the broker.
    Send,
    /// It is carried out.
    Process,
}

impl MessageOperation {
    fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Process => "process",
        }
    }
}

impl Span {
    /// A request by `method` for `path`: without its query, which may hold what belongs in no trace.
    pub fn http_request(&mut self, method: &Method, scheme: &'static str, path: &str) {
        if !self.is_recording() {
            return;
        }
        match known(method) {
            Some(name) => self.set("http.request.method", name),
            None => {
                self.set("http.request.method", "_OTHER");
                self.set("http.request.method_original", method.as_str());
            }
        }
        self.set("url.path", path);
        self.set("url.scheme", scheme);
    }

    /// Whom a request goes to.
    pub fn server(&mut self, address: std::net::SocketAddr) {
        if self.is_recording() {
            self.set("server.address", address.ip().to_canonical().to_string());
            self.set_number("server.port", address.port().into());
        }
    }

    /// The answer's status. For whoever answers only its own failure (5xx) is one; for whoever asked, a
    /// refusal (4xx) is one too.
    pub fn http_answer(&mut self, status: StatusCode) {
        let Some(kind) = self.kind() else { return };
        self.set_number("http.response.status_code", status.as_u16().into());
        if status.is_server_error() || (kind == Kind::Client && status.is_client_error()) {
            self.error(status.as_str());
        }
    }

    /// The work failed, in a way of which there are few.
    pub fn error(&mut self, kind: &str) {
        if self.is_recording() {
            self.set("error.type", kind);
            self.fail(kind);
        }
    }

    /// A message of `task` on `system`, by way of `destination`.
    pub fn message(
        &mut self,
        operation: MessageOperation,
        system: &'static str,
        destination: &str,
        task: &str,
    ) {
        if !self.is_recording() {
            return;
        }
        self.set("messaging.system", system);
        self.set("messaging.operation.type", operation.name());
        self.set("messaging.operation.name", operation.name());
        self.set("messaging.destination.name", destination);
        self.set("messaging.message.conversation_id", task);
    }
}
