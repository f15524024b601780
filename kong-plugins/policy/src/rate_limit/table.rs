//! What the workers of a gateway remember together: a table of cells of one size, in shared data.
//!
//! Gateways compare the keys of shared data by a checksum that anybody can collide with, keep no list of
//! them, and one of them never lets any go. So there are as many keys as the table has slots, named by
//! their number; where a limit's key lies is decided by a keyed hash, and a tag in the cell says whose
//! it is. A slot that holds somebody else's is passed over, at most [`PROBES`] times. A cell whose time
//! is over means nothing and is anybody's: idle keys leave without being swept.
//!
//! ```text
//!  0      6       8                16
//!  ├ tag ─┼ count ┼ until, ns ─────┤   little-endian
//! ```

use crate::host::{Cell, Host, Swapped, Unshared, Version};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Slots that are looked at for one key. With half of the table in use, one key in 256 finds none.
const PROBES: u32 = 8;
/// Longest name of a slot, in bytes.
const NAME: usize = 12;
/// Attempts to change a cell that other workers change as well; some workers need a few.
const ATTEMPTS: u32 = 64;

/// What is kept for a key. All zero means nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// How many, for what is counted.
    pub(super) count: u16,
    /// From when on it means nothing, in nanoseconds since 1970.
    pub(super) until_ns: u64,
}

/// Where a key lies, and how it is recognised there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    tag: [u8; 6],
    first: u32,
}

/// A key's places, and its name between gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Where it lies.
    pub(super) place: Place,
    /// Where what all gateways told of it lies.
    pub(super) told: Place,
    /// Its name: the front of the keyed hash.
    pub(super) name: [u8; 16],
}

/// The table of one gateway.
pub(super) struct Table {
    secret: Hmac<Sha256>,
    slots: u32,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// A key's cell, or the slot that it may take.
struct Found {
    slot: u32,
    version: Option<Version>,
    kept: Kept,
    /// Whether the cell is the key's own.
    own: bool,
}

impl Table {
    pub(super) fn new(secret: Hmac<Sha256>, slots: u32) -> Self {
        Self {
            secret,
            slots: slots.max(1),
        }
    }

    /// Where the key made of `parts` lies.
    pub(super) fn key<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
        let mut hash = self.secret.clone();
        for part in parts {
            // Each with its length, so that no two lists of parts are one text.
            hash.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into_bytes().into();
        // Each byte has one use: the two places of a key have nothing to do with each other.
        let [
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            s0,
            s1,
            s2,
            s3, // its place
            u0,
            u1,
            u2,
            u3,
            u4,
            u5,
            v0,
            v1,
            v2,
            v3, // the other
            n0,
            n1,
            n2,
            n3,
            n4,
            n5,
            .., // with its place's bytes its name
        ] = hash;
        let place = |tag, first| Place {
            tag,
            first: u32::from_le_bytes(first) % self.slots,
        };
        Key {
            place: place([t0, t1, t2, t3, t4, t5], [s0, s1, s2, s3]),
            told: place([u0, u1, u2, u3, u4, u5], [v0, v1, v2, v3]),
            name: [
                t0, t1, t2, t3, t4, t5, s0, s1, s2, s3, n0, n1, n2, n3, n4, n5,
            ],
        }
    }

    /// What is kept at `place`.
    pub(super) fn look(
        &self,
        host: &dyn Host,
        place: Place,
        now_ns: u64,
    ) -> Result<Kept, Unshared> {
        Ok(self.find(host, place, now_ns)?.kept)
    }

    /// Lets `change` decide on what is kept at `place`, until its decision stands: what to keep from now
    /// on, if anything is to change, and the answer.
    pub(super) fn change<T>(
        &self,
        host: &dyn Host,
        place: Place,
        now_ns: u64,
        change: impl Fn(Kept) -> (Option<Kept>, T),
    ) -> Result<T, Unshared> {
        for _ in 0..ATTEMPTS {
            let found = self.find(host, place, now_ns)?;
            let (kept, answer) = change(found.kept);
            let Some(kept) = kept else {
                return Ok(answer);
            };
            let cell = write(place.tag, kept);
            if host.swap(&name(found.slot), cell, found.version)? == Swapped::Written {
                if !found.own {
                    self.settle(host, place, found.slot, now_ns)?;
                }
                return Ok(answer);
            }
        }
        Err(Unshared)
    }

