//! A message's way through its group.

use std::time::Duration;

use mmate_core::{Context, HandlerError, Next, Outcome};
use tokio::time::{Instant, timeout_at};

use super::super::database::TransactionalDatabase;
use super::super::misuse::TxMisused;
use super::super::open::{Host, Slot};
use super::super::{MOST_DEFERRALS, MOST_REPETITIONS, Transactional, attempt, verdict};
use super::Groups;
use super::desk::{End, Fate, Report, Run, Turn};
use crate::protocol::Claim;
use crate::store::claim_call::ClaimCall;
use crate::strategy::answers;
use std::sync::Arc;

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
        let run = match turn {
            Ok(Ok(Turn::Run(run))) => run,
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
        if let Some(result) = run.handle(strategy, context, next).await {
            match attempt::End::of::<DB>(result) {
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
            }
        }
        alone = true;
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

impl<DB: TransactionalDatabase> Run<DB> {
    /// Runs the handler, and waits for what becomes of its transaction. `None` if it is to run again.
    async fn handle(
        self,
        strategy: &Transactional<DB>,
        context: &mut Context,
        next: Next<'_>,
    ) -> Option<Result<Outcome, HandlerError>> {
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
        match fate.await {
            Ok(Fate::Committed | Fate::RolledBack) => result,
            Ok(Fate::Failed(error)) => Some(Err(error)),
            Ok(Fate::Again) => None,
            Ok(Fate::Trouble) | Err(_) => Some(Ok(verdict::trouble())),
        }
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
