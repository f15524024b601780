//! The ABI itself, version 0.2.1: the host's functions, each as a safe call that returns its status.

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::*;

/// "No gRPC status" of the ABI.
const GRPC_NONE: i32 = -1;

#[cfg(target_family = "wasm")]
// Foreign functions are unsafe to call; each call below passes pointers into live memory with the
// length of that memory, and takes over blocks that the host allocated in the module for it.
#[allow(unsafe_code)]
mod wasm {
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
        fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            size: usize,
            data: *const u8,
            data_size: usize,
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
        fn proxy_record_metric(id: u32, value: u64) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(data: *mut u8, size: usize) -> u32;
    }

    pub(crate) fn random(bytes: &mut [u8]) -> u32 {
        unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Takes over a block that the host allocated in this module.
    fn taken(data: *mut u8, size: usize) -> Vec<u8> {
        if data.is_null() || size == 0 {
            return Vec::new();
        }
        unsafe { Vec::from_raw_parts(data, size, size) }
    }

    pub(crate) fn log(level: u32, text: &[u8]) {
        unsafe { proxy_log(level, text.as_ptr(), text.len()) };
    }

    pub(crate) fn now() -> (u32, u64) {
        let mut nanos = 0;
        let status = unsafe { proxy_get_current_time_nanoseconds(&mut nanos) };
        (status, nanos)
    }

    pub(crate) fn buffer(buffer: u32, max: usize) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_buffer_bytes(buffer, 0, max, &mut data, &mut size) };
        (status, taken(data, size))
    }

    /// Puts `bytes` in the place of all that the buffer holds.
    pub(crate) fn set_buffer(buffer: u32, bytes: &[u8]) -> u32 {
        // Of a size as large as can be: Kong cuts what is set to it.
        unsafe { proxy_set_buffer_bytes(buffer, 0, usize::MAX, bytes.as_ptr(), bytes.len()) }
    }

    pub(crate) fn property(path: &[u8]) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(crate) fn set_property(path: &[u8], value: &[u8]) -> u32 {
        unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
    }

    pub(crate) fn shared(key: &[u8]) -> (u32, Vec<u8>, u32) {
        let (mut data, mut size, mut version) = (std::ptr::null_mut(), 0, 0);
        let status = unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), &mut data, &mut size, &mut version)
        };
        (status, taken(data, size), version)
    }

    pub(crate) fn set_shared(key: &[u8], value: &[u8], version: u32) -> u32 {
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

    pub(crate) fn header(map: u32, name: &[u8]) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe {
            proxy_get_header_map_value(map, name.as_ptr(), name.len(), &mut data, &mut size)
        };
        (status, taken(data, size))
    }

    pub(crate) fn headers(map: u32) -> (u32, Vec<u8>) {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_header_map_pairs(map, &mut data, &mut size) };
        (status, taken(data, size))
    }

    pub(crate) fn set_header(map: u32, name: &[u8], value: &[u8]) -> u32 {
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

    pub(crate) fn answer(status: u32, body: &[u8], headers: &[u8]) -> u32 {
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

    pub(crate) fn define_metric(kind: u32, name: &[u8]) -> (u32, u32) {
        let mut id = 0;
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
        (status, id)
    }

    pub(crate) fn increment_metric(id: u32, by: i64) -> u32 {
        unsafe { proxy_increment_metric(id, by) }
    }

    pub(crate) fn record_metric(id: u32, value: u64) -> u32 {
        unsafe { proxy_record_metric(id, value) }
    }
}

/// Outside of wasm there is no host: every call fails, so that the crate builds and lints natively.
#[cfg(not(target_family = "wasm"))]
mod native {
    const NO_HOST: u32 = 10;

    pub(crate) fn log(_level: u32, _text: &[u8]) {}

    pub(crate) fn random(_bytes: &mut [u8]) -> u32 {
        NO_HOST
    }

    pub(crate) fn now() -> (u32, u64) {
        (NO_HOST, 0)
    }

    pub(crate) fn buffer(_buffer: u32, _max: usize) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(crate) fn set_buffer(_buffer: u32, _bytes: &[u8]) -> u32 {
        NO_HOST
    }

    pub(crate) fn property(_path: &[u8]) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(crate) fn set_property(_path: &[u8], _value: &[u8]) -> u32 {
        NO_HOST
    }

    pub(crate) fn shared(_key: &[u8]) -> (u32, Vec<u8>, u32) {
        (NO_HOST, Vec::new(), 0)
    }

    pub(crate) fn set_shared(_key: &[u8], _value: &[u8], _version: u32) -> u32 {
        NO_HOST
    }

    pub(crate) fn header(_map: u32, _name: &[u8]) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(crate) fn headers(_map: u32) -> (u32, Vec<u8>) {
        (NO_HOST, Vec::new())
    }

    pub(crate) fn set_header(_map: u32, _name: &[u8], _value: &[u8]) -> u32 {
        NO_HOST
    }

    pub(crate) fn answer(_status: u32, _body: &[u8], _headers: &[u8]) -> u32 {
        let _ = super::GRPC_NONE;
        NO_HOST
    }

    pub(crate) fn define_metric(_kind: u32, _name: &[u8]) -> (u32, u32) {
        (NO_HOST, 0)
    }

    pub(crate) fn increment_metric(_id: u32, _by: i64) -> u32 {
        NO_HOST
    }

    pub(crate) fn record_metric(_id: u32, _value: u64) -> u32 {
        NO_HOST
    }
}
