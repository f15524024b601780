//! What befell a message, beside the message: header `x-mesh-trail`, a line of JSON.
//!
//! A broker keeps no notes, and what one consumer knew is gone with it. One header rather than one for each
//! number: it is written and read whole, and a person can read it in any tool that shows a message.

use serde::{Deserialize, Serialize};

/// Most mishaps that are kept, the latest: a message has seldom more tries, and its headers share a frame.
const MAX_MISHAPS: usize = 10;
/// Longest reason of one, in bytes.
const MAX_REASON_BYTES: usize = 256;
/// Longest trail as it is written, in bytes. With five headers of the longest it stays within a frame of 32 KiB.
const MAX_BYTES: usize = 4 * 1024;

/// What befell a message before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Trail {
    /// How often it was put off after a failure.
    pub retries: u32,
    /// Calls of the agent that were made for it.
    pub calls: u32,
    /// How often somebody took it out of the dead letters again.
    pub replays: u32,
    /// When it was first taken, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_ms: Option<u64>,
    /// How long it is to wait yet, in milliseconds: delays that no queue has come about in several parts.
    #[serde(skip_serializing_if = "is_zero")]
    pub wait_ms: u64,
    /// When it became a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_ms: Option<u64>,
    /// What went wrong, oldest first, the latest ten.
    pub history: Vec<Mishap>,
}

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mishap {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub reason: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Trail {
    /// Adds what went wrong at `at_ms`; the oldest makes room.
    pub fn note(&mut self, at_ms: u64, reason: &str) {
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        // Control characters take six bytes each as JSON, and a terminal obeys them.
        let reason = reason.replace(char::is_control, " ");
        self.history.push(Mishap { at_ms, reason });
        let over = self.history.len().saturating_sub(MAX_MISHAPS);
        self.history.drain(..over);
    }

    /// The trail as it is written, its oldest mishaps left out where it would be too long.
    pub(crate) fn to_header(&self) -> String {
        let mut trail = self.clone();
        loop {
            // Numbers and texts always serialise.
            let text = serde_json::to_string(&trail).unwrap_or_default();
            if text.len() <= MAX_BYTES || trail.history.is_empty() {
                return text;
            }
            trail.history.remove(0);
        }
    }

    /// Reads what [`Self::to_header`] wrote; anything else counts as none.
    pub(crate) fn from_header(text: &str) -> Option<Box<Self>> {
        if text.len() > MAX_BYTES {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_the_latest() {
        let mut trail = Trail::default();
        for at in 0..100 {
            trail.note(at, &"\"ü\n".repeat(1000));
        }
        assert_eq!(trail.history.len(), MAX_MISHAPS);
        assert!(
            trail
                .history
                .iter()
                .all(|m| m.reason.len() <= MAX_REASON_BYTES)
        );
        let text = trail.to_header();
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let read = Trail::from_header(&text).unwrap();
        assert_eq!(read.history.last().unwrap().at_ms, 99);
        assert!(!read.history.iter().any(|m| m.reason.contains('\n')));
    }

    #[test]
    fn what_others_write_counts_as_none() {
        for text in [
            "",
            "7",
            "[]x",
            "{\"retries\":-1}",
            &"x".repeat(MAX_BYTES + 1),
        ] {
            assert_eq!(Trail::from_header(text), None, "{text}");
        }
        assert_eq!(Trail::from_header("{}").as_deref(), Some(&Trail::default()));
    }
}
