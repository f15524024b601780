//! Host calls that report a status instead of panicking on it.
//!
//! The host returns memory that it took from the module's own allocator (the SDK's `malloc`), so a
//! returned block becomes a `Vec` of exactly its size.

use crate::abi;
use crate::headers::Headers;
use mesh_policy::fetch::MAX_ANSWER;
use mesh_policy::host::{Cell, Swapped, Unshared, Version};
use mesh_policy::{Refusal, Unreadable};
use std::net::{IpAddr, SocketAddr};

/// Log levels of the ABI.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    /// Something is broken.
    Error = 4,
}

/// Handle of a defined metric.
#[derive(Clone, Copy)]
pub(crate) struct Metric(u32);

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;
const MAP_REQUEST_HEADERS: u32 = 0;
const MAP_RESPONSE_HEADERS: u32 = 2;
const MAP_CALL_RESPONSE_HEADERS: u32 = 6;
const BUFFER_REQUEST_BODY: u32 = 0;
const BUFFER_CALL_RESPONSE_BODY: u32 = 4;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const METRIC_COUNTER: u32 = 0;
const METRIC_HISTOGRAM: u32 = 2;

/// Writes to the host's log.
pub(crate) fn log(level: Level, text: &str) {
    abi::log(level as u32, text.as_bytes());
}

/// Which of the gateways this is. They agree on the ABI and not on what it means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// Kong, and the local gateway, which behaves like it.
    Kong,
    /// Envoy.
    Envoy,
}

impl Gateway {
    /// Asks for an attribute that Envoy alone has, and that Kong does not even know to be missing: of one
    /// that it knows it would write an error. Only within a request: outside of one Kong has no properties.
    pub(crate) fn find_out() -> Self {
        match abi::property(b"xds\0listener_direction") {
            (OK, _) => Self::Envoy,
            _ => Self::Kong,
        }
    }

