//! Looking through a queue.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use lapin::Channel;
use lapin::options::{BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use mmate_core::transport::{
    Browser, Delivery, Settle, Settled, Settlement, TransportError, TransportErrorKind,
};

use super::deliveries::Deliveries;
use super::incarnation::Incarnation;
use super::subscription::Subscription;
use crate::convert::{self, short};
use crate::failure::Failure;
use crate::link::Session;
use crate::settle::Receipt;

/// Looks through a queue on a channel of its own. What was looked at stays unacknowledged on that
/// channel, and goes back when the channel is closed; nothing is kept of it here.
///
/// RabbitMQ shows no more to a consumer that has its prefetch unacknowledged. So when a page was
/// looked at, the next consumer is started on the channel: the client holds one page, and the
/// broker the rest.
///
/// What a quorum queue takes back (measured on RabbitMQ 3.10) waits in a line of its own, before
/// all that was never shown, and joins that line at its end. So the order is kept if all of the line
/// is held when it goes back, and a browser that is closed early [reads on](Looking::read_on) to its
/// end. At the end of a channel the messages go back consumer after consumer by their tags, and those
/// of each in their order, as long as there are no more than 32 consumers with 32 messages each: the
/// broker has them in maps, which are sorted up to that size. Of a longer queue nothing is lost
/// either, but what was looked at comes back in another order. Rejecting the messages instead would
/// put them behind all others in a queue without a delivery limit.
pub(crate) struct AmqpBrowser(Option<Looking>);

struct Looking {
    subscription: Arc<Subscription>,
    incarnation: Arc<Incarnation>,
    deliveries: Deliveries,
    /// How much a consumer of this browser may have unacknowledged.
    page: u16,
    /// The consumers so far.
    pages: u32,
    /// Came from a consumer that was cancelled, and was not looked at yet.
    left_over: VecDeque<lapin::message::Delivery>,
    held: Arc<Held>,
    /// How many are still to be looked at, of those that were there at the beginning.
    left: u32,
    /// Whether there is nothing more behind the last one that was shown before.
    past_returned: bool,
}

/// What was looked at and not taken.
#[derive(Debug, Default)]
struct Held {
    /// The numbers of those that the consumer that is running has shown.
    of_this_page: Mutex<BTreeSet<u64>>,
    count: AtomicU32,
}

impl Held {
    fn of_this_page(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // Nothing panics while it is held.
        self.of_this_page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked_at(&self, tag: u64) {
        self.of_this_page().insert(tag);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn taken(&self, tag: u64) {
        self.of_this_page().remove(&tag);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many pages a queue is looked through in, at the most, unless it is very long.
const PAGES: u32 = 30;
/// The most that a broker gives back in order, see [`AmqpBrowser`].
const PAGE_IN_ORDER: u32 = 32;
/// What a client holds of a queue of any length.
const LARGEST_PAGE: u32 = 10_000;

/// How many messages are fetched at a time from a queue of this length.
fn page_for(left: u32, asked: u16) -> u16 {
    let enough = left.div_ceil(PAGES);
    let asked = u32::from(asked);
    let page = match enough <= PAGE_IN_ORDER {
        true => asked.min(PAGE_IN_ORDER).max(enough),
        false => asked.max(enough).min(LARGEST_PAGE),
    };
    u16::try_from(page.max(1)).unwrap_or(u16::MAX)
}

/// How long a page is waited for, before the broker is asked whether anything is left: somebody
/// else may have taken what was there. The broker no longer counts what is on its way to this browser
/// either, but that comes before its answer to a second question.
const GAP: Duration = Duration::from_millis(500);
/// How long a close reads on, at the longest.
const READING_ON: Duration = Duration::from_secs(30);
/// How long a close waits until what was looked at is back.
const GIVEN_BACK: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl AmqpBrowser {
    pub(crate) async fn open(
        subscription: Subscription,
        session: &Arc<Session>,
    ) -> Result<Self, TransportError> {
        let subscription = Arc::new(subscription);
        let attempted = || format!("browse the queue {}", subscription.queue());
        short("queue's name", subscription.queue()).map_err(|wrong| {
            let kind = TransportErrorKind::Configuration;
            TransportError::new(kind, attempted()).caused_by(wrong)
        })?;
        let (on, of) = (Arc::clone(session), Arc::clone(&subscription));
        // To its end, also if nobody waits for it any more.
        let opening = session.spawn(async move {
            let channel = on.channel().await?;
            let left = count(of.queue(), &on, &channel).await?;
            let page = page_for(left, of.prefetch());
            let incarnation = Incarnation::new(Arc::clone(&on), channel, page);
            let qos = incarnation.channel().basic_qos(page, BasicQosOptions::default());
            on.ask(qos).await?;
            let deliveries = consume(&of, &incarnation, 1).await?;
            Ok((incarnation, deliveries, left, page))
        });
        let opened = opening.await.unwrap_or(Err(Failure::Lost));
        let (incarnation, deliveries, left, page) = opened.map_err(|failure: Failure| {
            let kind = failure.kind();
            let error = failure.into_error(attempted());
            match kind {
                TransportErrorKind::NotFound => error.hint(
                    "a dead-letter queue is named after the queue that the letters come from, and \
                     is made together with it",
                ),
                TransportErrorKind::Forbidden => {
                    error.hint("looking needs the read permission for the queue")
                }
                TransportErrorKind::Locked => error.hint("a consumer has it for itself"),
                _ => error,
            }
        })?;
        Ok(Self(Some(Looking {
            subscription,
            incarnation,
            deliveries,
            page,
            pages: 1,
            left_over: VecDeque::new(),
            held: Arc::default(),
            left,
            past_returned: false,
        })))
    }
}

impl Looking {
    /// The next message, which is held from now on; `None` after the last.
    async fn next(&mut self) -> Result<Option<lapin::message::Delivery>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(delivery) = self.next_delivery().await? else {
            self.left = 0;
            return Ok(None);
        };
        self.left -= 1;
        self.past_returned |= !was_returned(&delivery);
        self.held.looked_at(delivery.delivery_tag);
        Ok(Some(delivery))
    }

    async fn next_delivery(&mut self) -> Result<Option<lapin::message::Delivery>, Failure> {
        let begin = tokio::time::Instant::now();
        let mut is_empty = false;
        loop {
            if let Some(delivery) = self.left_over.pop_front() {
                return Ok(Some(delivery));
            }
            if self.incarnation.is_lost() {
                return Err(Failure::Lost);
            }
            if self.is_page_full() {
                self.turn_the_page().await?;
                continue;
            }
            let session = self.incarnation.session();
            tokio::select! {
                biased;
                delivery = self.deliveries.next() => return shown(delivery).map(Some),
                () = session.lost() => return Err(Failure::Lost),
                () = tokio::time::sleep(GAP) => {
                    let name = self.subscription.queue();
                    let was_empty = is_empty;
                    is_empty = count(name, session, self.incarnation.channel()).await? == 0;
                    if is_empty && was_empty {
                        return self.deliveries.next().now_or_never().map(shown).transpose();
                    }
                    let limit = self.subscription.answer_timeout();
                    if !is_empty && begin.elapsed() > limit {
                        return Err(Failure::NoAnswer(limit));
                    }
                }
            }
        }
    }

    fn is_page_full(&self) -> bool {
        self.held.of_this_page().len() >= usize::from(self.page)
    }

    /// Ends the consumer, and starts the next one. What the one was given and nobody has looked at
    /// is left over.
    async fn turn_the_page(&mut self) -> Result<(), Failure> {
        self.deliveries.cancel(self.subscription.answer_timeout()).await?;
        // lapin ends the stream with the broker's answer.
        while let Some(Ok(delivery)) = self.deliveries.next().await {
            self.left_over.push_back(delivery);
        }
        self.pages += 1;
        self.deliveries = consume(&self.subscription, &self.incarnation, self.pages).await?;
        self.held.of_this_page().clear();
        Ok(())
    }

    /// Goes on to the first message that was never shown.
    async fn read_on(&mut self) {
        while !self.past_returned && matches!(self.next().await, Ok(Some(_))) {}
    }

    /// Closes the channel, which gives everything back, and waits until that is done: who looks
    /// next wants to see it.
    async fn give_back(mut self) {
        // If it takes too long, the order suffers, and nothing else.
        let _ = tokio::time::timeout(READING_ON, self.read_on()).await;
        self.incarnation.close().await;
        let session = self.incarnation.session();
        let held = self.held.count.load(Ordering::Relaxed);
        let name = self.subscription.queue();
        let there = async {
            if held == 0 {
                return;
            }
            loop {
                let count = session.aside(async |channel| count(name, session, channel).await);
                match count.await {
                    Ok(ready) if ready < held => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(_) | Err(_) => return,
                }
            }
        };
        // Somebody else may take them as soon as they are back.
        let _ = tokio::time::timeout(GIVEN_BACK, there).await;
    }

    fn error(&self, failure: Failure) -> TransportError {
        let no_answer = matches!(failure, Failure::NoAnswer(_));
        let error = failure.into_error(format!("browse the queue {}", self.subscription.queue()));
        match no_answer {
            true => error.hint("another consumer may have the queue for itself"),
            false => error,
        }
    }
}

/// What a consumer was given; its stream ends with the channel.
fn shown(
    delivery: Option<lapin::Result<lapin::message::Delivery>>,
) -> Result<lapin::message::Delivery, Failure> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(error.into()),
        None => Err(Failure::Lost),
    }
}

/// Whether a quorum queue took it back once: it then counts how often.
fn was_returned(delivery: &lapin::message::Delivery) -> bool {
    let headers = delivery.properties.headers().as_ref();
    headers.is_some_and(|headers| headers.contains_key("x-delivery-count"))
}

/// How many messages wait in the queue.
async fn count(queue: &str, session: &Session, channel: &Channel) -> Result<u32, Failure> {
    let look = QueueDeclareOptions::default().passive();
    let declaring = channel.queue_declare(queue.into(), look, FieldTable::default());
    Ok(session.ask(declaring).await?.message_count())
}

async fn consume(
    subscription: &Subscription,
    incarnation: &Arc<Incarnation>,
    page: u32,
) -> Result<Deliveries, Failure> {
    // The order of their names is the one in which they give back.
    Deliveries::of(incarnation, subscription.queue(), &format!("browse {page:010}")).await
}

#[async_trait]
impl Browser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, TransportError> {
        let Some(looking) = &mut self.0 else { return Ok(None) };
        let next = looking.next().await;
        let Some(delivery) = next.map_err(|failure| looking.error(failure))? else {
            return Ok(None);
        };
        let tag = delivery.delivery_tag;
        let deaths = delivery.properties.headers().as_ref().map(convert::deaths);
        let mut shown = Receipt::delivery(&looking.subscription, &looking.incarnation, delivery);
        shown.deaths = deaths.unwrap_or_default();
        let held = Arc::clone(&looking.held);
        Ok(Some(shown.map_settle(|right| Box::new(Looked { right, held, tag }))))
    }

    async fn close(mut self: Box<Self>) {
        if let Some(looking) = self.0.take() {
            looking.give_back().await;
        }
    }
}

impl Drop for AmqpBrowser {
    fn drop(&mut self) {
        // Without a runtime the connection ends too, and gives back what was looked at.
        if let Some(looking) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(looking.give_back());
        }
    }
}

impl fmt::Debug for AmqpBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looking = self.0.as_ref();
        f.debug_struct("AmqpBrowser")
            .field("queue", &looking.map(|looking| looking.subscription.queue()))
            .field("left", &looking.map(|looking| looking.left))
            .finish_non_exhaustive()
    }
}

/// The right to settle what was looked at.
struct Looked {
    right: Box<dyn Settle>,
    held: Arc<Held>,
    tag: u64,
}

#[async_trait]
impl Settle for Looked {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        let Self { right, held, tag } = *self;
        // It goes back in its turn when the browser is closed.
        if settlement == Settlement::Requeue {
            return Settled::Yes;
        }
        let settled = right.settle(settlement).await;
        if settled == Settled::Yes {
            held.taken(tag);
        }
        settled
    }

    fn is_lost(&self) -> bool {
        self.right.is_lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_looked_through_in_few_pages_and_a_client_holds_few_of_a_long_one() {
        assert_eq!([page_for(0, 200), page_for(10, 5), page_for(900, 200)], [32, 5, 32]);
        assert_eq!([page_for(900, 2), page_for(1_000, 200)], [30, 200]);
        assert_eq!([page_for(100_000, 200), page_for(u32::MAX, 200)], [3_334, 10_000]);
    }
}
