//! What is known to be done, for a while: recognised without asking the store.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mmate_core::{Context, TraceParent};
use tokio::time::Instant;

use crate::protocol::{Digest, Seen, Time};
use crate::store::{ClaimRequest, RecordKey, Store, moves_of_manual_clocks, wall_clock};
use crate::sync::{Mutex, MutexGuard};

/// For how long it is recognised, if nobody says otherwise.
pub(super) const DEFAULT_RECALL: Duration = Duration::from_secs(60);

/// How many are recognised, at least the later half of them. All of them take some 23 MB.
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

/// The hash of a key and a fingerprint. Under another fingerprint nothing is found: of that only the store can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(u128);

struct Known {
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

    /// Where it is kept; nothing if nothing is.
    pub(super) fn place(&self, key: &RecordKey, fingerprint: Option<Digest>) -> Option<Place> {
        if self.recall.is_zero() {
            return None;
        }
        let what = (key.scope(), key.id(), fingerprint);
        let [first, second] = self.hashers.each_ref().map(|hasher| hasher.hash_one(what));
        Some(Place(u128::from(first) << 64 | u128::from(second)))
    }

    /// Since when it is done, if that is known.
    pub(super) fn find(&self, request: &ClaimRequest<'_>) -> Option<Seen> {
        let place = self.place(&request.key, request.fingerprint)?;
        let tables = self.tables();
        let known = tables.young.get(&place).or_else(|| tables.old.get(&place))?;
        let seen = || {
            let Known { since, trace, .. } = *known;
            Seen { since, by: Arc::clone(&known.by), reply: None, trace }
        };
        (known.until > Instant::now()).then(seen)
    }

    /// The store has said so just now. What has a reply is left to the store, which keeps it.
    pub(super) fn note(&self, request: &ClaimRequest<'_>, seen: &Seen) {
        let Seen { since, ref by, ref reply, trace } = *seen;
        if let Some(place) = self.place(&request.key, request.fingerprint)
            && reply.is_none()
            && since.until(wall_clock()) <= self.longest_ago
        {
            self.put(place, since, Arc::clone(by), trace);
        }
    }

    /// The store has taken it as done, without a reply.
    pub(super) fn note_done(&self, place: Place, context: &Context) {
        self.put(place, wall_clock(), context.subscription().into(), context.trace_parent());
    }

    fn put(&self, place: Place, since: Time, by: Arc<str>, trace: Option<TraceParent>) {
        let now = Instant::now();
        let known = Known { since, by, trace, until: now + self.recall };
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
    fn all_of_them_take_some_twenty_three_megabytes() {
        let places = (MOST / 2 * 8 / 7).next_power_of_two();
        let bytes = 2 * places * (size_of::<(Place, Known)>() + 1);
        assert!(bytes < 26_000_000, "{bytes}");
    }
}
