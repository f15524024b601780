//! What a fuzz target reaches of the inside: the reader of header maps.

/// Names and values of a header map in the ABI's form; none where they are not whole.
pub fn read(map: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    crate::headers::Headers::read(map).map(|headers| headers.0)
}
