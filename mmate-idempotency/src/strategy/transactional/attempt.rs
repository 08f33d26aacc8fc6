//! One attempt at a message: a transaction from its beginning to its end.

use std::time::Duration;

use mmate_core::{Context, HandlerError, Next, Outcome, error_chain};
use tokio::time::timeout;

use super::Transactional;
use super::database::{GaveWay, TransactionalDatabase, Transactions as _, Uncommitted};
use super::misuse::TxMisused;
use super::open::{CommitError, Host, Open, Slot};
use crate::protocol::Claim;
use crate::store::{ClaimRequest, Permit, StoreError};
use crate::strategy::{answers, outage, verdict};

/// How an attempt ended.
pub(super) enum End {
    /// With this.
    Outcome(Result<Outcome, HandlerError>),
    /// Nobody knows whether it was committed; the record does.
    InDoubt,
    /// It was rolled back, since it had to give way.
    GaveWay {
        /// What the handler makes of it.
        error: Option<HandlerError>,
        /// Whether it may be repeated at once.
        again: bool,
    },
}

/// How an attempt began.
enum Begun<DB: TransactionalDatabase> {
    /// With this answer to the claim, if there was one.
    Claimed(Open<DB>, Option<Claim>),
    /// It was rolled back already.
    GaveWay,
}

impl End {
    /// An error that says that the transaction had to give way is no failure of the handler.
    pub(super) fn of<DB: TransactionalDatabase>(result: Result<Outcome, HandlerError>) -> Self {
        match result {
            Err(error) if !error.is_permanent() && error.reply().is_none() => {
                match gave_way::<DB>(error.source()) {
                    Some(way) => {
                        let again = way == GaveWay::Repeat;
                        Self::GaveWay { error: Some(error), again }
                    }
                    None => Self::Outcome(Err(error)),
                }
            }
            result => Self::Outcome(result),
        }
    }
}

/// Whether it is due to an error of the database that says so.
fn gave_way<DB: TransactionalDatabase>(
    error: &(dyn std::error::Error + 'static),
) -> Option<GaveWay> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return DB::Transactions::gave_way(error);
        }
        cause = error.source();
    }
    None
}

impl<DB: TransactionalDatabase> Transactional<DB> {
    /// Begins with a message and, if it is to be handled, brings it to an end.
    pub(super) async fn attempt(
        &self,
        context: &mut Context,
        next: Next<'_>,
        in_doubt: &mut Option<Outcome>,
    ) -> End {
        // There is no lease: the claim is done with when the transaction ends.
        let request = match self.identity.claim(context, Duration::ZERO) {
            Ok(request) => request,
            Err(error) => return End::Outcome(Err(error)),
        };
        let (open, claim) = match self.begin(context, request.as_ref()).await {
            Some(Begun::Claimed(open, claim)) => (open, claim),
            Some(Begun::GaveWay) => return End::GaveWay { error: None, again: true },
            None => return End::Outcome(Ok(verdict::trouble())),
        };
        let verdict = match (claim, in_doubt.take()) {
            (claim @ (None | Some(Claim::Granted(_))), _) => {
                let permit = match (&request, claim) {
                    (Some(request), Some(Claim::Granted(grant))) => {
                        Some(Permit::new(request, grant))
                    }
                    _ => None,
                };
                let has_record = permit.is_some();
                match &permit {
                    Some(permit) => drop(context.insert(permit.key().clone())),
                    None => context.mark_unprotected(),
                }
                let end = self.run(open, permit, context, next, in_doubt).await;
                // Without a record nothing could be decided at once.
                let is_lost = !has_record && matches!(end, End::InDoubt);
                return if is_lost { End::Outcome(Ok(verdict::trouble())) } else { end };
            }
            // It was committed, so it is as the handler said.
            (Some(Claim::Duplicate(_)), Some(outcome)) => outcome,
            (Some(Claim::Duplicate(seen)), None) => verdict::duplicate(context, &seen),
            (Some(Claim::Conflict), _) => verdict::conflict(context),
            // By another transaction, or by another strategy on the same table.
            (Some(Claim::Busy { remaining }), _) => verdict::busy(context, remaining),
        };
        self.rollback(open).await;
        End::Outcome(Ok(verdict))
    }

