//! How a connection ends.

use crate::coordination::hub::HubError;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

/// Close codes: of RFC 6455, section 7.4.1 and its registry, and one of our own.
pub(super) mod code {
    /// Not as RFC 6455 has it.
    pub(in super::super) const PROTOCOL: u16 = 1002;
    /// Not text.
    pub(in super::super) const UNSUPPORTED: u16 = 1003;
    /// Not UTF-8.
    pub(in super::super) const INVALID: u16 = 1007;
    /// Too large.
    pub(in super::super) const TOO_LARGE: u16 = 1009;
    /// This replica stops; others go on.
    pub(in super::super) const RESTART: u16 = 1012;
    /// The store is away.
    pub(in super::super) const TRY_LATER: u16 = 1013;
    /// The agent has a newer connection.
    pub(in super::super) const REPLACED: u16 = 4000;
}

/// How a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// With a code, and why for the metric and for people.
    Close(u16, &'static str),
    /// Without a word: the other side is gone.
    Gone(&'static str),
}

/// What the hub says, or the end of the connection; `None` when the hub cannot be reached, which passes.
pub(super) fn lasting<T>(answer: Result<T, HubError>) -> Result<Option<T>, End> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(HubError::Replaced) => Err(End::Close(code::REPLACED, "replaced")),
        Err(HubError::Gone) => Err(End::Close(code::RESTART, "forgotten")),
        Err(HubError::Unavailable { .. } | HubError::Config { .. }) => Ok(None),
    }
}

/// How a connection ends that broke so.
pub(super) fn broken(error: axum::Error) -> End {
    match error.into_inner().downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => End::Close(code::TOO_LARGE, "too_large"),
        Some(tungstenite::Error::Utf8(_)) => End::Close(code::INVALID, "not_utf8"),
        Some(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            End::Gone("cut_off")
        }
        Some(tungstenite::Error::Protocol(_)) => End::Close(code::PROTOCOL, "protocol"),
        _ => End::Gone("cut_off"),
    }
}
