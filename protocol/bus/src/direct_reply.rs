//! Addresses of RabbitMQ's direct reply-to: `amq.rabbitmq.reply-to.<process>.<key>`, as a broker writes them into
//! `reply_to` for whoever consumes from `amq.rabbitmq.reply-to`.
//!
//! A broker that is sent to an address of any other form ends the connection, with everything on it (541, seen
//! with 3.10), and a publisher that tries again is ended again. `reply_to` is what somebody wrote into a message, so
//! its form is checked before anything is sent there: the process is the external term of an Erlang pid
//! (<https://www.erlang.org/doc/apps/erts/erl_ext_dist>, NEW_PID_EXT with an atom for the node), in Base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What such an address begins with.
const PREFIX: &str = "amq.rabbitmq.reply-to";
const VERSION: u8 = 131;
const NEW_PID: u8 = 88;
const PID: u8 = 103;
const SMALL_ATOM_UTF8: u8 = 119;
const ATOM_UTF8: u8 = 118;
const ATOM: u8 = 100;
/// Bytes behind the node's name: id, serial, creation.
const REST_OF_NEW_PID: usize = 12;
const REST_OF_PID: usize = 9;

/// Whether `routing_key`, on the default exchange, can be sent to as far as this is concerned.
pub(crate) fn is_sound(routing_key: &str) -> bool {
    match routing_key.strip_prefix(PREFIX) {
        None => true,
        Some(address) => address
            .strip_prefix('.')
            .and_then(|address| address.split_once('.'))
            .is_some_and(|(process, key)| is_process(process) && is_key(key)),
    }
}

/// Whether it is such an address.
pub(crate) fn is_address(routing_key: &str) -> bool {
    routing_key.starts_with(PREFIX)
}

fn is_process(text: &str) -> bool {
    STANDARD
        .decode(text)
        .is_ok_and(|bytes| is_pid(&bytes).is_some())
}

fn is_pid(bytes: &[u8]) -> Option<()> {
    let (&[VERSION, kind, atom], rest) = bytes.split_first_chunk::<3>()? else {
        return None;
    };
    let (length, rest) = match atom {
        SMALL_ATOM_UTF8 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        ATOM | ATOM_UTF8 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let behind = match kind {
        NEW_PID => REST_OF_NEW_PID,
        PID => REST_OF_PID,
        _ => return None,
    };
    let node = rest.get(..length)?;
    let whole = rest.len() == length + behind;
    (whole && std::str::from_utf8(node).is_ok()).then_some(())
}

/// Base64 as well, with either alphabet.
fn is_key(text: &str) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    !text.is_empty() && text.as_bytes().iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(pid: &[u8], key: &str) -> String {
        format!("{PREFIX}.{}.{key}", STANDARD.encode(pid))
    }

    fn pid(node: &[u8]) -> Vec<u8> {
        let head = [
            VERSION,
            NEW_PID,
            SMALL_ATOM_UTF8,
            u8::try_from(node.len()).unwrap(),
        ];
        [&head, node, &[0; 12]].concat()
    }

    #[test]
    fn a_queue_and_what_a_broker_writes_are_sound() {
        assert!(is_sound("agent.a.tasks") && is_sound(""));
        assert!(is_sound(&address(&pid(b"rabbit@host"), "Xj2/+k==")));
    }

    #[test]
    fn everything_else_is_not() {
        let cut = &pid(b"rabbit@host")[..20];
        for wrong in [
            PREFIX.to_owned(),
            format!("{PREFIX}."),
            format!("{PREFIX}.garbage"),
            format!("{PREFIX}.g1h2AAx!!.xx"),
            format!("{PREFIX}s"),
            address(cut, "a"),
            address(&pid(b"\xff"), "a"),
            address(&pid(b"n"), ""),
            address(&pid(b"n"), "a b"),
            address(&[VERSION, 104, 0], "a"),
            address(b"", "a"),
        ] {
            assert!(!is_sound(&wrong), "{wrong}");
        }
    }
}
