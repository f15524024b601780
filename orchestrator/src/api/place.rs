//! Where a client is in the log, as the id of a server-sent event: opaque to it, `<epoch>-<position>`, and `.<n>`
//! behind the nth event of a change that has more.

use crate::store::Position;
use std::fmt;
use std::str::FromStr;

/// Longest text that is looked at.
const MAX: usize = 128;

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The store's life in which it means something.
    pub epoch: String,
    /// Behind this change, or in the middle of it.
    pub position: Position,
    /// The events of the change that the client has seen, when not all.
    seen: Option<usize>,
}

impl Place {
    /// Behind the change at `position`.
    pub fn at(epoch: &str, position: Position) -> Self {
        Self {
            epoch: epoch.to_owned(),
            position,
            seen: None,
        }
    }

    /// Before everything that is kept.
    pub fn start(epoch: &str) -> Self {
        Self::at(epoch, Position::default())
    }

    /// Behind the `nth` of the `last` events of the change of this place.
    pub fn within(&self, nth: usize, last: usize) -> Self {
        Self {
            seen: (nth < last).then_some(nth),
            ..self.clone()
        }
    }

    /// The position after which to read so that what was not seen comes.
    pub fn before(&self) -> Position {
        let at = self.position;
        if self.seen.is_none() {
            return at;
        }
        let (ms, seq) = match at.seq.checked_sub(1) {
            Some(seq) => (at.ms, seq),
            None => (at.ms.saturating_sub(1), u64::MAX),
        };
        Position {
            ms,
            seq,
            number: at.number.saturating_sub(1),
        }
    }

    /// How many events of the change at `position` were seen.
    pub fn seen_of(&self, position: Position) -> usize {
        self.seen
            .filter(|_| self.position == position)
            .unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)?;
        match self.seen {
            None => Ok(()),
            Some(seen) => write!(f, ".{seen}"),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() > MAX {
            return Err(());
        }
        let (text, seen) = match text.split_once('.') {
            Some((text, seen)) => (text, Some(seen.parse().map_err(drop)?)),
            None => (text, None),
        };
        let (epoch, position) = text.split_once('-').ok_or(())?;
        Ok(Self {
            epoch: epoch.to_owned(),
            position: position.parse()?,
            seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let position = Position {
            ms: 5,
            seq: 0,
            number: 9,
        };
        let behind = Place::at("77", position);
        let within = behind.within(2, 3);
        assert_eq!(within.to_string(), "77-5-0-9.2");
        for place in [behind.clone(), within.clone(), behind.within(3, 3)] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for bad in [
            "",
            "x",
            "77-5-0",
            "77-5-0-9.",
            "77-5-0-9.x",
            &"7".repeat(200),
        ] {
            assert_eq!(bad.parse::<Place>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn in_the_middle_of_a_change_the_rest_of_it_comes() {
        let position = Position {
            ms: 5,
            seq: 0,
            number: 9,
        };
        let within = Place::at("77", position).within(2, 3);
        assert!(within.before() < position);
        assert_eq!(within.before().number, 8);
        assert_eq!(within.seen_of(position), 2);
        assert_eq!(within.seen_of(Position::default()), 0);
        assert_eq!(Place::at("77", position).before(), position);
    }
}
