//! Strategies: middleware that suppress duplicates.

mod fingerprint;
mod identity;
mod key;
mod outage;
mod tracked;
#[cfg(feature = "sqlite")]
mod transactional;
mod upkeep;
mod verdict;

use std::time::Duration;

pub use fingerprint::Fingerprint;
pub use key::{Key, MissingId};
pub use tracked::{OnBusy, Tracked};
#[cfg(feature = "sqlite")]
pub use transactional::{GroupCommit, Transactional, TransactionalDatabase, Tx};

const PURGE_EVERY: Duration = Duration::from_secs(60);

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

        /// How often records whose time is over are removed; about once a minute by default.
        pub fn purge_every(mut self, pause: Duration) -> Self {
            self.purge_every = pause;
            self
        }
    };
}
use shared_options;
