//! Host calls that report a status instead of panicking on it.
//!
//! The host returns memory that it took from the module's own allocator (the SDK's `malloc`), so a
//! returned block becomes a `Vec` of exactly its size.

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
const BUFFER_REQUEST_BODY: u32 = 0;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const METRIC_COUNTER: u32 = 0;
/// "No gRPC status" of the ABI.
const GRPC_NONE: i32 = -1;

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

/// Names of request headers with characters beyond letters, digits, `-` and `_`. Not in Kong, where the
/// whole map must not be asked for.
pub(crate) fn odd_request_headers() -> Result<Vec<Vec<u8>>, Unreadable> {
    let (OK, map) = abi::headers(MAP_REQUEST_HEADERS) else {
        return Err(Unreadable);
    };
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let names = names(&map).ok_or(Unreadable)?;
    Ok(names
        .filter(|name| !name.starts_with(b":") && !name.iter().all(plain))
        .map(<[u8]>::to_vec)
        .collect())
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

/// The names in a map of header pairs; none where it is not whole.
fn names(map: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let (count, rest) = map.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut names = Vec::new();
    for sizes in sizes.chunks_exact(8) {
        let (name, value) = sizes.split_first_chunk::<4>()?;
        let name = u32::from_le_bytes(*name) as usize;
        let value = u32::from_le_bytes(value.try_into().ok()?) as usize;
        names.push(texts.get(..name)?);
        // Each text ends with a zero.
        texts = texts.get(name.checked_add(value)?.checked_add(2)?..)?;
    }
    Some(names.into_iter())
}

/// The ABI itself, version 0.2.1.
#[cfg(target_family = "wasm")]
// Foreign functions are unsafe to call; each call below passes pointers into live memory with the
// length of that memory, and takes over blocks that the host allocated in the module for it.
#[allow(unsafe_code)]
mod abi {
    use super::GRPC_NONE;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
        fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
        fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            version: *mut u32,
        ) -> u32;
        fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            version: u32,
        ) -> u32;
        fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        fn proxy_increment_metric(id: u32, by: i64) -> u32;
    }

    /// Takes over a block that the host allocated in this module.
    fn taken(data: *mut u8, size: usize) -> Vec<u8> {
        if data.is_null() || size == 0 {
            return Vec::new();
        }
        unsafe { Vec::from_raw_parts(data, size, size) }
    }

    pub(super) fn log(level: u32, text: &[u8]) {
        unsafe { proxy_log(level, text.as_ptr(), text.len()) };
    }

    pub(super) fn now() -> (u32, u64) {
        let mut nanos = 0;
        let status = unsafe { proxy_get_current_time_nanoseconds(&mut nanos) };
        (status, nanos)
    }

    pub(super) fn buffer(buffer: u32, max: usize) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_buffer_bytes(buffer, 0, max, &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(super) fn property(path: &[u8]) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(super) fn set_property(path: &[u8], value: &[u8]) -> u32 {
        unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
    }

    pub(super) fn shared(key: &[u8]) -> (u32, Vec<u8>, u32) {
        let (mut data, mut size, mut version) = (std::ptr::null_mut(), 0, 0);
        let status = unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut size, &mut version)
        };
        (status, taken(data, size), version)
    }

    pub(super) fn set_shared(key: &[u8], value: &[u8], version: u32) -> u32 {
        unsafe {
            proxy_set_shared_data(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                version,
            )
        }
    }

    pub(super) fn header(map: u32, name: &[u8]) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe {
            proxy_get_header_map_value(map, name.as_ptr(), name.len(), &mut data, &mut size)
        };
        (status, taken(data, size))
    }

    pub(super) fn headers(map: u32) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_header_map_pairs(map, &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(super) fn set_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
        unsafe {
            proxy_replace_header_map_value(
                map,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        }
    }

    pub(super) fn answer(status: u32, body: &[u8], headers: &[u8]) -> u32 {
        unsafe {
            proxy_send_local_response(
                status,
                std::ptr::null(),
                0,
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                GRPC_NONE,
            )
        }
    }

    pub(super) fn define_metric(kind: u32, name: &[u8]) -> (u32, u32) {
        let mut id = 0;
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
        (status, id)
    }

    pub(super) fn increment_metric(id: u32, by: i64) -> u32 {
        unsafe { proxy_increment_metric(id, by) }
    }
}

/// Outside of wasm there is no host: every call fails, so that the crate builds and lints natively.
#[cfg(not(target_family = "wasm"))]
mod abi {
    const NO_HOST: u32 = 10;

    pub(super) fn log(_level: u32, _text: &[u8]) {}

    pub(super) fn now() -> (u32, u64) {
        (NO_HOST, 0)
    }

    pub(super) fn buffer(_buffer: u32, _max: usize) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(super) fn property(_path: &[u8]) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(super) fn set_property(_path: &[u8], _value: &[u8]) -> u32 {
        NO_HOST
    }

    pub(super) fn shared(_key: &[u8]) -> (u32, Vec<u8>, u32) {
        (NO_HOST, Vec::new(), 0)
    }

    pub(super) fn set_shared(_key: &[u8], _value: &[u8], _version: u32) -> u32 {
        NO_HOST
    }

    pub(super) fn header(_map: u32, _name: &[u8]) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(super) fn headers(_map: u32) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(super) fn set_header(_map: u32, _name: &[u8], _value: &[u8]) -> u32 {
        NO_HOST
    }

    pub(super) fn answer(_status: u32, _body: &[u8], _headers: &[u8]) -> u32 {
        let _ = super::GRPC_NONE;
        NO_HOST
    }

    pub(super) fn define_metric(_kind: u32, _name: &[u8]) -> (u32, u32) {
        (NO_HOST, 0)
    }

    pub(super) fn increment_metric(_id: u32, _by: i64) -> u32 {
        NO_HOST
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_read_from_whole_maps_only() {
        let map = super::pairs(&[("a.b", "c".to_owned()), ("d", String::new())]);
        let read = |map: &[u8]| super::names(map).map(|names| names.map(<[u8]>::to_vec).collect());
        assert_eq!(read(&map), Some(vec![b"a.b".to_vec(), b"d".to_vec()]));
        for end in 0..map.len() {
            assert_eq!(read(&map[..end]), None, "{end}");
        }
        assert_eq!(read(&[255; 64]), None);
    }

    #[test]
    fn pairs_are_written_as_the_abi_reads_them() {
        assert_eq!(
            super::pairs(&[("a", "bc".to_owned())]),
            [&[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0][..], b"a\0bc\0"].concat()
        );
    }
}
