//! A message's way through its group.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{Context, HandlerError, Next, Outcome, Seat};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::super::database::TransactionalDatabase;
use super::super::misuse::TxMisused;
use super::super::open::{Host, Slot};
use super::super::{MOST_DEFERRALS, MOST_REPETITIONS, Transactional, attempt, verdict};
use super::Groups;
use super::desk::{BatchReport, End, Fate, Report, Run, Sit, Turn};
use crate::outbox::Written;
use crate::protocol::Claim;
use crate::store::claim_call::ClaimCall;
use crate::strategy::answers;

/// Handles a message in a group; and once more, alone, if the group had to be rolled back.
pub(in super::super) async fn handle<DB: TransactionalDatabase>(
    strategy: &Transactional<DB>,
    groups: &Arc<Groups<DB>>,
    context: &mut Context,
    next: Next<'_>,
) -> Result<Outcome, HandlerError> {
    let until = Instant::now() + strategy.patience.outage;
    let (mut alone, mut repetitions) = (false, 0);
    loop {
        let request = strategy.identity.claim(context, Duration::ZERO)?;
        let claim = request.as_ref().map(|request| Box::new(ClaimCall::from(request)));
        let key = request.map(|request| request.key);
        let turn = timeout_at(until, groups.join(strategy, claim, alone)).await;
        let course = match turn {
            Ok(Ok(Turn::Run(run))) => Course::Own(run),
            Ok(Ok(Turn::Sit(sit))) => Course::Batch(sit),
            Ok(Ok(Turn::Refused(claim))) => return Ok(refusal(context, claim)),
            Ok(Ok(Turn::Trouble) | Err(_)) => return Ok(verdict::trouble()),
            Err(_) => {
                tracing::warn!(
                    message_id = context.message_id().map(tracing::field::display),
                    "a message waited too long for its turn to write, and is deferred"
                );
                return Ok(verdict::trouble());
            }
        };
        match key {
            Some(key) => drop(context.insert(key)),
            None => context.mark_unprotected(),
        }
        let ended = match course {
            Course::Own(run) => run.handle(strategy, context, next).await,
            Course::Batch(sit) => sit.handle(context, next).await,
        };
        match ended {
            Ended::Again { alone: from_now_on } => alone = from_now_on,
            Ended::For(result) => match attempt::End::of::<DB>(result) {
                attempt::End::Outcome(result) => return result,
                attempt::End::GaveWay { again: true, .. } if repetitions < MOST_REPETITIONS => {
                    repetitions += 1;
                }
                attempt::End::GaveWay { error: Some(error), .. }
                    if context.deferrals() >= MOST_DEFERRALS =>
                {
                    return Err(error);
                }
                attempt::End::GaveWay { .. } | attempt::End::InDoubt => {
                    return Ok(verdict::trouble());
                }
            },
        }
        context.start_over();
    }
}

fn refusal(context: &Context, claim: Claim) -> Outcome {
    match claim {
        Claim::Duplicate(seen) => verdict::duplicate(context, &seen),
        Claim::Conflict => verdict::conflict(context),
        // By another strategy on the same table.
        Claim::Busy { remaining } => verdict::busy(context, remaining),
        Claim::Granted(_) => unreachable!("what is granted is no refusal"),
    }
}

/// How a message may be handled.
enum Course<DB: TransactionalDatabase> {
    Own(Run<DB>),
    Batch(Sit),
}

/// How a run ended.
enum Ended {
    For(Result<Outcome, HandlerError>),
    Again { alone: bool },
}

impl<DB: TransactionalDatabase> Run<DB> {
    /// Runs the handler, and waits for what becomes of its transaction.
    async fn handle(
        self,
        strategy: &Transactional<DB>,
        context: &mut Context,
        next: Next<'_>,
    ) -> Ended {
        let Self { open, until, report, fate } = self;
        let host = Host::new(open);
        context.insert(host.slot());
        let result = match until {
            Some(until) => timeout_at(until, next.run(context)).await.ok(),
            None => Some(next.run(context).await),
        };
        context.remove::<Slot<DB>>();
        let open = host.close();
        let (result, end) = match result {
            None => (None, End::Unfinished),
            Some(Ok(outcome)) if !is_good(&outcome) => (Some(Ok(outcome)), End::Bad),
            Some(Ok(_)) if open.is_none() => {
                (Some(Err(HandlerError::retryable(TxMisused::Kept))), End::Bad)
            }
            Some(Ok(outcome)) => (Some(Ok(outcome)), End::Good),
            Some(Err(error)) => (Some(Err(error)), End::Bad),
        };
        let reply = match &result {
            Some(Ok(outcome)) if end == End::Good => {
                answers::kept(outcome, context, strategy.reply_limit, strategy.meters())
            }
            _ => None,
        };
        // Nobody listens if the runtime ends.
        let _ = report.send(Report { open, end, reply });
        ended(result, fate).await
    }
}

impl Sit {
    /// Goes on to the batch, and waits for what becomes of its transaction.
    async fn handle(self, context: &mut Context, next: Next<'_>) -> Ended {
        let Self { seat, outbox, report, fate } = self;
        context.insert(seat);
        let result = next.run(context).await;
        let took_part = context.remove::<Seat>().is_some_and(|seat| seat.is_taken());
        let end = if result.as_ref().is_ok_and(is_good) { End::Good } else { End::Bad };
        let _ = report.send(BatchReport { took_part, end });
        let ended = ended(Some(result), fate).await;
        if let (true, Some(written)) = (outbox.is_noted(), context.extension::<Written>()) {
            written.note();
        }
        ended
    }
}

/// What has to come of a handler's result, when it is known what became of its transaction.
async fn ended(
    result: Option<Result<Outcome, HandlerError>>,
    fate: oneshot::Receiver<Fate>,
) -> Ended {
    match (fate.await, result) {
        (Ok(Fate::Committed | Fate::RolledBack), Some(result)) => Ended::For(result),
        (Ok(Fate::Committed | Fate::RolledBack), None) => Ended::Again { alone: true },
        (Ok(Fate::Failed(error)), _) => Ended::For(Err(error)),
        (Ok(Fate::Again { alone }), _) => Ended::Again { alone },
        (Ok(Fate::Trouble) | Err(_), _) => Ended::For(Ok(verdict::trouble())),
    }
}

/// An answer that says why it was not done is no reason to keep half of it.
fn is_good(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Duplicate(_) => true,
        Outcome::Answered(answer) => answer.is_success(),
        _ => false,
    }
}
