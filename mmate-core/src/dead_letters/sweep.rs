//! Going through a dead-letter queue to take letters out of it.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};

use super::letter::Letter;
use super::{DeadLetterError, DeadLetters, Open, PAGE};
use crate::message::{MessageId, wire, with_id};
use crate::transport::{Changes, Delivery, Settled, Settlement};

type Chosen<'a> = Box<dyn FnMut(&Letter) -> bool + Send + 'a>;

/// Letters about to be sent back, see [`DeadLetters::replay`]. It happens when this is awaited, and
/// returns how many there were; 0 if none was chosen.
///
/// A letter goes back as the message that it was: its id, headers and body. The notes of its
/// failure are taken off, so its attempts begin anew, and `x-mmate-replays` counts up. One that was
/// handled to its end all the same (such as a copy of another) is recognised by its id and
/// suppressed, as any duplicate is; [`as_new`](Self::as_new) makes it run.
#[must_use = "letters are replayed when this is awaited"]
pub struct Replaying<'a> {
    letters: &'a DeadLetters,
    chosen: Chosen<'a>,
    limit: u64,
    as_new: bool,
}

impl<'a> Replaying<'a> {
    pub(super) fn new(letters: &'a DeadLetters, chosen: Chosen<'a>) -> Self {
        Self { letters, chosen, limit: u64::MAX, as_new: false }
    }

    /// Takes no more than so many, the oldest first.
    pub fn limit(mut self, letters: u64) -> Self {
        self.limit = letters;
        self
    }

    /// Gives each of them a new id, in its properties, its headers and its envelope, so that it
    /// runs even if it ran before: **its effect is then there twice**, unless the handler itself
    /// knows better. The id that it had is kept in the header `x-mmate-replay-of`.
    pub fn as_new(mut self) -> Self {
        self.as_new = true;
        self
    }
}

impl<'a> IntoFuture for Replaying<'a> {
    type Output = Result<u64, DeadLetterError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { letters, chosen, limit, as_new } = self;
        Box::pin(sweep(letters, chosen, limit, move |letter| replay(letter, as_new)))
    }
}

impl fmt::Debug for Replaying<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replaying")
            .field("letters", &self.letters)
            .field("limit", &self.limit)
            .field("as_new", &self.as_new)
            .finish_non_exhaustive()
    }
}

/// Letters about to be thrown away, see [`DeadLetters::discard`]. It happens when this is awaited,
/// and returns how many there were; 0 if none was chosen.
#[must_use = "letters are discarded when this is awaited"]
pub struct Discarding<'a> {
    letters: &'a DeadLetters,
    chosen: Chosen<'a>,
    limit: u64,
}

impl<'a> Discarding<'a> {
    pub(super) fn new(letters: &'a DeadLetters, chosen: Chosen<'a>) -> Self {
        Self { letters, chosen, limit: u64::MAX }
    }

    /// Takes no more than so many, the oldest first.
    pub fn limit(mut self, letters: u64) -> Self {
        self.limit = letters;
        self
    }
}

impl<'a> IntoFuture for Discarding<'a> {
    type Output = Result<u64, DeadLetterError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(sweep(self.letters, self.chosen, self.limit, |_| Settlement::Ack))
    }
}

impl fmt::Debug for Discarding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discarding")
            .field("letters", &self.letters)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// How many letters are on their way at a time.
const AT_ONCE: usize = 64;

/// Takes the chosen letters out of the queue, and ends at the first that stays.
async fn sweep(
    letters: &DeadLetters,
    mut chosen: Chosen<'_>,
    limit: u64,
    how: impl Fn(&Letter) -> Settlement + Send,
) -> Result<u64, DeadLetterError> {
    let Open { mut browser, queue } = letters.open(PAGE).await?;
    let mut moving = FuturesOrdered::new();
    let mut tally = Tally { queue, done: 0, failed: None };
    let mut taken = 0;
    while taken < limit && tally.failed.is_none() {
        if moving.len() >= AT_ONCE
            && let Some(moved) = moving.next().await
        {
            tally.note(moved);
            continue;
        }
        // Those that are on their way get on, also while few letters are chosen.
        if let Some(Some(moved)) = moving.next().now_or_never() {
            tally.note(moved);
        }
        match browser.next().await {
            Ok(Some(delivery)) => {
                let letter = Letter::read(&delivery, &tally.queue);
                if chosen(&letter) {
                    taken += 1;
                    moving.push_back(take(delivery, how(&letter), letter));
                }
            }
            Ok(None) => break,
            Err(source) => {
                let (queue, done) = (tally.queue.to_string(), 0);
                tally.failed = Some(DeadLetterError::Interrupted { queue, done, source });
            }
        }
    }
    while let Some(moved) = moving.next().await {
        tally.note(moved);
    }
    browser.close().await;
    tally.result()
}

async fn take(delivery: Delivery, how: Settlement, letter: Letter) -> (Letter, Settled) {
    (letter, delivery.settle(how).await)
}

struct Tally {
    queue: Arc<str>,
    done: u64,
    failed: Option<DeadLetterError>,
}

impl Tally {
    fn note(&mut self, (letter, settled): (Letter, Settled)) {
        match settled {
            Settled::Yes => self.done += 1,
            Settled::Lost { reason } => {
                let id = letter.message_id();
                let letter = id.map_or_else(|| "without an id".to_owned(), |id| format!("{id:?}"));
                let queue = self.queue.to_string();
                let stayed = DeadLetterError::Stayed { queue, letter, done: 0, reason };
                self.failed.get_or_insert(stayed);
            }
        }
    }

    /// The count of those that were done is known only now.
    fn result(self) -> Result<u64, DeadLetterError> {
        use DeadLetterError::{Interrupted, Stayed, Unavailable};
        let done = self.done;
        Err(match self.failed {
            None => return Ok(done),
            Some(Interrupted { queue, source, .. }) => Interrupted { queue, done, source },
            Some(Stayed { queue, letter, reason, .. }) => Stayed { queue, letter, done, reason },
            Some(error @ Unavailable { .. }) => error,
        })
    }
}

/// The notes of a failure, which do not hold for a message that begins anew.
const NOTES: [&str; 7] = [
    wire::ATTEMPTS,
    wire::DEFERRALS,
    wire::FIRST_FAILED_AT,
    wire::ERROR,
    wire::REASON,
    wire::QUEUE,
    wire::DEAD_AT,
];

/// How a letter goes back to its queue.
fn replay(letter: &Letter, as_new: bool) -> Settlement {
    let mut changes = Changes { unset: NOTES.map(str::to_owned).to_vec(), ..Changes::default() };
    // It comes back by the queue's name, and shall still say where it was published to.
    changes.set.insert(wire::EXCHANGE, letter.exchange());
    changes.set.insert(wire::ROUTING_KEY, letter.routing_key());
    changes.set.insert(wire::REPLAYS, letter.replays().saturating_add(1));
    if as_new {
        let id = MessageId::generate();
        if let Some(old) = letter.message_id() {
            changes.set.insert(wire::REPLAY_OF, old);
        }
        changes.set.insert(wire::MESSAGE_ID, id.as_str());
        if letter.message().headers.contains(wire::MESSAGE_ID_PLAIN) {
            changes.set.insert(wire::MESSAGE_ID_PLAIN, id.as_str());
        }
        changes.body = with_id(letter.body(), &id);
        changes.message_id = Some(id.as_str().to_owned());
    }
    Settlement::Move { to: letter.queue().to_owned(), changes: Box::new(changes) }
}
