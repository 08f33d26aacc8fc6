//! Whether each message took effect once: a checker to point at your own handlers.
//!
//! What is tested is not asked. The publisher notes what it published, the handlers' effects are
//! read from where they are, such as a table **without** a unique constraint, and whoever does the
//! harm notes it. From these [`Event`]s a [`Checker`] makes a [`Verdict`].
//!
//! ```
//! use mmate_core::checker::{Checker, EndState, Event, Promise};
//!
//! let mut checker = Checker::new(Promise::EffectOnce);
//! for id in ["order-1", "order-2", "order-3"] {
//!     checker.take(&Event::attempted(id));
//!     checker.take(&Event::confirmed(id));
//! }
//! checker.take(&Event::effect("order-1").by("worker-1"));
//! checker.take(&Event::effect("order-2").by("worker-1"));
//! checker.take(&Event::effect("order-2").by("worker-2"));
//!
//! let verdict = checker.verdict(&EndState::default());
//! assert!(!verdict.is_clean());
//! assert_eq!(verdict.lost, ["order-3"]);
//! assert_eq!(verdict.double, ["order-2"]);
//! println!("{verdict}");
//! ```
//!
//! Processes that get killed write what they do into a [`Journal`] each, and the checker takes all
//! of them. When something is wrong, [`Verdict::convict`] finds the events of each message that it
//! is wrong with.

mod event;
mod fate;
mod journal;
mod tally;
mod verdict;

pub use event::{Event, What};
pub use journal::{Journal, JournalError, read};
pub use tally::{Checker, EndState, Promise};
pub use verdict::Verdict;
