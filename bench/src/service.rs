//! mmate as a contender.

use async_trait::async_trait;
use mmate_amqp::Amqp;
use mmate_core::transport::Declare;
use mmate_core::{
    Context, HandlerError, Json, Middleware, Next, Outcome, Service, State, Subscription,
    SubscriptionBuilder,
};

use crate::Result;
use crate::cases::PREFETCH;
use crate::figures::Sample;
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;

/// The handler of all cases that have no effect in a database.
pub(crate) async fn handle(
    Json(order): Json<Order>,
    State(progress): State<Progress>,
) -> Result<(), HandlerError> {
    std::hint::black_box(order);
    progress.one();
    Ok(())
}

/// A typed handler and nothing else.
pub(crate) fn plain(subscription: SubscriptionBuilder) -> Subscription {
    subscription.handler(handle)
}

/// Consumes what is in the queue.
pub(crate) async fn measured(
    servers: &Servers,
    queue: Queue,
    messages: u64,
    finish: impl FnOnce(SubscriptionBuilder) -> Subscription,
) -> Result<Sample> {
    counted(servers, queue, messages, None, finish).await
}

/// The same, if something else than the handler counts, which nothing may come to then.
pub(crate) async fn counted(
    servers: &Servers,
    queue: Queue,
    messages: u64,
    counter: Option<Progress>,
    finish: impl FnOnce(SubscriptionBuilder) -> Subscription,
) -> Result<Sample> {
    let by_handler = Progress::new(messages);
    let all_are_duplicates = counter.is_some();
    let progress = counter.unwrap_or_else(|| by_handler.clone());
    let subscription = Subscription::shared(queue.name.as_str())
        .declare(Declare::LeaveAlone)
        .prefetch(PREFETCH.try_into()?);
    let running = Service::new("bench")
        .state(by_handler)
        .subscribe(finish(subscription))
        .start(Amqp::new(servers.amqp()?))
        .await?;
    let sample = progress.finished().await?;
    let stats = running.stats().clone();
    running.stop().await?;
    let counts = stats.total();
    let is_right = match all_are_duplicates {
        true => counts.duplicates.total() == messages,
        false => counts.succeeded + counts.duplicates.total() == messages,
    };
    if !is_right || counts.settlements_lost > 0 {
        return Err(format!("{messages} were to be handled once, or not again: {counts:?}").into());
    }
    queue.used_up().await?;
    Ok(sample)
}

/// Counts what comes to the subscription, for cases in which nothing comes to the handler.
pub(crate) struct Counting(pub(crate) Progress);

#[async_trait]
impl Middleware for Counting {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let outcome = next.run(context).await;
        self.0.one();
        outcome
    }
}
