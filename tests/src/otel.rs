//! An OpenTelemetry collector: what is sent to it over OTLP, by either transport, can be read back.
//!
//! It is rotel, which writes every span that it takes into its log in the words of the collectors' debug
//! exporter; the log is read here.

use crate::GENEROUS;
use crate::binary::program_of;
use crate::server::{Server, directory, free_port};
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

const PROGRAM: &str = "rotel-agent";

/// A collector that runs.
#[derive(Debug)]
pub struct Collector {
    server: Server,
    directory: TempDir,
    grpc: u16,
    http: u16,
}

/// A span as the collector received it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// 32 digits.
    pub trace_id: String,
    /// 16 digits; empty for the first of a trace.
    pub parent_id: String,
    /// 16 digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Such as `SERVER`.
    pub kind: String,
    /// W3C `tracestate`; empty for most.
    pub state: String,
    /// Such as `ERROR`; empty for most.
    pub status: String,
    /// What it says of its work, as text.
    pub attributes: BTreeMap<String, String>,
    /// What it says of who sent it, as text.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// Who sent it.
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    /// An attribute; empty where there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub async fn start() -> Self {
        let directory = directory("otel");
        let (grpc, http) = (free_port(), free_port());
        let path = |name: &str| directory.path().join(name).display().to_string();
        let arguments = [
            "start".to_owned(),
            format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"),
            format!("--otlp-http-endpoint=127.0.0.1:{http}"),
            "--exporter=blackhole".to_owned(),
            "--debug-log=traces".to_owned(),
            "--debug-log-verbosity=detailed".to_owned(),
            format!("--pid-file={}", path("pid")),
            format!("--log-file={}", path("unused.log")),
        ];
        let program = program_of("otel", PROGRAM);
        let environment = [("NO_COLOR", "1".to_owned())];
        let server = Server::start(&program, &arguments, &environment, directory.path());
        server.listens_on(grpc).await;
        server.listens_on(http).await;
        Self {
            server,
            directory,
            grpc,
            http,
        }
    }

    /// Where it takes OTLP over gRPC.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Where it takes OTLP over HTTP.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Its process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Every span it has received so far.
    pub fn spans(&self) -> Vec<Span> {
        read(&self.log())
    }

    /// The spans that are `wanted`, once there are at least so many.
    ///
    /// # Panics
    /// With what there is, after [`GENEROUS`] time.
    pub async fn at_least(&self, number: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + GENEROUS;
        let mut before = String::new();
        loop {
            let now = self.log();
            let spans: Vec<Span> = read(&now).into_iter().filter(&wanted).collect();
            // The last of them may not be written to its end.
            if spans.len() >= number && now == before {
                return spans;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {number} spans; there are {spans:#?}"
            );
            before = now;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        let log = self.directory.path().join(format!("{PROGRAM}.log"));
        std::fs::read_to_string(log).unwrap_or_default()
    }
}

/// Where an attribute that is read belongs.
enum Of {
    Resource,
    Span,
    /// Events and links: nobody asks for theirs.
    Other,
}

fn read(log: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut resource = BTreeMap::new();
    let mut of = Of::Other;
    for line in log.lines() {
        if line.starts_with("ResourceSpans #") {
            resource.clear();
            of = Of::Resource;
        } else if line.starts_with("ScopeSpans #") || line == "Events:" || line == "Links:" {
            of = Of::Other;
        } else if line.starts_with("Span #") {
            spans.push(Span {
                resource: resource.clone(),
                ..Span::default()
            });
        } else if line == "Attributes:" {
            of = Of::Span;
        } else if let Some((key, value)) = line.split_once(':') {
            let (key, value) = (key.trim(), value.trim());
            match (key.strip_prefix("-> "), &of, spans.last_mut()) {
                (Some(key), Of::Resource, _) => {
                    resource.insert(key.to_owned(), bare(value));
                }
                (Some(key), Of::Span, Some(span)) => {
                    span.attributes.insert(key.to_owned(), bare(value));
                }
                (None, _, Some(span)) => field(span, key, value),
                _ => {}
            }
        }
    }
    spans
}

fn field(span: &mut Span, key: &str, value: &str) {
    let place = match key {
        "Trace ID" => &mut span.trace_id,
        "Parent ID" => &mut span.parent_id,
        "ID" => &mut span.id,
        "Name" => &mut span.name,
        "Kind" => &mut span.kind,
        "TraceState" => &mut span.state,
        "Status code" => &mut span.status,
        _ => return,
    };
    let value = value.trim_start_matches("SPAN_KIND_");
    let value = value.trim_start_matches("STATUS_CODE_");
    // A status that is not set is none.
    value.trim_start_matches("UNSET").clone_into(place);
}

/// `Str(x)` without its type.
fn bare(value: &str) -> String {
    let inner = value.split_once('(').and_then(|(_, v)| v.strip_suffix(')'));
    inner.unwrap_or(value).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read() {
        let log = "\
INFO Starting Rotel. grpc_endpoint=\"127.0.0.1:4317\"
ResourceSpans #0
Resource SchemaURL: 
Resource attributes:
     -> service.name: Str(x)
ScopeSpans #0
ScopeSpans SchemaURL: 
InstrumentationScope mesh 1
Span #0
    Trace ID       : 4bf92f3577b34da6a3ce929d0e0e4736
    Parent ID      : 00f067aa0ba902b8
    ID             : 00f067aa0ba902b7
    Name           : POST
    Kind           : SPAN_KIND_SERVER
    TraceState     : a=b
Start time: 1
End time: 2
    Status code    : STATUS_CODE_ERROR
    Status message : 500
Attributes:
     -> url.path: Str(/a:b)
     -> http.response.status_code: Int(500)
Events:
SpanEvent #0
     -> Name: e
Span #1
    Trace ID       : 4bf92f3577b34da6a3ce929d0e0e4736
    Parent ID      : 
    ID             : 00f067aa0ba902b9
    Name           : m
    Kind           : SPAN_KIND_CONSUMER
Start time: 1
End time: 2
    Status code    : STATUS_CODE_UNSET
    Status message : 
";
        let spans = read(log);
        let [first, second] = spans.as_slice() else {
            panic!("{spans:?}")
        };
        assert_eq!(first.service(), "x");
        assert_eq!(first.trace_id, second.trace_id);
        assert_eq!(first.parent_id, "00f067aa0ba902b8");
        assert_eq!(
            (first.name.as_str(), first.kind.as_str()),
            ("POST", "SERVER")
        );
        assert_eq!(
            (first.state.as_str(), first.status.as_str()),
            ("a=b", "ERROR")
        );
        assert_eq!(first.attribute("url.path"), "/a:b");
        assert_eq!(first.attribute("http.response.status_code"), "500");
        assert_eq!(first.attribute("Name"), "");
        assert_eq!(second.status, "");
        assert_eq!(
            (second.parent_id.as_str(), second.kind.as_str()),
            ("", "CONSUMER")
        );
    }
}
