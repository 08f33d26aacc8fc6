//! Done records in the order in which they were done, packed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use mmate_core::TraceParent;

use super::shard::KeyHash;
use crate::protocol::{Digest, Done, Record, Retention, State, Time};

/// Done records in the order in which they were done: a queue in blocks, so that growing copies
/// nothing, and an index into it. A record takes 56 bytes, its place in the index 5 to 10.
pub(super) struct Ring {
    blocks: VecDeque<Vec<Packed>>,
    /// The place of the first record of the first block. Places are counted on, and wrap around.
    first: u32,
    /// How many records of the first block are gone.
    gone: usize,
    /// One past the last place.
    end: u32,
    index: HashTable<u32>,
    replies: HashMap<u32, Bytes>,
    /// Of those that were traced.
    traces: HashMap<u32, TraceParent>,
    names: Vec<Arc<str>>,
    retention: Retention,
}

#[derive(Clone, Copy)]
struct Packed {
    key: KeyHash,
    fingerprint: [u64; 2],
    fence: u64,
    since: u64,
    by: u32,
    has_fingerprint: bool,
    is_gone: bool,
}

const BLOCK: usize = 1024;

impl Ring {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            blocks: VecDeque::new(),
            first: 0,
            gone: 0,
            end: 0,
            index: HashTable::new(),
            replies: HashMap::new(),
            traces: HashMap::new(),
            names: Vec::new(),
            retention,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, key: KeyHash) -> Option<Record> {
        let place = *self.index.find(key.short(), |place| self.at(*place).key == key)?;
        Some(self.unpack(place))
    }

    /// Takes it out, wherever it stands.
    pub(super) fn remove(&mut self, key: KeyHash) {
        let Self { index, blocks, first, replies, traces, .. } = self;
        let at = |place: u32| locate(*first, place);
        let found = index.find_entry(key.short(), |place| {
            let (block, offset) = at(*place);
            blocks[block][offset].key == key
        });
        if let Ok(entry) = found {
            let (place, _) = entry.remove();
            let (block, offset) = at(place);
            blocks[block][offset].is_gone = true;
            replies.remove(&place);
            traces.remove(&place);
            self.drop_gone();
        }
    }

    /// Adds what was done just now.
    pub(super) fn push(&mut self, key: KeyHash, fence: u64, done: Done) {
        let place = self.end;
        let packed = Packed {
            key,
            fingerprint: done.fingerprint.map_or([0; 2], |digest| halves(*digest.as_bytes())),
            fence,
            since: done.since.as_millis(),
            by: self.name(&done.by),
            has_fingerprint: done.fingerprint.is_some(),
            is_gone: false,
        };
        match self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => block.push(packed),
            None => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(packed);
                self.blocks.push_back(block);
            }
        }
        self.end = self.end.wrapping_add(1);
        if let Some(reply) = done.reply {
            self.replies.insert(place, reply);
        }
        if let Some(trace) = done.trace {
            self.traces.insert(place, trace);
        }
        let Self { index, blocks, first, .. } = self;
        index.insert_unique(key.short(), place, |place| {
            let (block, offset) = locate(*first, *place);
            blocks[block][offset].key.short()
        });
    }

    /// Takes out what has been done for longest, if `when` says so of the time it ends.
    pub(super) fn pop_if(&mut self, when: impl FnOnce(Option<Time>) -> bool) -> bool {
        let Some(oldest) = self.blocks.front().and_then(|block| block.get(self.gone)) else {
            return false;
        };
        if !when(self.until(oldest.since)) {
            return false;
        }
        self.remove(oldest.key);
        true
    }

    fn until(&self, since: u64) -> Option<Time> {
        self.retention.of_done().map(|window| Time::from_millis(since) + window)
    }

    fn at(&self, place: u32) -> &Packed {
        let (block, offset) = locate(self.first, place);
        &self.blocks[block][offset]
    }

    fn unpack(&self, place: u32) -> Record {
        let packed = self.at(place);
        let done = Done {
            by: Arc::clone(&self.names[packed.by as usize]),
            fingerprint: packed.has_fingerprint.then(|| digest(packed.fingerprint)),
            since: Time::from_millis(packed.since),
            until: self.until(packed.since),
            reply: self.replies.get(&place).cloned(),
            trace: self.traces.get(&place).copied(),
        };
        Record { fence: packed.fence, state: State::Done(done) }
    }

    /// There are as many names as subscriptions, so a list is searched fast enough.
    fn name(&mut self, name: &Arc<str>) -> u32 {
        let known = self.names.iter().position(|known| known == name);
        let at = known.unwrap_or_else(|| {
            self.names.push(Arc::clone(name));
            self.names.len() - 1
        });
        u32::try_from(at).expect("a process has fewer than 2^32 subscriptions")
    }

    /// Moves the front past records that are gone, and gives whole blocks back.
    fn drop_gone(&mut self) {
        while let Some(block) = self.blocks.front() {
            match block.get(self.gone) {
                Some(packed) if packed.is_gone => self.gone += 1,
                None if self.gone == BLOCK => {
                    self.blocks.pop_front();
                    self.first = self.first.wrapping_add(BLOCK as u32);
                    self.gone = 0;
                }
                Some(_) | None => return,
            }
        }
    }
}

/// Block and offset of a place. The subtraction is right across the wrap, as a ring is never as
/// long as all places.
fn locate(first: u32, place: u32) -> (usize, usize) {
    let distance = place.wrapping_sub(first) as usize;
    (distance / BLOCK, distance % BLOCK)
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(bytes);
    [(whole >> 64) as u64, whole as u64]
}

fn digest([high, low]: [u64; 2]) -> Digest {
    Digest::from_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}
