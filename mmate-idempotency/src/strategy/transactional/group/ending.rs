//! How groups end.

use mmate_core::{HandlerError, error_chain};
use tokio::time::timeout;

use super::super::database::{TransactionalDatabase, Transactions as _, Uncommitted};
use super::super::misuse::TxMisused;
use super::super::open::{CommitError, Open};
use super::super::outage;
use super::desk::{End, Fate};
use super::lane::Lane;
use super::party::{Failure, Party};
use crate::store::{Store, StoreErrorKind};

impl<DB: TransactionalDatabase> Lane<DB> {
    /// Completes and commits: what that means for each that ran.
    pub(super) async fn commit(&self, party: &mut Party<DB>, mut open: Open<DB>) -> Vec<Fate> {
        let (strategy, size) = (&self.strategy, party.ran.len());
        let all = |fate: fn() -> Fate| (0..size).map(|_| fate()).collect();
        let meters = self.groups.meters(strategy.store.name());
        let (permits, replies) = (&party.permits, &party.replies);
        let completing = async {
            if permits.is_empty() {
                return Ok(true);
            }
            let all =
                DB::Transactions::complete_all(&strategy.store, open.connection(), permits).await?;
            for (permit, reply) in replies {
                DB::Transactions::answer(&strategy.store, open.connection(), permit, reply).await?;
            }
            Ok(all)
        };
        let answer = outage::ask(strategy.patience, "complete the claims of a group", completing);
        let reason = match answer.await {
            Ok(true) => None,
            Ok(false) => Some(HandlerError::retryable(TxMisused::Ended)),
            // As where a handler goes on after a statement of its own has failed.
            Err(error) if error.kind() == StoreErrorKind::Permanent => {
                Some(HandlerError::retryable(error))
            }
            Err(error) => {
                strategy.note(&error);
                strategy.rollback(open).await;
                meters.rolled_back.increment(1);
                return all(|| Fate::Trouble);
            }
        };
        if let Some(reason) = reason {
            strategy.rollback(open).await;
            meters.rolled_back.increment(1);
            return blame(size, reason);
        }
        #[expect(clippy::cast_precision_loss, reason = "no group is that large")]
        meters.size.record(size as f64);
        let error = match timeout(strategy.patience.answer, open.commit()).await {
            Ok(Ok(())) => {
                meters.committed.increment(1);
                return all(|| Fate::Committed);
            }
            Ok(Err(CommitError::Savepoint)) => Err(HandlerError::retryable(TxMisused::Savepoint)),
            Ok(Err(CommitError::Failed(error))) => match DB::Transactions::uncommitted(&error) {
                Uncommitted::Refused => Err(HandlerError::retryable(error)),
                Uncommitted::Aborted => Err(HandlerError::retryable(TxMisused::Aborted)),
                Uncommitted::Ended => Err(HandlerError::retryable(TxMisused::Ended)),
                Uncommitted::Unknown => Ok(error_chain(&error)),
            },
            Err(_) => Ok(format!("no answer within {:?}", strategy.patience.answer)),
        };
        match error {
            Err(reason) => {
                meters.rolled_back.increment(1);
                blame(size, reason)
            }
            Ok(error) => {
                meters.uncertain.increment(1);
                strategy.meters().uncertain.increment(size as u64);
                tracing::warn!(
                    messages = size,
                    error,
                    "it is not known whether the commit of a group took effect; its messages are \
                     shown again, and the records decide"
                );
                all(|| Fate::Trouble)
            }
        }
    }

    /// Rolls back: what that means for each that ran.
    pub(super) async fn give_up(&self, party: &mut Party<DB>, failure: Failure<DB>) -> Vec<Fate> {
        let ran = party.ran.len();
        let mut fates: Vec<_> = (0..ran).map(|_| Fate::Again { alone: true }).collect();
        // Who ran first has seen nothing of its neighbours, so what it says holds. All others may
        // have seen what is now undone.
        let first = if ran == 1 { fates.first_mut() } else { None };
        let open = match failure {
            Failure::Last { open, end } => {
                if let (Some(first), End::Bad) = (first, end) {
                    *first = Fate::RolledBack;
                }
                open
            }
            Failure::Misused { open, how } => {
                if let Some(first) = first {
                    *first = Fate::Failed(HandlerError::retryable(how));
                }
                open
            }
            Failure::Left { open } => Some(open),
            Failure::Trouble => {
                fates = (0..ran).map(|_| Fate::Trouble).collect();
                None
            }
        };
        if let Some(open) = open {
            self.undo(open, party).await;
        }
        self.groups.meters(self.strategy.store.name()).rolled_back.increment(1);
        if party.size > 1 {
            tracing::debug!(
                messages = party.size,
                ran,
                "a group is rolled back; those that ran run again, each alone"
            );
        }
        fates
    }
}

impl<DB: TransactionalDatabase> Lane<DB> {
    /// Rolls back. What a handler has committed by itself cannot be undone: those whose effects are
    /// in it are done then, and do not run again.
    pub(super) async fn undo(&self, mut open: Open<DB>, party: &Party<DB>) {
        let strategy = &self.strategy;
        if party.size > 1 && open.is_plain().await {
            let looking = DB::Transactions::is_ended(open.connection());
            let ended = outage::ask(strategy.patience, "look for a transaction", looking).await;
            if let Ok(true) = ended {
                return self.save(open, party).await;
            }
        }
        strategy.rollback(open).await;
    }

    /// Whether the next handler may have it.
    pub(super) async fn check(
        &self,
        mut open: Open<DB>,
        party: &Party<DB>,
    ) -> Result<Open<DB>, Failure<DB>> {
        let strategy = &self.strategy;
        let looking = DB::Transactions::is_ended(open.connection());
        match outage::ask(strategy.patience, "look for a transaction", looking).await {
            Ok(false) => Ok(open),
            Ok(true) => {
                self.save(open, party).await;
                Err(Failure::Misused { open: None, how: TxMisused::Ended })
            }
            Err(error) => {
                strategy.note(&error);
                Err(Failure::Trouble)
            }
        }
    }

    async fn save(&self, mut open: Open<DB>, party: &Party<DB>) {
        let strategy = &self.strategy;
        tracing::warn!(
            messages = party.ran.len(),
            "a handler has ended the transaction of a group by itself; what is committed of it stays"
        );
        let completing =
            DB::Transactions::complete_all(&strategy.store, open.connection(), &party.permits);
        let asked = outage::ask(strategy.patience, "complete the claims of a group", completing);
        match asked.await {
            // Without records to complete it was a rollback, and there is nothing to commit.
            Ok(_) => drop(timeout(strategy.patience.answer, open.commit()).await),
            Err(error) => strategy.note(&error),
        }
    }
}

/// Nobody's fault, unless there is one only.
pub(super) fn blame(size: usize, reason: HandlerError) -> Vec<Fate> {
    match size {
        1 => vec![Fate::Failed(reason)],
        _ => (0..size).map(|_| Fate::Again { alone: true }).collect(),
    }
}
