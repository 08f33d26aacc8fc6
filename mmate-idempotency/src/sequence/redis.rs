//! Numbers without gaps, from Redis.

use std::fmt;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::limits::{Text, check};
use crate::store::{Code, RedisStore, StoreError, StoreErrorKind};

/// Numbers from 1 without gaps, for each key, handed out by Redis in one round trip: for work whose
/// effect is not in a database, or whose database has no transaction to spare for the numbers.
///
/// A number is taken for an id, the message's or the client's. Who asks for the same id again, after
/// a crash, a redelivery or an answer that got lost, is told the same number: so no number is lost on
/// the way, and none is given out twice.
///
/// There is no transaction that would take a number back. If the work fails for good,
/// [`give_back`](Self::give_back) does, as long as nobody took one after it: have one at a time work
/// at a key, by [`Locked`](crate::Locked), and that is always so.
///
/// ```
/// use mmate_core::{HandlerError, Json, State};
/// use mmate_idempotency::RedisStore;
/// use mmate_idempotency::sequence::RedisSequence;
/// # #[derive(serde::Deserialize)] struct Said { id: String, conversation: String }
/// # async fn deliver(_: Said, _: i64) -> Result<(), HandlerError> { Ok(()) }
///
/// async fn say(
///     Json(said): Json<Said>,
///     State(numbers): State<RedisSequence>,
/// ) -> Result<(), HandlerError> {
///     let number = numbers.next(&said.conversation, &said.id).await?;
///     deliver(said, number).await
/// }
/// # let _ = say;
/// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379/").await?;
/// let numbers = RedisSequence::new(&store, "chat");
/// # let _ = numbers; Ok(()) }
/// ```
///
/// # What Redis forgets
///
/// A server that [forgets](RedisStore#what-redis-forgets) begins at 1 again. Where the numbers are
/// also somewhere that does not forget, such as the messages' own table, [`raise`](Self::raise) the
/// key to the last one there before the first number is taken, or whenever a number turns out to be
/// there already.
///
/// Cheap to clone; the connection is the store's.
#[derive(Clone)]
pub struct RedisSequence {
    store: RedisStore,
    name: Arc<str>,
    window: Duration,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    Code::new(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/sequence.lua")))
});

const WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// 2^53 less one: what comes next is exact, too.
const LARGEST: i64 = (1 << 53) - 1;
const RAISING: &str = "raise the last number";
const TAKING: &str = "take the next number";

impl RedisSequence {
    /// The sequence of this name, 255 bytes at most, with the connection and the prefix of a store.
    /// Each key of each name counts for itself.
    #[must_use]
    pub fn new(store: &RedisStore, name: impl Into<Arc<str>>) -> Self {
        Self { store: store.clone(), name: name.into(), window: WINDOW }
    }

    /// For how long an id keeps its number after it was last asked for; seven days by default.
    /// Longer than the last copy of a message may take to come, as with the window of a store. Less
    /// than a millisecond counts as one.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The number of this id among those of the key: the next one, from 1, or the one that it has.
    ///
    /// # Errors
    /// When Redis does not answer, or a text is longer than 255 bytes or has a NUL in it. It may
    /// have the number then: ask again with the same id.
    pub async fn next(&self, key: &str, id: &str) -> Result<i64, StoreError> {
        let window = self.window.as_millis().clamp(1, 1 << 50).to_string();
        self.ask(key, Some(id), &[b"next", window.as_bytes()], TAKING).await
    }

    /// Takes the number of an id back, so that the next one gets it, and tells whether it did: only
    /// the last number of a key can be, and only for as long as the id keeps it.
    ///
    /// # Errors
    /// As [`next`](Self::next). After an answer that got lost, asking again says `false`.
    pub async fn give_back(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        let answer = self.ask(key, Some(id), &[b"give back"], "give a number back").await?;
        Ok(answer == 1)
    }

    /// The last number of a key that was given out; 0 if there is none.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn last(&self, key: &str) -> Result<i64, StoreError> {
        self.ask(key, None, &[b"last"], "look for the last number").await
    }

    /// Has a key go on after this number, if it is not further already, and returns its last number.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn raise(&self, key: &str, last: i64) -> Result<i64, StoreError> {
        if last > LARGEST {
            let wrong = format!("Redis counts to {LARGEST} without error, and not to {last}");
            return Err(StoreError::new(StoreErrorKind::Permanent, RAISING, wrong));
        }
        let last = last.to_string();
        self.ask(key, None, &[b"raise", last.as_bytes()], RAISING).await
    }

    async fn ask(
        &self,
        key: &str,
        id: Option<&str>,
        args: &[&[u8]],
        attempted: &'static str,
    ) -> Result<i64, StoreError> {
        check(Text::Name, &self.name)?;
        check(Text::Key, key)?;
        let counter = self.counter(key);
        let number = match id {
            Some(id) => {
                check(Text::Id, id)?;
                format!("{counter}:{id}")
            }
            None => counter.clone(),
        };
        let answer: String = self.store.eval(&CODE, &[counter, number], args, attempted).await?;
        answer.parse().map_err(|error| StoreError::new(StoreErrorKind::Permanent, attempted, error))
    }

    /// `mmate:{0f3a…}:sequence:4:chat:7:room-12`
    ///
    /// The lengths say where name and key end, whatever stands in them. What is in braces decides
    /// the node in a cluster: it is the same for all ids of a key, and nobody can choose it.
    fn counter(&self, key: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(self.name.len().to_be_bytes());
        digest.update(&*self.name);
        digest.update(key);
        let mut text = format!("{}:{{", self.store.key_prefix());
        for byte in &digest.finalize()[..8] {
            let _ = write!(text, "{byte:02x}");
        }
        let (name, name_length, length) = (&self.name, self.name.len(), key.len());
        let _ = write!(text, "}}:sequence:{name_length}:{name}:{length}:{key}");
        text
    }
}

impl fmt::Debug for RedisSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSequence")
            .field("name", &self.name)
            .field("window", &self.window)
            .field("store", &self.store)
            .finish()
    }
}
