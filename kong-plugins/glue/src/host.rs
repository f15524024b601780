//! Host calls that report a status instead of panicking on it.
//!
//! The host returns memory that it took from the module's own allocator (the SDK's `malloc`), so a
//! returned block becomes a `Vec` of exactly its size.

use mesh_policy::{Refusal, Timestamp, Unreadable};

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
const MAP_REQUEST_HEADERS: u32 = 0;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const METRIC_COUNTER: u32 = 0;
/// "No gRPC status" of the ABI.
const GRPC_NONE: i32 = -1;

/// Writes to the host's log.
pub(crate) fn log(level: Level, text: &str) {
    abi::log(level as u32, text.as_bytes());
}

/// The host's wall clock.
pub(crate) fn now() -> Option<Timestamp> {
    let (status, nanos) = abi::now();
    (status == OK).then(|| Timestamp::from_millis(nanos / 1_000_000))
}

/// The filter's configuration; empty when there is none.
pub(crate) fn configuration() -> Vec<u8> {
    let (status, bytes) = abi::buffer(BUFFER_PLUGIN_CONFIGURATION);
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

    pub(super) fn buffer(buffer: u32) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_buffer_bytes(buffer, 0, usize::MAX, &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(super) fn header(map: u32, name: &[u8]) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe {
            proxy_get_header_map_value(map, name.as_ptr(), name.len(), &mut data, &mut size)
        };
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

    pub(super) fn buffer(_buffer: u32) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(super) fn header(_map: u32, _name: &[u8]) -> (u32, Vec<u8>) {
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
    fn pairs_are_written_as_the_abi_reads_them() {
        assert_eq!(
            super::pairs(&[("a", "bc".to_owned())]),
            [&[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0][..], b"a\0bc\0"].concat()
        );
    }
}
