//! Sending answers.

use super::address::is_direct;
use super::{Answer, ReplyError};
use crate::context::Context;
use crate::message::{CorrelationId, MessageKind, Outgoing, wire};
use crate::outcome::{DeadLetter, DeadReason, Outcome};
use crate::transport::PublishError;

/// What becomes of a request that was handled, when no queue takes its reply: whoever asked has
/// ended, and its queue with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LostReplies {
    /// The request becomes a dead letter with the reason `unanswerable`, and nothing is handled
    /// again. The default.
    #[default]
    DeadLetter,
    /// The request is handled again by the retry policy, and becomes a dead letter after the last
    /// attempt. For handlers that may run any number of times.
    Retry,
    /// The request is acknowledged, and the reply counted as lost. For queries that nobody misses.
    Drop,
}

/// How the answering of a request ended.
pub(crate) enum Answering {
    /// There was nothing to send.
    Silent,
    /// The broker has the reply.
    Sent,
    /// There is no reply, and the outcome stands.
    Dropped,
    /// There is no reply, and this becomes of the request instead.
    Instead(Outcome),
    /// There is no reply, and another attempt may do better.
    Again(String),
}

/// Sends what an outcome has to say to whoever asked, and says what that means for the message.
pub(crate) async fn answer(
    context: &Context,
    outcome: &Outcome,
    tells_failures: bool,
    lost: LostReplies,
) -> Answering {
    let (answer, replayed) = match outcome {
        Outcome::Answered(answer) => (answer.clone(), false),
        Outcome::Duplicate(duplicate) => match &duplicate.answer {
            Some(answer) => (answer.clone(), true),
            None => return Answering::Silent,
        },
        // An address that is not allowed is no place to tell so.
        Outcome::DeadLetter(letter) if tells_failures => {
            let Ok(Some(address)) = context.reply_address() else { return Answering::Silent };
            let answer = Answer::failure(&ReplyError::of(letter));
            return match publish(context, address, &answer, false).await {
                Ok(()) => Answering::Sent,
                Err(error) => {
                    tracing::warn!(%error, address, "a requester was not told of a dead letter");
                    Answering::Dropped
                }
            };
        }
        _ => return Answering::Silent,
    };
    let address = match context.reply_address() {
        Ok(Some(address)) => address,
        Ok(None) => return Answering::Silent,
        Err(refused) => {
            let letter = DeadLetter::new(DeadReason::Malformed, refused.chain());
            return Answering::Instead(Outcome::DeadLetter(letter));
        }
    };
    match publish(context, address, &answer, replayed).await {
        Ok(()) => Answering::Sent,
        Err(PublishError::Unroutable { .. }) => {
            // Whoever asked was told when it died, or has ended since: it is not to die of that again.
            let replays = context.message().headers.int(wire::REPLAYS).unwrap_or_default();
            let lost = if replays > 0 { LostReplies::Drop } else { lost };
            let error = format!("nothing takes the reply to {address:?}: whoever asked has ended");
            match lost {
                LostReplies::Drop => {
                    tracing::debug!(address, "a reply is dropped: nothing takes it");
                    Answering::Dropped
                }
                LostReplies::Retry => Answering::Again(error),
                LostReplies::DeadLetter => {
                    let letter = DeadLetter::new(DeadReason::Unanswerable, error);
                    Answering::Instead(Outcome::DeadLetter(letter))
                }
            }
        }
        Err(error @ PublishError::Invalid(_)) => {
            let letter = DeadLetter::new(DeadReason::Permanent, format!("no reply: {error}"));
            Answering::Instead(Outcome::DeadLetter(letter))
        }
        Err(error) => Answering::Again(format!("the reply was not published: {error}")),
    }
}

async fn publish(
    context: &Context,
    address: &str,
    answer: &Answer,
    replayed: bool,
) -> Result<(), PublishError> {
    let suffix = if answer.success { "Reply" } else { "Error" };
    let mut message_type = format!("{}{suffix}", context.message_type());
    if message_type.len() > crate::message::MAX_ID_BYTES {
        suffix.clone_into(&mut message_type);
    }
    let mut reply = Outgoing::to_queue_raw(address, message_type, answer.payload.clone())
        .kind(MessageKind::Reply)
        .header(wire::SUCCESS, if answer.success { "true" } else { "false" });
    if answer.success {
        reply = reply.with_success();
    }
    if replayed {
        reply = reply.header(wire::REPLAYED, true);
    }
    if let Some(id) = context.message_id() {
        let ordinal = if answer.success { REPLY } else { ERROR_REPLY };
        reply = reply.id(id.child(context.scope(), ordinal));
    }
    // What the requester waits for is the request's own word, and its id if it has none.
    let own = context.message_id().map(CorrelationId::from);
    if let Some(correlation) = context.meta().correlation_id.clone().or(own) {
        reply = reply.correlation_id(correlation);
    }
    if is_direct(address) {
        // RabbitMQ returns a mandatory message to a direct address though it delivers it.
        reply = reply.allow_unroutable();
    }
    context.publisher().publish(reply).await.map(drop)
}

/// The places of replies among the messages that are published because of a request: no handler
/// publishes as many, so the reply's id does not depend on what the handler publishes before.
const REPLY: u64 = u64::MAX;
const ERROR_REPLY: u64 = u64::MAX - 1;