    /// A transaction, and in it the answer to the claim. `None` if the database does not answer for
    /// longer than patience lasts.
    async fn begin(
        &self,
        context: &Context,
        request: Option<&ClaimRequest<'_>>,
    ) -> Option<Begun<DB>> {
        let turn = DB::Transactions::turn(&self.store, &self.options);
        let Ok(turn) = timeout(self.patience.outage, turn).await else {
            tracing::warn!(
                message_id = context.message_id().map(tracing::field::display),
                "a message waited too long for its turn to write, and is deferred"
            );
            return None;
        };
        let told = |error: &StoreError| self.note(error);
        let call = async || {
            let mut open = Open::new(DB::Transactions::begin(&self.pool, &self.options).await?);
            let Some(request) = request else { return Ok(Begun::Claimed(open, None)) };
            let record = async |on: &mut DB::Connection| {
                DB::Transactions::record(&self.store, on, request).await
            };
            match open.ask(record).await {
                Ok(claim) => Ok(Begun::Claimed(open, Some(claim))),
                Err(error) if gave_way::<DB>(&error) == Some(GaveWay::Repeat) => Ok(Begun::GaveWay),
                Err(error) => Err(error),
            }
        };
        let begun = outage::insist(self.patience, "begin with a message", told, call).await;
        let Begun::Claimed(open, claim) = begun.ok()? else { return Some(Begun::GaveWay) };
        if let Some(claim) = &claim {
            self.meters().claimed(claim);
        }
        Some(Begun::Claimed(open.within(turn), claim))
    }

    async fn run(
        &self,
        open: Open<DB>,
        permit: Option<Permit>,
        context: &mut Context,
        next: Next<'_>,
        in_doubt: &mut Option<Outcome>,
    ) -> End {
        let host = Host::new(open);
        context.insert(host.slot());
        let result = next.run(context).await;
        context.remove::<Slot<DB>>();
        let result = match (result, host.close()) {
            // An answer that says why it was not done is no reason to keep half of it.
            (Ok(Outcome::Answered(answer)), Some(open)) if !answer.is_success() => {
                self.rollback(open).await;
                Ok(Outcome::Answered(answer))
            }
            (
                Ok(outcome @ (Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_))),
                Some(mut open),
            ) => match self.keep(&mut open, permit, &outcome, context).await {
                Ok(()) => return self.commit(open, context, outcome, in_doubt).await,
                Err(error) => {
                    self.rollback(open).await;
                    Err(HandlerError::retryable(error))
                }
            },
            (Ok(Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_)), None) => {
                Err(HandlerError::retryable(TxMisused::Kept))
            }
            (result, Some(open)) => {
                self.rollback(open).await;
                result
            }
            (result, None) => result,
        };
        End::of::<DB>(result)
    }

    /// Adds the answer to the record, for copies of the request.
    async fn keep(
        &self,
        open: &mut Open<DB>,
        permit: Option<Permit>,
        outcome: &Outcome,
        context: &Context,
    ) -> Result<(), StoreError> {
        let Some(permit) = permit else { return Ok(()) };
        let reply = answers::kept(outcome, context, self.reply_limit, self.meters());
        let Some(reply) = reply else { return Ok(()) };
        let call = DB::Transactions::answer(&self.store, open.connection(), &permit, &reply);
        outage::ask(self.patience, "keep an answer", call).await
    }

    async fn commit(
        &self,
        open: Open<DB>,
        context: &Context,
        outcome: Outcome,
        in_doubt: &mut Option<Outcome>,
    ) -> End {
        let failed = |error| End::Outcome(Err(HandlerError::retryable(error)));
        let error = match timeout(self.patience.answer, open.commit()).await {
            Ok(Ok(())) => return End::Outcome(Ok(outcome)),
            Ok(Err(CommitError::Savepoint)) => return failed(TxMisused::Savepoint),
            Ok(Err(CommitError::Failed(error))) => match DB::Transactions::uncommitted(&error) {
                Uncommitted::Refused => return End::of::<DB>(Err(HandlerError::retryable(error))),
                Uncommitted::Aborted => return failed(TxMisused::Aborted),
                Uncommitted::Ended => return failed(TxMisused::Ended),
                Uncommitted::Unknown => error_chain(&error),
            },
            Err(_) => format!("no answer within {:?}", self.patience.answer),
        };
        self.meters().uncertain.increment(1);
        tracing::warn!(
            message_id = context.message_id().map(tracing::field::display),
            error,
            "it is not known whether a commit took effect; the record decides"
        );
        *in_doubt = Some(outcome);
        End::InDoubt
    }

    pub(super) async fn rollback(&self, open: Open<DB>) {
        // One that takes too long goes on when it is dropped.
        let _ = timeout(self.patience.answer, open.rollback()).await;
    }
}
