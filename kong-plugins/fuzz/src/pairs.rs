//! The form in which header maps cross the boundary between host and filter, at both of its ends.

use mesh_filter_glue::fuzzing::read;
use mesh_wasm_host::fuzzing::{decode, encode};

/// What both ends read they read alike; what the host writes is what both read.
pub fn pairs(data: &[u8]) -> bool {
    let host = decode(data);
    let filter = read(data);
    if let (Some(host), Some(filter)) = (&host, &filter) {
        assert!(same(host, filter), "{host:?} {filter:?}");
    }
    let Some(pairs) = host else {
        return false;
    };
    let written = encode(&pairs);
    assert_eq!(decode(&written).as_ref(), Some(&pairs));
    let filter = read(&written).expect("the host's own writing");
    assert!(same(&pairs, &filter), "{pairs:?} {filter:?}");
    true
}

fn same(host: &[(&[u8], &[u8])], filter: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let filter = filter.iter().map(|(name, value)| (&name[..], &value[..]));
    host.iter().copied().eq(filter)
}
