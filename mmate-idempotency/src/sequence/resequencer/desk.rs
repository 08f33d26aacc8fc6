//! Which number of each key comes next, and who waits for its turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::meters;

/// Which number of each key comes next, and who waits for its turn.
#[derive(Debug)]
pub(super) struct Desk {
    /// How many keys are remembered.
    most: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    keys: HashMap<String, Line>,
    held: usize,
    /// Counts what happens, to tell the keys that were used least lately.
    ticks: u64,
}

/// The messages of one key.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) next: u64,
    /// The numbers at hand that are not begun, with how many copies there are of each.
    pub(super) waiting: BTreeMap<u64, usize>,
    /// How many are in their handlers because it was their turn.
    pub(super) running: usize,
    pub(super) seats: usize,
    pub(super) changed: Arc<Notify>,
    used: u64,
}

/// Whether it is a message's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It comes next.
    Now,
    /// Its number was handled before.
    Past,
    /// Others come before it.
    Early,
}

impl Desk {
    pub(super) fn new(most: usize) -> Self {
        Self { most, all: Mutex::default() }
    }

    pub(super) fn held(&self) -> usize {
        self.all().held
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.all().keys.contains_key(key)
    }

    /// A key is seen for the first time, with this number to come next. Somebody else may have said
    /// so meanwhile.
    pub(super) fn begin(&self, key: &str, next: u64) {
        let mut all = self.all();
        if all.keys.contains_key(key) {
            return;
        }
        if all.keys.len() >= self.most {
            all.forget();
        }
        all.ticks += 1;
        let line = Line { next, used: all.ticks, ..Line::default() };
        all.keys.insert(key.to_owned(), line);
    }

    /// Looks at, or changes, the line of a key that was begun.
    pub(super) fn line<T>(&self, key: &str, change: impl FnOnce(&mut Line) -> T) -> T {
        let mut all = self.all();
        all.ticks += 1;
        let ticks = all.ticks;
        // One that was forgotten since begins anew.
        let line =
            all.keys.entry(key.to_owned()).or_insert_with(|| Line { next: 1, ..Line::default() });
        line.used = ticks;
        change(line)
    }

    /// Whether one more may be held.
    pub(super) fn hold(&self, most: usize) -> bool {
        let mut all = self.all();
        let has_room = all.held < most;
        all.held += usize::from(has_room);
        meters::held(all.held);
        has_room
    }

    pub(super) fn let_go(&self) {
        let mut all = self.all();
        all.held -= 1;
        meters::held(all.held);
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // Nothing panics while it is held.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Forgets the older half of the keys that nothing is at hand of: many at a time, so that the
    /// search for them costs each key little.
    fn forget(&mut self) {
        let mut idle: Vec<u64> =
            self.keys.values().filter(|line| line.seats == 0).map(|line| line.used).collect();
        idle.sort_unstable();
        let Some(middle) = idle.get(idle.len() / 2).copied() else { return };
        self.keys.retain(|_, line| line.seats > 0 || line.used > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_used_least_lately_are_forgotten_and_none_with_messages_at_hand() {
        let desk = Desk::new(10);
        for number in 0..10 {
            desk.begin(&format!("{number}"), 5);
        }
        desk.line("0", |line| line.seats += 1);
        desk.line("1", |_| {});
        desk.begin("new", 1);
        assert!(desk.knows("0") && desk.knows("1") && desk.knows("9") && desk.knows("new"));
        assert!(!desk.knows("2") && !desk.knows("3"));
    }
}
