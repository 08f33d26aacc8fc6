//! The handlers of a group, in one transaction.

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::database::TransactionalDatabase;
use super::super::misuse::TxMisused;
use super::super::open::Open;
use super::desk::{End, Fate, Report, Run, Turn, Waiting};
use super::lane::Lane;
use crate::store::Permit;

/// Messages whose claims were granted.
pub(super) struct Party<DB: TransactionalDatabase> {
    pub(super) to_come: std::vec::IntoIter<(Waiting<DB>, Option<Permit>)>,
    /// Those whose handlers have run, or are at it, in their order.
    pub(super) ran: Vec<oneshot::Sender<Fate>>,
    /// Of those that have run.
    pub(super) permits: Vec<Permit>,
    /// What their records keep for copies.
    pub(super) replies: Vec<(Permit, Bytes)>,
    pub(super) size: usize,
}

/// Why a group is not committed.
pub(super) enum Failure<DB: TransactionalDatabase> {
    /// The last one that ran is the reason, or at least it is not known to be none.
    Last { open: Option<Open<DB>>, end: End },
    /// The last one that ran has left its transaction in a state that cannot be committed.
    Misused { open: Option<Open<DB>>, how: TxMisused },
    /// The database does not answer any more.
    Trouble,
    /// One has left before its turn.
    Left { open: Open<DB> },
}

impl<DB: TransactionalDatabase> Party<DB> {
    /// Has one handler run after the other, all in this transaction.
    pub(super) async fn run(
        &mut self,
        lane: &Lane<DB>,
        mut open: Open<DB>,
        until: Option<Instant>,
    ) -> Result<Open<DB>, Failure<DB>> {
        while let Some((waiting, permit)) = self.to_come.next() {
            let (report, reported) = oneshot::channel();
            let (told, fate) = oneshot::channel();
            let run = Run { open, until, report, fate };
            if let Err(Turn::Run(run)) = waiting.turn.send(Turn::Run(run)) {
                return Err(Failure::Left { open: run.open });
            }
            self.ran.push(told);
            self.permits.extend(permit.clone());
            open = match reported.await {
                Ok(Report { open: Some(open), end: End::Good, reply }) => {
                    self.replies.extend(permit.zip(reply));
                    open
                }
                Ok(Report { open, end, .. }) => return Err(Failure::Last { open, end }),
                // It was dropped, and its transaction with it.
                Err(_) => return Err(Failure::Last { open: None, end: End::Unfinished }),
            };
            if !open.is_plain().await {
                return Err(Failure::Misused { open: Some(open), how: TxMisused::Savepoint });
            }
            if self.to_come.len() > 0 {
                open = lane.check(open, self).await?;
            }
        }
        Ok(open)
    }
}
