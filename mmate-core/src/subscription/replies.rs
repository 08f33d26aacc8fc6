//! How a subscription answers requests.

use std::sync::Arc;

use glob::Pattern;

use super::{Subscription, SubscriptionBuilder};
use crate::message::wire;
use crate::reply::{LostReplies, ReplyPolicy};

/// How a subscription answers requests.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    allowed: Vec<Pattern>,
    pub(crate) lost: LostReplies,
}

impl Replies {
    pub(crate) fn policy(&self, own_queues: &Arc<[String]>) -> ReplyPolicy {
        ReplyPolicy::new(&self.allowed, Arc::clone(own_queues))
    }
}

impl Subscription {
    /// A queue per service for queries of these types, named `{service}.{name}`: the instances of
    /// the service share them. Each service that subscribes to a type answers it, and whoever asked
    /// takes the first reply; to have several services share the queries, name one queue with
    /// [`shared`](Self::shared) and add [`queries`](SubscriptionBuilder::queries).
    ///
    /// ```
    /// use mmate_core::{HandlerError, Json, Reply, Subscription};
    /// async fn price(Json(sku): Json<String>) -> Result<Reply<u64>, HandlerError> {
    ///     Ok(Reply(sku.len() as u64))
    /// }
    /// let subscription = Subscription::queries("prices", ["GetPrice"]).handler(price);
    /// # let _ = subscription;
    /// ```
    pub fn queries<I>(name: impl Into<String>, types: I) -> SubscriptionBuilder
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::per_service(name, [""; 0]).queries(types)
    }
}

impl SubscriptionBuilder {
    /// Adds queries by their types: everything published to `qry.{type}`. A type may be `*`.
    pub fn queries<I>(self, types: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let pattern = |message_type: I::Item| format!("qry.{}", message_type.as_ref());
        self.topics_of(wire::QUERIES, types.into_iter().map(pattern))
    }

    /// Lets replies go to further queues: names or globs such as `answers.*`, in which `*` is any
    /// run of characters. Several calls add up.
    ///
    /// Who sends a request names the queue that its reply goes to, so not every name is allowed.
    /// Without this, those are that mmate's services make (`{service}.replies.{instance}`, and
    /// `bridge.reply.…` of mmate for Go), and RabbitMQ's direct reply-to. Never allowed are other
    /// names that begin with `amq.`, dead-letter queues, and the service's own queues. A request
    /// with another address is dead-lettered as `malformed`, and its handler does not run.
    pub fn allow_replies_to<I>(mut self, queues: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        for filter in queues {
            match Pattern::new(filter.as_ref()) {
                Ok(pattern) => self.replies.allowed.push(pattern),
                Err(error) => self.errors.push(crate::service::ConfigError::ReplyQueue {
                    pattern: filter.as_ref().to_owned(),
                    wrong: error.msg,
                }),
            }
        }
        self
    }

    /// What becomes of a request that was handled, when no queue takes its reply; a dead letter by
    /// default.
    pub fn lost_replies(mut self, lost: LostReplies) -> Self {
        self.replies.lost = lost;
        self
    }
}