    /// The key's own cell, else the first slot that is free, else the one whose time is over soonest.
    fn find(&self, host: &dyn Host, place: Place, now_ns: u64) -> Result<Found, Unshared> {
        let mut free: Option<Found> = None;
        for slot in self.probes(place) {
            let Some((cell, version)) = host.cell(&name(slot))? else {
                // Slots are never emptied again: behind this one the key cannot be.
                return Ok(free.filter(|f| f.kept.until_ns <= now_ns).map_or_else(
                    || Found::free(slot, None),
                    |f| Found::free(f.slot, f.version),
                ));
            };
            let (tag, kept) = read(&cell);
            if tag == place.tag {
                return Ok(Found {
                    slot,
                    version: Some(version),
                    kept: if kept.until_ns <= now_ns {
                        Kept::default()
                    } else {
                        kept
                    },
                    own: true,
                });
            }
            let expired = free.as_ref().is_some_and(|f| f.kept.until_ns <= now_ns);
            let sooner = free
                .as_ref()
                .is_none_or(|f| kept.until_ns < f.kept.until_ns);
            if !expired && sooner {
                free = Some(Found {
                    slot,
                    version: Some(version),
                    kept,
                    own: false,
                });
            }
        }
        // All belong to others. Whoever is nearest to having a full bucket loses least.
        free.map(|f| Found::free(f.slot, f.version)).ok_or(Unshared)
    }

    /// Two workers that saw different slots become free may both have written a new key's cell. The one
    /// that lies behind is added to the one in front, so that nothing is counted in vain.
    fn settle(
        &self,
        host: &dyn Host,
        place: Place,
        mine: u32,
        now_ns: u64,
    ) -> Result<(), Unshared> {
        for slot in self.probes(place).take_while(|slot| *slot != mine) {
            match host.cell(&name(slot))? {
                Some((cell, _)) if read(&cell).0 == place.tag => {}
                _ => continue,
            }
            let Some((cell, version)) = host.cell(&name(mine))? else {
                return Ok(());
            };
            let (tag, late) = read(&cell);
            if tag != place.tag {
                return Ok(());
            }
            // Emptied first: what is between the two is forgotten rather than counted twice.
            let emptied = write(place.tag, Kept::default());
            if host.swap(&name(mine), emptied, Some(version))? == Swapped::Changed {
                continue;
            }
            let spent_ns = late.until_ns.saturating_sub(now_ns);
            return self.change(host, place, now_ns, |kept| {
                let kept = Kept {
                    count: kept.count.saturating_add(late.count),
                    until_ns: kept.until_ns.max(now_ns).saturating_add(spent_ns),
                };
                (Some(kept), ())
            });
        }
        Ok(())
    }

