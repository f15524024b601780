//! What the broker's and the client library's errors mean to a caller.

use crate::BusError;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

/// `error` as a caller hears it, who was `doing` something.
pub(super) fn of(doing: &str, error: &Error) -> BusError {
    let detail = format!("{doing}: {}", text(error));
    match error.kind() {
        ErrorKind::ProtocolError(said) => {
            if let Some(mismatch) = mismatch(said) {
                return mismatch;
            }
            if is_size(said) {
                BusError::TooLarge { detail }
            } else if passing(said) {
                BusError::Unavailable { detail }
            } else {
                BusError::Refused { detail }
            }
        }
        ErrorKind::InvalidProtocolVersion(_)
        | ErrorKind::SerialisationError(_)
        | ErrorKind::AuthProviderError(_)
        | ErrorKind::NoDefaultRuntime => BusError::Refused { detail },
        _ => BusError::Unavailable { detail },
    }
}

/// Whether trying again may help. A frame that breaks the connection is mostly another's; whoever sent
/// it finds out by [`is_frame_error`].
fn passing(said: &AMQPError) -> bool {
    matches!(
        said.kind(),
        AMQPErrorKind::Hard(
            AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::INTERNALERROR
                | AMQPHardError::RESOURCEERROR
                | AMQPHardError::CHANNELERROR
                | AMQPHardError::FRAMEERROR
                | AMQPHardError::UNEXPECTEDFRAME
        )
    )
}

/// What a delivery's settling comes to when its channel ended before.
pub(super) fn went_back() -> BusError {
    BusError::Unavailable {
        detail: "the delivery went back to its queue with its channel".to_owned(),
    }
}

/// Whether the broker has no such queue or exchange.
pub(super) fn is_absence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

/// Whether the connection ended over a frame.
pub(super) fn is_frame_error(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR)))
}

/// Whether the broker broke over what it was sent.
pub(super) fn is_internal_error(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said)
        if matches!(said.kind(), AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)))
}

/// Whether the broker's own limit on bodies is lower than ours: `message size X is larger than ...`.
fn is_size(said: &AMQPError) -> bool {
    matches!(
        said.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
    ) && said.get_message().as_str().contains("message size ")
}

/// What the broker said, or what happened.
pub(super) fn text(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        _ => error.to_string(),
    }
}

fn mismatch(said: &AMQPError) -> Option<BusError> {
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
            parse_mismatch(said.get_message().as_str())
        }
        _ => None,
    }
}

/// Reads `... inequivalent arg 'A' for queue 'Q' in vhost 'V': received X but current is Y`.
fn parse_mismatch(text: &str) -> Option<BusError> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once("' for ")?;
    let (kind, rest) = rest.split_once(" '")?;
    let (name, rest) = rest.split_once("' in vhost '")?;
    let (vhost, rest) = rest.split_once("': received ")?;
    let (wanted, found) = rest.split_once(" but current is ")?;
    let mend = if kind == "queue" {
        format!(
            "empty the queue, remove it with `rabbitmqctl delete_queue --vhost {vhost} {name}`, and \
             it is declared anew"
        )
    } else {
        format!("remove the {kind} in the broker's management, and it is declared anew")
    };
    Some(BusError::Mismatch {
        object: format!("{kind} {name}"),
        argument: argument.to_owned(),
        found: value(found),
        wanted: value(wanted),
        mend,
    })
}

/// `the value 'X' of type 'T'`, `'X'` or `none`, without the frills.
fn value(text: &str) -> String {
    let text = text.strip_prefix("the value ").unwrap_or(text);
    let text = text
        .split_once(" of type ")
        .map_or(text, |(value, _)| value);
    text.trim_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> [String; 4] {
        match parse_mismatch(text) {
            Some(BusError::Mismatch {
                object,
                argument,
                found,
                wanted,
                ..
            }) => [object, argument, found, wanted],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_brokers_text_is_read() {
        assert_eq!(
            parsed(
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'agent.a.tasks' in \
                 vhost '/': received the value 'quorum' of type 'longstr' but current is none"
            ),
            ["queue agent.a.tasks", "x-queue-type", "none", "quorum"]
        );
        assert_eq!(
            parsed(
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'ai.tasks' in vhost \
                 'it's': received 'topic' but current is 'direct'"
            ),
            ["exchange ai.tasks", "type", "direct", "topic"]
        );
    }

    #[test]
    fn other_texts_are_no_mismatch() {
        for text in [
            "",
            "PRECONDITION_FAILED - unknown delivery tag 7",
            "inequivalent arg '",
        ] {
            assert!(parse_mismatch(text).is_none());
        }
    }
}
