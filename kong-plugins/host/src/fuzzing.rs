//! What a fuzz target reaches of the inside: the codec of header maps.

use crate::abi::pairs;

/// Reads pairs; None for what is cut off or too long.
pub fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    pairs::decode(bytes)
}

/// Writes pairs.
pub fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    pairs::encode(pairs)
}
