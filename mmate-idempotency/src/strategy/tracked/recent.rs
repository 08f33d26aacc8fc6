//! What is known to be done, for a while: recognised without asking the store.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mmate_core::{Context, TraceParent};
use tokio::time::Instant;

use crate::protocol::{Digest, Seen, Time};
use crate::store::{RecordKey, Store, moves_of_manual_clocks, wall_clock};
use crate::sync::{Mutex, MutexGuard};

/// For how long it is recognised, if nobody says otherwise.
pub(super) const DEFAULT_RECALL: Duration = Duration::from_secs(60);

/// How many are recognised, at least the later half of them. All of them take some 30 MB.
const MOST: usize = 1 << 17;

/// The keys that the store has said are done, or has taken as done. That is all that may be told without it: a record that
/// is done stays so until its window is over.
pub(super) struct Recent {
    /// For how long; zero if nothing is recognised.
    recall: Duration,
    /// How long ago something may have been done that the store tells of.
    longest_ago: Duration,
    /// Two secrets: what is known is kept by hashes of 128 bits, which cannot be made to collide.
    hashers: [RandomState; 2],
    tables: Mutex<Tables>,
}

/// When the young one is half of all, or old enough, it takes the place of the old one.
struct Tables {
    young: HashMap<Place, Known>,
    old: HashMap<Place, Known>,
    turn: Instant,
    /// How often clocks for tests had been moved.
    moves: u64,
}

/// The hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place(u128);

/// A message: where it is kept, and what its content is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    place: Place,
    /// The hash of the content as it came, byte by byte: to compare it nothing is decoded.
    bytes: u64,
    fingerprint: Option<Digest>,
}

impl Spot {
    /// With the fingerprint, now that it is known.
    pub(super) fn with(self, fingerprint: Option<Digest>) -> Self {
        Self { fingerprint, ..self }
    }
}

struct Known {
    bytes: u64,
    fingerprint: Option<Digest>,
    since: Time,
    by: Arc<str>,
    trace: Option<TraceParent>,
    until: Instant,
}

impl Recent {
    /// In front of that store. One that is this process's own answers as fast; and of one that cannot tell for how long it
    /// remembers, nothing is known for long.
    pub(super) fn before(store: &dyn Store, recall: Duration) -> Self {
        let window = store.remembers().map(|kept| kept.of_done().unwrap_or(Duration::MAX));
        let window = window.filter(|_| store.promises().shared).unwrap_or_default();
        let (young, old) = Default::default();
        let moves = moves_of_manual_clocks();
        Self {
            // A window's end is told by the store's clock, and this one may not go as fast.
            recall: recall.min(window / 4),
            longest_ago: window / 2,
            hashers: [RandomState::new(), RandomState::new()],
            tables: Mutex::new(Tables { young, old, turn: Instant::now(), moves }),
        }
    }

    /// Of a message with this key and content; nothing if nothing is known of any.
    pub(super) fn spot(&self, key: &RecordKey, content: Option<(&str, &Bytes)>) -> Option<Spot> {
        if self.recall.is_zero() {
            return None;
        }
        let what = (key.scope(), key.id());
        let [first, second] = self.hashers.each_ref().map(|hasher| hasher.hash_one(what));
        let place = Place(u128::from(first) << 64 | u128::from(second));
        // Of two contents under one key 64 bits tell which is which.
        Some(Spot { place, bytes: self.hashers[0].hash_one(content), fingerprint: None })
    }

    /// Since when it is done, if it is known, and came as it comes now.
    pub(super) fn find(&self, spot: Spot) -> Option<Seen> {
        self.find_if(spot, |known| known.bytes == spot.bytes)
    }

    /// The same if it came otherwise, such as with another time in it, and has this fingerprint all the same. With another
    /// one nothing is found: of that only the store can tell.
    pub(super) fn find_alike(&self, spot: Spot) -> Option<Seen> {
        self.find_if(spot, |known| known.fingerprint == spot.fingerprint)
    }

    fn find_if(&self, spot: Spot, is_it: impl FnOnce(&Known) -> bool) -> Option<Seen> {
        let tables = self.tables();
        let known = tables.young.get(&spot.place).or_else(|| tables.old.get(&spot.place))?;
        let seen = || {
            let Known { since, trace, .. } = *known;
            Seen { since, by: Arc::clone(&known.by), reply: None, trace }
        };
        (is_it(known) && known.until > Instant::now()).then(seen)
    }

    /// The store has said so just now. What has a reply is left to the store, which keeps it.
    pub(super) fn note(&self, spot: Spot, seen: &Seen) {
        let Seen { since, ref by, ref reply, trace } = *seen;
        if reply.is_none() && since.until(wall_clock()) <= self.longest_ago {
            self.put(spot, since, Arc::clone(by), trace);
        }
    }

    /// The store has taken it as done, without a reply.
    pub(super) fn note_done(&self, spot: Spot, context: &Context) {
        self.put(spot, wall_clock(), context.subscription().into(), context.trace_parent());
    }

    fn put(&self, spot: Spot, since: Time, by: Arc<str>, trace: Option<TraceParent>) {
        let now = Instant::now();
        let Spot { place, bytes, fingerprint } = spot;
        let until = now + self.recall;
        let known = Known { bytes, fingerprint, since, by, trace, until };
        let mut tables = self.tables();
        if tables.young.len() >= MOST / 2 || tables.turn + self.recall < now {
            tables.old = std::mem::take(&mut tables.young);
            tables.turn = now;
        }
        tables.young.insert(place, known);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it is held.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let moves = moves_of_manual_clocks();
        if tables.moves != moves {
            // The store may have such a clock, and a window may be over.
            tables.moves = moves;
            tables.young.clear();
            tables.old.clear();
        }
        tables
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("recall", &self.recall).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the documentation says of its memory: two tables, each with as many places as a power of two that is no more
    /// than seven eighths full.
    #[test]
    fn all_of_them_take_some_thirty_megabytes() {
        let places = (MOST / 2 * 8 / 7).next_power_of_two();
        let bytes = 2 * places * (size_of::<(Place, Known)>() + 1);
        assert!(bytes < 31_000_000, "{bytes}");
    }
}
