//! A part of the memory store, behind one lock.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use super::ring::Ring;
use crate::protocol::{Command, Record, Retention, State, Time, Verdict, Work, step};

/// The hash that stands for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash([u64; 2]);

impl KeyHash {
    pub(super) fn new(first: u64, second: u64) -> Self {
        Self([first, second])
    }

    /// For tables within a shard.
    pub(super) fn short(self) -> u64 {
        self.0[0]
    }

    /// Which of `parts` it belongs to; of other bits than tables use.
    pub(super) fn part(self, parts: usize) -> usize {
        (self.0[1] % parts as u64) as usize
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.short());
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only key hashes are hashed, as one number")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map<V> = HashMap<KeyHash, V, BuildHasherDefault<AsItIs>>;

/// A part of the store. Records are kept by state: there are few in progress, some that were given
/// back, and many that are done.
pub(super) struct Shard {
    capacity: usize,
    retention: Retention,
    in_progress: Map<(u64, Work)>,
    released: Map<Released>,
    /// The keys of `released` in the order they were given back, with the fence they had. Some
    /// that were claimed since stand here too.
    release_order: VecDeque<(KeyHash, u64)>,
    done: Ring,
    /// The subscriptions, so that each is in memory once. They are few enough for a list.
    names: Vec<Arc<str>>,
}

#[derive(Clone, Copy)]
struct Released {
    fence: u64,
    attempt: u32,
    until: Time,
}

/// What a step forgot beside what it was asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    /// Done records whose window was not over.
    pub(super) evicted: u64,
}

impl Shard {
    pub(super) fn new(capacity: usize, retention: Retention) -> Self {
        Self {
            capacity,
            retention,
            in_progress: Map::default(),
            released: Map::default(),
            release_order: VecDeque::new(),
            done: Ring::new(retention),
            names: Vec::new(),
        }
    }

    pub(super) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let name = Arc::from(name);
        self.names.push(Arc::clone(&name));
        name
    }

    pub(super) fn len(&self) -> usize {
        self.in_progress.len() + self.released.len() + self.done.len()
    }

    /// One transition of one record.
    pub(super) fn step(&mut self, key: KeyHash, command: Command, now: Time) -> (Verdict, Removed) {
        let before = self.take(key);
        let was_done = matches!(&before, Some(Record { state: State::Done(_), .. }));
        let was_released = matches!(&before, Some(Record { state: State::Released { .. }, .. }));
        let (after, verdict) = step(before, command, now, &self.retention);
        match after {
            // What is done stays as it is, until its window is over.
            Some(Record { state: State::Done(_), .. }) if was_done => {}
            _ if was_done => self.done.remove(key),
            _ => {}
        }
        match after {
            Some(Record { fence, state: State::InProgress(work) }) => {
                self.in_progress.insert(key, (fence, work));
            }
            Some(Record { fence, state: State::Released { attempt, until } }) => {
                self.released.insert(key, Released { fence, attempt, until });
                if !was_released {
                    self.release_order.push_back((key, fence));
                    self.tidy_release_order();
                }
            }
            Some(Record { fence, state: State::Done(done) }) if !was_done => {
                self.done.push(key, fence, done);
            }
            Some(Record { state: State::Done(_), .. }) | None => {}
        }
        (verdict, self.make_room(now))
    }

    /// Forgets up to `at_most` records whose time is over.
    pub(super) fn purge(&mut self, at_most: u64, now: Time) -> u64 {
        let mut purged = 0;
        let is_over = |until: Option<Time>| until.is_some_and(|until| until <= now);
        while purged < at_most && self.done.pop_if(is_over) {
            purged += 1;
        }
        while purged < at_most && self.pop_released(|until| until <= now) {
            purged += 1;
        }
        // Few are in progress, and of these few are abandoned.
        self.in_progress.retain(|_, (_, work)| {
            let keep = purged >= at_most || now < work.until;
            purged += u64::from(!keep);
            keep
        });
        purged
    }

    /// The record, taken out of its place unless it is done.
    fn take(&mut self, key: KeyHash) -> Option<Record> {
        if let Some((fence, work)) = self.in_progress.remove(&key) {
            return Some(Record { fence, state: State::InProgress(work) });
        }
        if let Some(Released { fence, attempt, until }) = self.released.remove(&key) {
            return Some(Record { fence, state: State::Released { attempt, until } });
        }
        self.done.find(key)
    }

    /// Forgets what is over, a little at each step; and what is too much.
    fn make_room(&mut self, now: Time) -> Removed {
        let is_over = |until: Option<Time>| until.is_some_and(|until| until <= now);
        let _ = self.done.pop_if(is_over) && self.done.pop_if(is_over);
        let _ = self.pop_released(|until| until <= now);
        let mut removed = Removed::default();
        while self.len() > self.capacity {
            if self.pop_released(|_| true) {
                continue;
            }
            let mut inside = false;
            let popped = self.done.pop_if(|until| {
                inside = !is_over(until);
                true
            });
            if !popped {
                break;
            }
            removed.evicted += u64::from(inside);
        }
        removed
    }

    /// Drops what was claimed again since, once that is the greater part.
    fn tidy_release_order(&mut self) {
        if self.release_order.len() > 2 * self.released.len() + 64 {
            let released = &self.released;
            self.release_order
                .retain(|(key, fence)| released.get(key).is_some_and(|had| had.fence == *fence));
        }
    }

    /// Forgets what was given back longest ago, if `when` says so of the time it ends.
    fn pop_released(&mut self, when: impl FnOnce(Time) -> bool) -> bool {
        while let Some((key, fence)) = self.release_order.front() {
            let Entry::Occupied(entry) = self.released.entry(*key) else {
                self.release_order.pop_front();
                continue;
            };
            if entry.get().fence != *fence {
                self.release_order.pop_front();
                continue;
            }
            if !when(entry.get().until) {
                return false;
            }
            entry.remove();
            self.release_order.pop_front();
            return true;
        }
        false
    }
}
