//! How duplicates are often suppressed by hand, and how that loses messages or doubles effects.
//!
//! Each module is one such pattern, as handlers have it. Beside each of its failures stands mmate in
//! the same scenario. The page `docs/choosing-a-strategy.md` says what to write instead.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

mod exists_then_set;
mod lock_and_return;
mod map_with_mutex;
mod table_of_ids;