    fn probes(&self, place: Place) -> impl Iterator<Item = u32> {
        let slots = self.slots;
        (0..PROBES.min(slots)).map(move |n| place.first.wrapping_add(n) % slots)
    }
}

impl Found {
    fn free(slot: u32, version: Option<Version>) -> Self {
        Self {
            slot,
            version,
            kept: Kept::default(),
            own: false,
        }
    }
}

/// The name of a slot, as `rl1234`. At most 16 bytes long: a longer key makes a real Kong allocate at every
/// write. Written by hand, since each of up to [`PROBES`] slots of a request needs one.
fn name(slot: u32) -> String {
    let mut name = String::with_capacity(NAME);
    name.push_str("rl");
    let mut unit = 1;
    while slot / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 {
        let digit = u8::try_from(slot / unit % 10).unwrap_or_default();
        name.push(char::from(b'0' + digit));
        unit /= 10;
    }
    name
}

fn write(tag: [u8; 6], kept: Kept) -> Cell {
    let [t0, t1, t2, t3, t4, t5] = tag;
    let [c0, c1] = kept.count.to_le_bytes();
    let [u0, u1, u2, u3, u4, u5, u6, u7] = kept.until_ns.to_le_bytes();
    [
        t0, t1, t2, t3, t4, t5, c0, c1, u0, u1, u2, u3, u4, u5, u6, u7,
    ]
}

fn read(cell: &Cell) -> ([u8; 6], Kept) {
    let [
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        c0,
        c1,
        u0,
        u1,
        u2,
        u3,
        u4,
        u5,
        u6,
        u7,
    ] = *cell;
    let kept = Kept {
        count: u16::from_le_bytes([c0, c1]),
        until_ns: u64::from_le_bytes([u0, u1, u2, u3, u4, u5, u6, u7]),
    };
    ([t0, t1, t2, t3, t4, t5], kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryHost;
    use hmac::KeyInit;
    use mesh_protocol::Timestamp;

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn table(slots: u32) -> Table {
        Table::new(Hmac::new_from_slice(&[7; 32]).unwrap(), slots)
    }

    fn host() -> MemoryHost {
        MemoryHost::at(Timestamp::from_millis(NOW / 1_000_000))
    }

    fn add(table: &Table, host: &MemoryHost, key: &str, now_ns: u64) -> u16 {
        let place = table.key([key.as_bytes()]).place;
        let change = |kept: Kept| {
            let kept = Kept {
                count: kept.count + 1,
                until_ns: now_ns + 1_000,
            };
            (Some(kept), kept.count)
        };
        table.change(host, place, now_ns, change).unwrap()
    }

    #[test]
    fn keys_are_apart_and_leave_when_idle() {
        let (table, host) = (table(64), host());
        for round in 1..=3 {
            for key in ["a", "b", "c"] {
                assert_eq!(add(&table, &host, key, NOW), round);
            }
        }
        assert_eq!(add(&table, &host, "a", NOW + 1_000), 1, "its time was over");
    }

    #[test]
    fn parts_are_not_run_together() {
        let table = table(64);
        let ab = table.key([b"ab".as_slice(), b"c"]);
        assert_ne!(ab, table.key([b"a".as_slice(), b"bc"]));
        assert_ne!(ab, table.key([b"abc".as_slice()]));
    }

    #[test]
    fn memory_is_bounded_by_the_slots() {
        let (table, host) = (table(128), host());
        for number in 0..10_000 {
            assert_eq!(add(&table, &host, &number.to_string(), NOW), 1);
        }
        assert!(host.cells() <= 128);
    }

    #[test]
    fn a_full_table_forgets_whoever_would_be_forgotten_soonest() {
        let (table, host) = (table(1), host());
        assert_eq!(add(&table, &host, "a", NOW), 1);
        assert_eq!(add(&table, &host, "a", NOW), 2);
        assert_eq!(add(&table, &host, "b", NOW), 1);
        assert_eq!(add(&table, &host, "a", NOW), 1);
    }

    #[test]
    fn a_cell_that_was_written_twice_becomes_one() {
        let (table, host) = (table(8), host());
        let place = table.key([b"a".as_slice()]).place;
        // As two workers leave it: one in the first slot, one in the third.
        let third = table.probes(place).nth(2).unwrap();
        for slot in [place.first, third] {
            let kept = Kept {
                count: 2,
                until_ns: NOW + 500,
            };
            host.swap(&name(slot), write(place.tag, kept), None)
                .unwrap();
        }
        table.settle(&host, place, third, NOW).unwrap();
        let (cell, _) = host.cell(&name(place.first)).unwrap().unwrap();
        let kept = Kept {
            count: 4,
            until_ns: NOW + 1_000,
        };
        assert_eq!(read(&cell), (place.tag, kept));
        let (cell, _) = host.cell(&name(third)).unwrap().unwrap();
        assert_eq!(read(&cell).1, Kept::default());
    }

    #[test]
    fn names_are_short() {
        for slot in [0, 9, 10, 1_048_576, u32::MAX] {
            assert_eq!(name(slot), format!("rl{slot}"));
            assert!(name(slot).len() <= NAME);
        }
    }
}