    /// The same outside of a request, by what shared data does, which has to be there. Of a value that is
    /// not there and a version that nobody gave, Kong says that it changed and Envoy writes; whoever is
    /// first writes down which it was.
    pub(crate) fn of_shared_data() -> Option<Self> {
        const KEY: &[u8] = b"mesh-gateway";
        const KONG: &[u8; 16] = b"kong            ";
        const ENVOY: &[u8; 16] = b"envoy           ";
        // Twice, since another worker may write in between.
        for _ in 0..2 {
            match abi::shared(KEY) {
                (OK, value, _) if value == KONG => return Some(Self::Kong),
                (OK, value, _) if value == ENVOY => return Some(Self::Envoy),
                (NOT_FOUND, ..) => match abi::set_shared(KEY, ENVOY, u32::MAX) {
                    OK => return Some(Self::Envoy),
                    CAS_MISMATCH => {
                        abi::set_shared(KEY, KONG, 0);
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
        None
    }

    /// Whether a request goes on to the service unless it is held until its body is there.
    pub(crate) fn must_wait_for_body(self) -> bool {
        self == Self::Envoy
    }

    /// The path of a property that filters share and clients cannot write.
    fn shared_path(self, name: &str) -> Vec<u8> {
        match self {
            Self::Kong => [b"kong\0ctx\0shared\0", name.as_bytes()].concat(),
            // Envoy keeps it in the stream's filter state, under a name of one part.
            Self::Envoy => name.into(),
        }
    }

    /// The version that stands for "not there" when a value is set: Kong compares it with 0, while
    /// Envoy takes 0 for "whatever is there" and any other for a version that it never gave.
    fn absent(self) -> u32 {
        match self {
            Self::Kong => 0,
            Self::Envoy => u32::MAX,
        }
    }
}

/// The host's wall clock, in nanoseconds since 1970.
pub(crate) fn now_ns() -> Option<u64> {
    let (status, nanos) = abi::now();
    (status == OK).then_some(nanos)
}

/// Random bytes of the host.
pub(crate) fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    (abi::random(&mut bytes) == OK).then_some(bytes)
}

/// The shared value under `key`.
pub(crate) fn cell(key: &str) -> Result<Option<(Cell, Version)>, Unshared> {
    match abi::shared(key.as_bytes()) {
        (OK, value, version) => Ok(Cell::try_from(value)
            .ok()
            .map(|cell| (cell, Version(version)))),
        (NOT_FOUND, ..) => Ok(None),
        _ => Err(Unshared),
    }
}

/// Sets the shared value under `key`, if its version is still `seen`.
pub(crate) fn swap(
    gateway: Gateway,
    key: &str,
    cell: Cell,
    seen: Option<Version>,
) -> Result<Swapped, Unshared> {
    let version = seen.map_or_else(|| gateway.absent(), |version| version.0);
    match abi::set_shared(key.as_bytes(), &cell, version) {
        OK => Ok(Swapped::Written),
        CAS_MISMATCH => Ok(Swapped::Changed),
        _ => Err(Unshared),
    }
}

/// What an earlier filter left.
pub(crate) fn found(gateway: Gateway, name: &str) -> Option<Vec<u8>> {
    match abi::property(&gateway.shared_path(name)) {
        (OK, value) => Some(value),
        _ => None,
    }
}

/// Leaves something for later filters; whether the host took it.
pub(crate) fn leave(gateway: Gateway, name: &str, value: &[u8]) -> bool {
    abi::set_property(&gateway.shared_path(name), value) == OK
}

/// The peer's address: alone, as Kong gives it, or with its port, as Envoy does.
pub(crate) fn peer() -> Option<IpAddr> {
    let (OK, value) = abi::property(b"source\0address") else {
        return None;
    };
    let text = std::str::from_utf8(&value).ok()?;
    let address = text
        .parse()
        .or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()))
        .ok()?;
    Some(IpAddr::to_canonical(&address))
}

/// The whole request body of `size` bytes; none where the host does not show it.
pub(crate) fn request_body(size: usize) -> Option<Vec<u8>> {
    match abi::buffer(BUFFER_REQUEST_BODY, size) {
        (OK, body) if body.len() == size => Some(body),
        _ => None,
    }
}

/// Sends another body than the one of `size` bytes that came; whether the host does.
pub(crate) fn set_request_body(body: &[u8], size: usize) -> bool {
    if abi::set_buffer(BUFFER_REQUEST_BODY, body) != OK {
        return false;
    }
    if body.len() == size {
        return true;
    }
    // Kong writes the length itself, others send the header as it is.
    match request_header("content-length") {
        Ok(Some(_)) => set_request_header("content-length", body.len().to_string().as_bytes()),
        Ok(None) => true,
        Err(Unreadable) => false,
    }
}

/// Adds a response header; a host that does not is let be.
pub(crate) fn add_response_header(name: &str, value: &str) {
    abi::set_header(MAP_RESPONSE_HEADERS, name.as_bytes(), value.as_bytes());
}

/// The filter's configuration; empty when there is none.
pub(crate) fn configuration() -> Vec<u8> {
    let (status, bytes) = abi::buffer(BUFFER_PLUGIN_CONFIGURATION, usize::MAX);
    if status == OK { bytes } else { Vec::new() }
}

/// The value of a request header, or pseudo header.
pub(crate) fn request_header(name: &str) -> Result<Option<Vec<u8>>, Unreadable> {
    match abi::header(MAP_REQUEST_HEADERS, name.as_bytes()) {
        (OK, value) => Ok(Some(value)),
        (NOT_FOUND, _) => Ok(None),
        _ => Err(Unreadable),
    }
}

/// All request headers, with the pseudo headers. Not in Kong, where the whole map must not be asked for.
pub(crate) fn request_headers() -> Result<Headers, Unreadable> {
    match abi::headers(MAP_REQUEST_HEADERS) {
        (OK, map) => Headers::read(&map).ok_or(Unreadable),
        _ => Err(Unreadable),
    }
}

/// Sets a request header; whether the host did.
pub(crate) fn set_request_header(name: &str, value: &[u8]) -> bool {
    abi::set_header(MAP_REQUEST_HEADERS, name.as_bytes(), value) == OK
}

/// Answers the request in the upstream's place; whether the host did.
pub(crate) fn answer(refusal: &Refusal) -> bool {
    abi::answer(
        u32::from(refusal.status),
        &refusal.body,
        &pairs(&refusal.headers),
    ) == OK
}

/// Defines a counter, if the host counts.
pub(crate) fn define_counter(name: &str) -> Option<Metric> {
    let (status, id) = abi::define_metric(METRIC_COUNTER, name.as_bytes());
    (status == OK).then_some(Metric(id))
}

/// Defines a histogram, if the host has them.
pub(crate) fn define_histogram(name: &str) -> Option<Metric> {
    let (status, id) = abi::define_metric(METRIC_HISTOGRAM, name.as_bytes());
    (status == OK).then_some(Metric(id))
}

/// Records a value; a host that does not is let be.
pub(crate) fn record(metric: Metric, value: u64) {
    abi::record_metric(metric.0, value);
}

/// The answer to the filter's own call that this callback is about: none where the call failed, or where
/// its answer is longer than is taken.
pub(crate) fn call_answer(body_size: usize) -> Option<(u16, Vec<u8>)> {
    let (OK, status) = abi::header(MAP_CALL_RESPONSE_HEADERS, b":status") else {
        return None;
    };
    let status = std::str::from_utf8(&status).ok()?.parse().ok()?;
    let body = match body_size {
        0 => Vec::new(),
        size if size > MAX_ANSWER => return None,
        size => match abi::buffer(BUFFER_CALL_RESPONSE_BODY, size) {
            (OK, body) if body.len() == size => body,
            _ => return None,
        },
    };
    Some((status, body))
}

/// Counts one; a host that does not is let be.
pub(crate) fn increment(metric: Metric) {
    abi::increment_metric(metric.0, 1);
}

/// Header pairs in the ABI's form: count, sizes, then each text with a closing zero.
fn pairs(headers: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((headers.len() as u32).to_le_bytes());
    for (name, value) in headers {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in headers {
        for text in [name.as_bytes(), value.as_bytes()] {
            bytes.extend(text);
            bytes.push(0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn pairs_are_written_as_the_abi_reads_them() {
        assert_eq!(
            super::pairs(&[("a", "bc".to_owned())]),
            [&[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0][..], b"a\0bc\0"].concat()
        );
    }
}
