//! Strategies: middleware that suppress duplicates.

pub(crate) mod answers;
mod fingerprint;
mod identity;
mod key;
pub(crate) mod lease;
mod locked;
pub(crate) mod outage;
mod tracked;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod transactional;
pub(crate) mod upkeep;
mod verdict;

use std::time::Duration;

pub use fingerprint::Fingerprint;
pub use key::{Key, MissingId};
pub use lease::OnBusy;
pub use locked::{LockPermit, Locked};
pub use tracked::Tracked;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use transactional::{GroupCommit, Transactional, TransactionalDatabase, Tx};

pub(crate) const PURGE_EVERY: Duration = Duration::from_secs(60);
pub(crate) const REPLY_LIMIT: usize = 64 * 1024;

/// The options that every strategy has.
macro_rules! shared_options {
    () => {
        /// What a message is recognised by; its id by default.
        pub fn key(mut self, key: $crate::Key) -> Self {
            self.identity.key = key;
            self
        }

        /// What becomes of a message without a key; it is dead-lettered by default.
        pub fn missing_id(mut self, policy: $crate::MissingId) -> Self {
            self.identity.missing = policy;
            self
        }

        /// What tells two contents under one key apart; type and payload by default.
        pub fn fingerprint(mut self, fingerprint: $crate::Fingerprint) -> Self {
            self.identity.fingerprint = fingerprint;
            self
        }

        /// How long after it was dead-lettered a message may be replayed, a day by default: what the
        /// warning at the start assumes about a window that is too short. Nothing is refused for
        /// being replayed later.
        pub fn replayed_within(mut self, time: Duration) -> Self {
            self.identity.replayed_within = time;
            self
        }

        /// How long one answer of the store may take; 10 s by default.
        pub fn answer_timeout(mut self, limit: Duration) -> Self {
            self.patience.answer = limit;
            self
        }

        /// How long a message is held back, with its handler's place taken, while the store does
        /// not answer; 60 s by default. Then it is deferred.
        pub fn outage_patience(mut self, limit: Duration) -> Self {
            self.patience.outage = limit;
            self
        }

        /// How large an answer to a request may be to be kept in the record, in bytes of JSON; 64 KiB
        /// by default. A copy of the request is answered from the record. With 0, none is kept.
        ///
        /// A larger answer is sent, but not kept, which is logged and counted
        /// (`mmate_replies_not_kept_total`): a copy of its request is acknowledged without an answer.
        pub fn reply_limit(mut self, bytes: usize) -> Self {
            self.reply_limit = bytes;
            self
        }

        /// How often records whose time is over are removed; about once a minute by default.
        pub fn purge_every(mut self, pause: Duration) -> Self {
            self.purge_every = pause;
            self
        }
    };
}
use shared_options;
